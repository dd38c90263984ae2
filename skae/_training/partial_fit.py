"""Fit a network to samples that come in chunks."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._data.containers import ScaledSamples
from skae._data.dataset import apply_in_batches
from skae._data.duplicates import content_draws
from skae._data.sample import Reservoir, Sample
from skae._network.custom import CustomModuleHalf
from skae._network.layers import SeededDropout
from skae._network.scaling import ScaledAutoEncoder
from skae._pca.components import PrincipalComponents
from skae._pca.incremental import IncrementalPrincipalComponents
from skae._pca.missing import ImputedRows, PPCAImputer, principal_components_of_incomplete
from skae._training.fit import NetworkInitializer, TrainingResult, code_spread, is_pca
from skae._training.net import (
    ReconstructionNet,
    TrainingConfig,
    as_columns,
    as_epochs,
    epochs_of,
    net_to_dict,
    network_from_dict,
    predicting_net,
)
from skae._training.ordering import ExplainedVariance, variance_of_network, variance_of_pca
from skae._training.selection import EpochSelector
from skae._training.trainer import Trainer
from skae._utils import as_tensor, threads_for

# Number of samples per step if batch_size is "auto". Half of them are new.
STREAM_BATCH = 64
# Largest number of held-out samples, and of samples that are kept to be used again, and their largest number of values.
MEMORY_SAMPLES = 2000
KEPT_VALUES = 4_000_000
# Number of values that are processed at once.
CHUNK_VALUES = 1_000_000
# Number of held-out samples that are kept even if half of the samples are forgotten sooner. Chosen by reasoning.
LEAST_HELD_OUT = 50
TINY = 1e-30
# Attributes of a stream that are part of its state, besides the training.
PARTS = ("running", "memory", "held_out")
NUMBERS = ("waiting", "waiting_weights", "initial_total", "n_values", "n_present", "n_seen", "judged_at", "seeds")


class Stream:
    """State of `partial_fit` between chunks of samples.

    A fraction of the samples is held out. The others update the principal components. Each step of the network takes
    half a batch of new samples and as many that are drawn from earlier ones. The network is initialized from the
    principal components, again whenever the number of samples has doubled while PCA has the lower loss on held-out
    samples.

    Parameters
    ----------
    start : NetworkInitializer
        Initializes the network. Its sample is empty and only gives the dtype and the number of features.
    config : TrainingConfig
        Parameters of the training.
    fraction : float or None
        Fraction of the samples that are held out. None holds out no samples and compares on training samples.
    seeds : tuple
        State of the random generator before the seeds were drawn, from which the same stream can be rebuilt.
    half_life : float, default=inf
        Number of later samples after which the weight of a sample is a half.
    """

    def __init__(
        self,
        start: NetworkInitializer,
        config: TrainingConfig,
        fraction: float | None,
        seeds: tuple,
        half_life: float = math.inf,
    ) -> None:
        n_features, dtype = start.sample.shape[1], start.sample.dtype
        lifetime = half_life / math.log(2.0)
        n_samples = int(min(MEMORY_SAMPLES, max(KEPT_VALUES // n_features, config.batch_size), max(lifetime, 1.0)))
        self.start = start
        self.config = config
        self.fraction = fraction
        self.seeds = seeds
        self.n_seen = 0
        self.half_life = half_life
        forgets = math.isfinite(half_life)
        self.running = IncrementalPrincipalComponents(start.architecture.n_components, n_features, forgets)
        self.memory = Reservoir(n_samples, n_features, dtype, lifetime * (1.0 - (fraction or 0.0)))
        lifetime = max(lifetime * (fraction or 1.0), LEAST_HELD_OUT)
        self.held_out = Reservoir(int(min(n_samples, lifetime)), n_features, dtype, lifetime)
        self.waiting, self.waiting_weights = np.zeros((0, n_features), dtype=dtype), np.zeros(0)
        self.random = np.random.RandomState(config.seed)
        self.training: Trainer | None = None
        self.preferred: ScaledAutoEncoder | None = None
        self.judged_at = 0
        self.initial_total = 0.0
        self.n_values = 0.0
        self.n_present = 0.0
        self.record = TrainingResult(valid_scores=None if fraction is None else [])

    def take(self, sample: Sample) -> None:
        """Update with more samples."""
        self.n_seen += len(sample)
        step = max(CHUNK_VALUES // sample.shape[1], 1)
        for first in range(0, len(sample), step):
            chunk = slice(first, first + step)
            samples = np.ascontiguousarray(sample[chunk], dtype=self.start.sample.dtype)
            self._take(samples, np.ones(len(samples)) if sample.weights is None else sample.weights[chunk])

    def _take(self, samples: NDArray, weights: NDArray) -> None:
        """Update with a chunk of samples."""
        self.running.check(samples.astype(np.float64), weights)
        # Copies of a sample are all held out or all used for training, whichever chunks they are in.
        held = content_draws(Sample(samples), self.config.seed) < (self.fraction or 0.0)
        held[: self.running.total == 0] = False
        self.held_out.offer(samples[held], weights[held], self.random)
        samples, weights = samples[~held], weights[~held]
        if len(samples) == 0:
            return
        self._forget(len(held))
        self.running.merge(self._filled(self._divided(samples)).astype(np.float64), weights)
        self.memory.offer(samples, weights, self.random)
        self.waiting = np.concatenate([self.waiting, samples])
        self.waiting_weights = np.concatenate([self.waiting_weights, weights])
        self._learn()

    def _forget(self, n_samples: int) -> None:
        """Reduce the weights of the samples so far, because this number of samples follows."""
        fraction = 0.5 ** (n_samples / self.half_life)
        if fraction < 1.0:
            self.running.forget(fraction)
            self.initial_total *= fraction
            self.n_values *= fraction
            self.n_present *= fraction

    def _divided(self, samples: NDArray) -> NDArray:
        """Divide features by what they are divided by before principal components are found."""
        scale = self.start.loss.feature_scale
        return samples if scale is None else ScaledSamples(samples, scale)[:]

    def _filled(self, samples: NDArray) -> NDArray:
        """Impute missing values by the principal components of the samples so far."""
        missing = np.isnan(samples)
        self.n_values += samples.size
        self.n_present += samples.size - missing.sum()
        if not missing.any():
            return samples
        if self.running.total == 0:
            n_components = min(self.running.n_components, *samples.shape)
            pca = principal_components_of_incomplete(Sample(samples), n_components).padded(self.running.n_components)
        else:
            pca = self.principal_components()
        imputer = PPCAImputer(len(pca.components), samples.shape[1], as_tensor(pca.mean).dtype)
        imputer.init_from_pca(pca)
        return ImputedRows(samples, pca.mean, pca.scale, imputer)[:]

    def principal_components(self) -> PrincipalComponents:
        """Return the principal components of all samples that are not held out."""
        kept, scale = self._divided(self.memory.samples), self.start.loss.feature_scale
        pca = self.running.principal_components(np.where(np.isnan(kept), self.running.mean, kept))
        present = self.n_present / self.n_values
        return replace(pca, present_fraction=present, feature_scale=1.0 if scale is None else scale)

    def _learn(self) -> None:
        """Take one step per half batch of new samples."""
        architecture, half = self.start.architecture, max(self.config.batch_size // 2, 1)
        n_samples = len(self.waiting) // half * half
        if architecture.kind == "pca" or self.config.max_epochs == 0:
            self.waiting, self.waiting_weights = self.waiting[:0], self.waiting_weights[:0]
            return
        if n_samples == 0:
            return
        new, weights = self.waiting[:n_samples], self.waiting_weights[:n_samples]
        self.waiting, self.waiting_weights = self.waiting[n_samples:], self.waiting_weights[n_samples:]
        if self.training is None or (self.running.total >= 2 * self.initial_total and self.preferred is None):
            self.training = self._initialized(self.principal_components())
            self.initial_total = self.running.total
        again = self.random.randint(len(self.memory), size=n_samples)
        samples = np.concatenate([new, self.memory.samples[again]])
        self.training.learn_from(Sample(samples, weights=np.concatenate([weights, self.memory.weights[again]])))
        with threads_for(self.config.batch_size * architecture.n_weights):
            self.training.epoch()
        self.record.train_losses.append(self.training.train_losses[-1])
        self.record.history.append(epochs_of(self.training.net)[-1])
        self.training.net.history.clear()

    def _initialized(self, pca: PrincipalComponents) -> Trainer:
        """Return a trainer that starts from principal components."""
        fraction = pca.unexplained_variance_ratio(self.running.count)
        config = replace(self.config, unexplained_variance_ratio=fraction)
        return self._trainer(self.start.on(pca), config)

    def _trainer(self, model: ScaledAutoEncoder, config: TrainingConfig) -> Trainer:
        """Return a trainer with a constant learning rate."""
        perturbs = self.start.before is None
        trainer = Trainer(model, config, self.memory.sample, None, config.callbacks, perturbs, averages=True)
        trainer.schedule.sets_rate = False
        return trainer

    def _trained_model(self, training: Trainer) -> ScaledAutoEncoder:
        """Return a copy of the current network."""
        training.learn_from(self.memory.sample)
        return copy.deepcopy(training.finish())

    def _select_model(self) -> None:
        """Choose between the network and PCA by the held-out samples, or by earlier samples if none are held out.

        The scores are added to the record, with that of PCA first.
        """
        n_epochs = len(self.record.train_losses)
        if self.training is None or self.judged_at == n_epochs:
            return
        self.judged_at = n_epochs
        model = self._trained_model(self.training)
        sample = self.held_out.sample if len(self.held_out) > 0 else self.memory.sample
        start = self.start.on(self.principal_components())
        (losses, reference), (of_network, _) = (_sample_losses(self.training, one, sample) for one in (start, model))
        choice = EpochSelector(losses, use_standard_error=True, sample=sample)
        has_floor = not self.config.regularizers and self.start.architecture.linear_skip
        preferred = choice.update(of_network, n_epochs) or not has_floor
        self.preferred = model if preferred else None
        if self.record.valid_scores is not None:
            fractions = [1.0 - loss / max(float(sample.mean(reference)), TINY) for loss in choice.mean_losses]
            known = [*self.record.valid_scores[1:], *fractions[1:]]
            self.record.valid_scores[:] = [fractions[0], *known]
            self.record.valid_epochs[:] = [0, *self.record.valid_epochs[1:], n_epochs]

    def network(self) -> tuple[ReconstructionNet, TrainingResult]:
        """Return a net of the network or of PCA, whichever was selected, and the training history."""
        self._select_model()
        model = self._selected()
        if self.config.whiten:
            model.whiten(code_spread(model, self.memory.sample))
        return predicting_net(model, self.record.history), replace(self.record, best_epoch=self._best_epoch)

    def _selected(self) -> ScaledAutoEncoder:
        """Return a copy of the network that was selected, with codes in units of the data."""
        return self.start.on(self.principal_components()) if self.preferred is None else copy.deepcopy(self.preferred)

    @property
    def _best_epoch(self) -> int:
        return 0 if self.preferred is None else len(self.record.train_losses)

    def explained(self) -> ExplainedVariance:
        """Compute the variance that each code explains, on the samples that are kept."""
        pca, model, weights = self.principal_components(), self._selected(), self.memory.weights
        sample = Sample(self.memory.samples, weights=weights * (self.running.count / weights.sum()))
        if is_pca(self.start, self.config, self._best_epoch):
            return variance_of_pca(pca, sample, model.architecture.n_components)
        return variance_of_network(model, pca, sample, model.code_unit)

    def state(self) -> dict[str, Any]:
        """Return the state as plain values and NumPy arrays."""
        kept = {name: copy.deepcopy(vars(getattr(self, name))) for name in PARTS}
        numbers = {name: copy.copy(getattr(self, name)) for name in NUMBERS}
        training = None if self.training is None else training_state(self.training)
        record: dict[str, Any] = {
            name: list(getattr(self.record, name) or ())
            for name in ("train_losses", "valid_scores", "valid_epochs", "history")
        }
        record["history"] = as_columns(record["history"])
        frozen = {"before": _to_dict(self.start.before), "preferred": _to_dict(self.preferred)}
        loss = None if self.start.loss.feature_scale is None else self.config.loss
        changing = {"loss": loss, "random": self.random.get_state(), "training": training, "record": record}
        return {**kept, **numbers, **frozen, **changing}

    @contextmanager
    def unchanged_on_failure(self) -> Iterator[None]:
        """Restore the state if the block raises an error or is interrupted."""
        before = self.state()
        try:
            yield
        except BaseException:
            self.restore(before)
            raise

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state of a stream with the same parameters."""
        for name in PARTS:
            vars(getattr(self, name)).update(copy.deepcopy(state[name]))
        for name in NUMBERS:
            setattr(self, name, state[name])
        self.random.set_state(state["random"])
        record = copy.deepcopy(state["record"])
        record["history"] = as_epochs(record["history"])
        self.record = TrainingResult(
            **{**record, "valid_scores": None if self.fraction is None else record["valid_scores"]}
        )
        preferred = model_from_dict(state["preferred"])
        self.preferred = None if preferred is None else preferred.to(self.start.device)
        self.training = None
        if state["training"] is not None:
            model = self.start.on(self.principal_components())
            self.training = restored_training(state["training"], model, self.config, self._trainer)


def _to_dict(model: ScaledAutoEncoder | None) -> dict | None:
    return None if model is None else net_to_dict(predicting_net(model))


def model_from_dict(frozen: dict | None) -> ScaledAutoEncoder | None:
    """Rebuild a network from the state of a stream; None stays None."""
    return None if frozen is None else network_from_dict(frozen)


def _sample_losses(training: Trainer, model: ScaledAutoEncoder, sample: Sample) -> NDArray:
    """Return the loss of each sample, and its loss if it were reconstructed as the mean, of shape (2, n_samples)."""
    hiding = training.net.hiding[1]
    if hiding is not None:
        hiding.rewind()

    def measured(x: Tensor) -> Tensor:
        seen, target = (x, x) if hiding is None else hiding.compared(x)
        target, x_hat = training.standardize(target.clone()), training.standardize(model.reconstruct(seen))
        return torch.stack([training.criterion.per_sample(one, target) for one in (x_hat, x_hat * 0.0)], dim=1)

    return apply_in_batches(measured, sample, 2, model.mean, np.float64).T


def training_state(training: Trainer) -> dict:
    """Return the state of a trainer as plain values, with initial weights, averages, optimizer and generators."""
    averaging, objective = training.net.averaging, training.objective
    return plain(
        {
            "model": dict(training.model.state_dict()),
            "unexplained_variance_ratio": training.config.unexplained_variance_ratio,
            "unit": training.criterion.unit,
            "core": dict(training.network.state_dict()),
            "average": [] if averaging is None else averaging.average_,
            "n_steps": 0 if averaging is None else averaging.n_steps_,
            "optimizer": training.net.optimizer_.state_dict(),
            "generators": [generator.get_state() for generator in _generators(training)],
            "nat": 0.0 if objective is None else objective.nat,
            "n_epochs": 0 if objective is None else objective.n_epochs,
        }
    )


@torch.no_grad()
def restored_training(
    state: dict, model: ScaledAutoEncoder, config: TrainingConfig, make: Callable[..., Trainer]
) -> Trainer:
    """Return a trainer with a state that was returned by `training_state`.

    Parameters
    ----------
    state : dict
        The state.
    model : ScaledAutoEncoder
        Model with the same architecture; its weights are overwritten.
    config : TrainingConfig
        Configuration of that trainer, whose unexplained variance ratio is taken from the state.
    make : callable
        Returns a trainer for a model and a configuration.

    Returns
    -------
    Trainer
        The trainer.
    """
    state = tensors(state)
    model.load_state_dict(state["model"])
    training = make(model, replace(config, unexplained_variance_ratio=state["unexplained_variance_ratio"]))
    training.network.load_state_dict(state["core"])
    training.criterion.unit = state["unit"]
    averaging = training.net.averaging
    if averaging is not None:
        averaging.n_steps_ = state["n_steps"]
        for average, value in zip(averaging.average_, state["average"], strict=True):
            average.copy_(value)
    training.net.optimizer_.load_state_dict(state["optimizer"])
    for generator, value in zip(_generators(training), state["generators"], strict=True):
        generator.set_state(value)
    if training.objective is not None:
        training.objective.n_epochs, training.objective.nat = state["n_epochs"], state["nat"]
    return training


def _generators(training: Trainer) -> Iterator[torch.Generator]:
    """Generate the random generators of a trainer."""
    yield cast(torch.Generator, training.net.shuffler)
    yield training.schedule.noise.generator
    if training.schedule.nested is not None:
        yield training.schedule.nested.generator
    if training.objective is not None:
        yield from training.objective.generators
    for layer in training.network.modules():
        if isinstance(layer, SeededDropout) and layer.generator is not None:
            yield layer.generator
        elif isinstance(layer, CustomModuleHalf) and layer.draws is not None and layer.direction == "encode":
            yield from layer.draws.generators.values()  # those of both directions
    if training.net.hiding[0] is not None:
        yield training.net.hiding[0].generator


def plain(value: Any) -> Any:
    """Convert the tensors in nested dictionaries and lists to arrays."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def tensors(value: Any) -> Any:
    """Convert the arrays in nested dictionaries and lists to tensors."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: tensors(entry) for key, entry in value.items()}
    return [tensors(entry) for entry in value] if isinstance(value, list) else value
