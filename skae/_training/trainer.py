"""Train a network, and evaluate the loss of each sample."""

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.history import History
from torch import Tensor, nn

from skae._data.dataset import Hiding, PerSampleBuffer, SampleBatches, SampleDataset, Standardizer, apply_in_batches
from skae._data.sample import Sample
from skae._network.custom import CustomModuleHalf
from skae._network.draws import Draws
from skae._network.layers import SeededDropout, trainable_state
from skae._network.scaling import Projection, ScaledAutoEncoder
from skae._objectives.criterion import AnyCriterion, Criterion, OfPresent, criterion_of
from skae._objectives.losses import Loss, SquaredError
from skae._objectives.objective import Objective
from skae._objectives.regularizers import penalizes_codes
from skae._pca.missing import PPCAImputer
from skae._training.callbacks import ExponentialMovingAverage, StopTraining
from skae._training.net import TrainingConfig, build_net, epochs_of, sets_rate
from skae._training.ordering import JACOBIAN_SAMPLES, JUDGING_STEPS, prefix_sizes
from skae._training.schedule import DifferenceAugmentation, GaussianNoise, NestedDropout, Regularization, Schedule
from skae._utils import seeded_generator

AVERAGING_DECAY = 0.99
# Number of training samples by which the unit of the loss is computed.
REFERENCE_SAMPLES = 2000
# Number of training samples by which the initial prediction of labels is fitted.
READ_OUT_SAMPLES = 2000


class Trainer:
    """Training of a network by a skorch net.

    Parameters
    ----------
    model : ScaledAutoEncoder
        Initial network. It is trained in single precision, which is enough for standardized samples.
    config : TrainingConfig
        Parameters of the training.
    sample : Sample
        Training samples.
    valid : Sample, default=None
        Held-out samples.
    callbacks : sequence of skorch callbacks, default=()
        Callbacks of the user.
    perturbs : bool, default=False
        Whether to perturb the output layers before the first step.
    averages : bool, default=False
        Whether a moving average of the weights is evaluated in place of the weights.
    compares : bool, default=False
        Whether the losses of the held-out samples at the start are computed.
    """

    def __init__(
        self,
        model: ScaledAutoEncoder,
        config: TrainingConfig,
        sample: Sample,
        valid: Sample | None = None,
        callbacks: Sequence = (),
        perturbs: bool = False,
        averages: bool = False,
        compares: bool = False,
    ) -> None:
        # The line search of L-BFGS needs exact losses.
        self.stochastic = config.optimizer != "lbfgs"
        self.model = model
        self.config = config
        self.number, self.n_runs = config.journal.new_trainer(), 0
        dtype = torch.float32 if self.stochastic else model.mean.dtype
        self.scaled = copy.deepcopy(model).to(dtype)
        self.network = self.scaled.network
        self.stopped = False
        self.standardize = Standardizer(model.mean, model.divisor, dtype)
        self.fill = self.scaled.filling if config.incomplete else None
        self.samples = self._dataset(sample)
        self.valid = None if valid is None else self._dataset(valid)
        self.ranks = sample.ranks
        kinds = nn.modules.batchnorm._BatchNorm
        if sample.spans_ranks and any(isinstance(one, kinds) for one in self.network.modules()):
            raise ValueError(
                "module has batch normalization, which normalizes by the samples of one process, and is not available "
                "for samples in several. Use another normalization, or call the fit method with all samples."
            )
        seed = self.ranks.seed(config.seed)  # of random numbers that differ between processes
        generator = seeded_generator(seed, model.mean.device)
        noise = GaussianNoise(math.sqrt(config.unexplained_variance_ratio) * self.network.output_gain, generator)
        difference = DifferenceAugmentation(generator)
        nested = None
        if config.nested is not None and model.architecture.n_components > 1:
            generator = seeded_generator(seed, model.mean.device)
            nested = NestedDropout(config.nested, model.architecture.n_components, generator, not self.stochastic)
        self.schedule = Schedule(noise, difference, self.stochastic and sets_rate(callbacks), nested)
        averaging = ExponentialMovingAverage(AVERAGING_DECAY) if averages and self.stochastic else None
        self.criterion = _criterion(config, self.scaled, self.samples)
        self.objective = self._objective()
        own = [one for one in (self.schedule, averaging) if one is not None] if self.stochastic else []
        hiding = (None, None) if self.fill is None else self._hiding()
        parts = averaging, difference, self.criterion, self.objective, hiding
        self.net = build_net(self.network, config, [*own, *callbacks], self.valid, *parts, self.ranks)
        self.network.eval()
        judged = self.samples if self.valid is None else self.valid
        announce = None if self.objective is None else self.objective.begin_batch
        self.judged = SampleBatches(judged, config.batch_size, hiding=hiding[1], imputes=False, announce=announce)
        if compares:
            self._initialize_read_out()
            # A fitted network from which training continues is compared by projected codes, too.
            projection = model.projection.limited(JUDGING_STEPS)
            self.scaled.projection = projection
            judging = projection if projection.n_steps > 0 else None
            self.start_losses, self.start_floors = self._losses(judging), self._floor_losses(judging)
        self._leave_start(perturbs)
        self.network.code_dropout = nested
        if self.stochastic and not any(one.corrupts for one in config.regularizers):
            self.network.corruption = noise
        self.net.notify("on_train_begin", X=self.samples, y=None)

    def _dataset(self, sample: Sample) -> SampleDataset:
        return SampleDataset(sample, standardize=self.standardize, fill=self.fill)

    def _objective(self) -> Objective | None:
        """Return the objective with regularizers, or None without any."""
        config, device = self.config, self.model.mean.device
        if not config.regularizers:
            return None
        nat = self.criterion.nat(self.model.architecture.n_features, config.unexplained_variance_ratio)
        seed = self.ranks.seed(config.seed)
        return Objective(config.regularizers, seed, device, nat, self.samples.sample.X)

    def _initialize_read_out(self) -> None:
        """Fit the outputs of a linear function of the codes to the codes of the start."""
        bound = next((one for one in self.config.regularizers if one.n_outputs > 0), None)
        if bound is None:
            return
        sample = self.samples.sample
        positions = np.linspace(0, len(sample) - 1, min(len(sample), READ_OUT_SAMPLES), dtype=int)
        with torch.no_grad():
            z = self.network.encode(self.samples.take_filled(positions)).double().cpu().numpy()
        found = bound.initial_read_out(z, sample.numbers_at(positions))
        if found is not None:
            self.network.init_read_out(*found)

    def _hiding(self) -> tuple[Hiding | None, Hiding]:
        """Return what hides values in training and in evaluation. Training by L-BFGS hides none."""
        seed, device = self.ranks.seed(self.config.seed), self.model.mean.device
        return Hiding(seed, device, for_training=True) if self.stochastic else None, Hiding(seed, device)

    def _leave_start(self, perturbs: bool) -> None:
        """Prepare the first step, after the losses of the initial network have been computed."""
        if self.scaled.filling is not None:
            self.scaled.code_shrinkage.fill_(1.0)
        if perturbs:
            generator = seeded_generator(self.config.seed)
            self.network.perturb_output_layers(self.config.unexplained_variance_ratio, generator)
        self.network.enable_inverse_link()
        device = self.model.mean.device
        seed = self.ranks.seed(self.config.seed)
        draws = Draws(seed, torch.device("cpu"), device)
        for layer in self.network.modules():
            if isinstance(layer, SeededDropout):
                layer.generator = seeded_generator(seed, device)
            elif isinstance(layer, CustomModuleHalf):
                layer.draws = draws

    def learn_from(self, sample: Sample) -> None:
        """Replace the training samples."""
        self.samples = self._dataset(sample)

    def run(
        self,
        n_epochs: int,
        regularization: Regularization,
        rate_factor: float = 1.0,
        position: float = 0.0,
        before_epoch: Callable[[], None] = lambda: None,
        after_epoch: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train for some epochs, in which the learning rate increases and then decreases to zero.

        Parameters
        ----------
        n_epochs : int
            Number of epochs.
        regularization : Regularization
            Its strength.
        rate_factor : float, default=1.0
            Multiplies the learning rate.
        position : float, default=0.0
            Position between 0 and 1 at which the course of the regularization begins.
        before_epoch, after_epoch : callable
            Called around each epoch; training stops if the second one returns True.
        """
        self.schedule.begin(n_epochs * self.n_batches, self.n_batches, regularization, rate_factor, position)
        if self.schedule.sets_rate and len(self.net.history) > 0:
            self.net.initialize_optimizer()
        run = self.number, self.n_runs
        self.n_runs += 1
        known = self.config.journal.load(run)
        n_before = 0
        if known is not None:
            n_before, completed, state = known
            self._restore(state)
            if completed:
                return
        for n_done in range(n_before + 1, n_epochs + 1):
            before_epoch()
            self.epoch()
            completed = bool(self.ranks.first(after_epoch() or self.stopped)) or n_done == n_epochs
            if completed:  # rounding may differ between machines
                self.ranks.sync(trainable_state(self.network))
            self.config.journal.save(run, n_done, completed, self._state)
            if completed:
                break

    def _generators(self) -> list:
        """Return all generators of random numbers of the training."""
        found = [self.net.shuffler, self.schedule.noise.generator]
        found += [] if self.schedule.nested is None else [self.schedule.nested.generator]
        found += [one.generator for one in self.net.hiding if one is not None]
        found += [] if self.objective is None else [*self.objective.generators]
        for layer in self.network.modules():
            if isinstance(layer, SeededDropout):
                found.append(layer.generator)
            elif isinstance(layer, CustomModuleHalf):
                found += [] if layer.draws is None else layer.draws.generators.values()
        return found

    def _state(self) -> dict:
        """Return all that an epoch changes, as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.net.optimizer_.state_dict(),
            "generators": [one.get_state() for one in self._generators()],
            "history": [
                {name: getattr(value, "tolist", lambda value=value: value)() for name, value in epoch.items()}
                for epoch in epochs_of(self.net)
            ],
            "schedule": (self.schedule.step, list(self.schedule.peaks)),
            "difference": self.schedule.difference.amount,  # that of the last step also moves the next batch
            "n_epochs": 0 if self.objective is None else self.objective.n_epochs,
            "stopped": self.stopped,
        }

    def _restore(self, state: dict) -> None:
        """Restore what `_state` returned."""
        self.network.load_state_dict(state["network"])
        self.net.optimizer_.load_state_dict(state["optimizer"])
        for generator, value in zip(self._generators(), state["generators"], strict=True):
            generator.set_state(value)
        self.net.history_ = History({**epoch, "batches": []} for epoch in state["history"])
        self.schedule.step, self.schedule.peaks = state["schedule"]
        self.schedule.difference.amount = state["difference"]
        if self.objective is not None:
            self.objective.n_epochs = state["n_epochs"]
        self.stopped = state["stopped"]

    def epoch(self) -> None:
        """Train for one epoch, and compute the loss of the held-out samples."""
        try:
            self.net.fit_loop(self.samples, epochs=1)
        except StopTraining:
            self.stopped = True

    def end(self) -> None:
        """Notify the callbacks of the end of training."""
        self.net.notify("on_train_end", X=self.samples, y=None)

    @property
    def n_batches(self) -> int:
        """Number of steps in an epoch."""
        return len(self.net.get_iterator(self.samples, training=True))

    @property
    def train_losses(self) -> list[float]:
        """Training loss of each epoch."""
        return [float(epoch["train_loss"]) for epoch in self.net.history]

    @property
    def sample(self) -> Sample:
        """Held-out samples, or training samples if none are held out."""
        return self.judged.dataset.sample

    def losses(self, prior_weight: float | None = 0.0) -> tuple[NDArray, NDArray]:
        """Compute the loss of each held-out sample, with penalties, after a few projection steps.

        The second result has the losses that must not increase, of shape (n_samples, n_floors): that of the values that
        are hidden from samples with missing values, if ``compares_hidden``, and those by the first codes alone.

        Parameters
        ----------
        prior_weight : float or None, default=0.0
            Weight of the prior on the codes of samples with missing values; None uses the codes of the encoder.
        """
        with self.net.evaluation():
            projection = projection_of(self.config, JUDGING_STEPS)
            if projection.n_steps > 0:
                self.measure(self.scaled, projection, prior_weight)
            judging = projection if projection.n_steps > 0 else None
            return self._losses(judging), self._floor_losses(judging)

    def measure(self, scaled: ScaledAutoEncoder, projection: Projection, prior_weight: float | None) -> None:
        """Set up the projection of a network by training samples."""
        x = self._some_samples().to(scaled.mean.dtype)
        if scaled.architecture.linear_skip:
            scaled.network.limit_codes(self._largest_codes().to(scaled.mean))
        nat = self.criterion.nat(x.shape[1], self.config.unexplained_variance_ratio)
        scaled.measure(x, projection, self.criterion.unit, None if prior_weight is None else prior_weight * nat)

    def _some_samples(self) -> Tensor:
        """Return some training samples, standardized and imputed."""
        return self.samples.few(JACOBIAN_SAMPLES)

    @torch.no_grad()
    def _largest_codes(self) -> Tensor:
        """Return the largest size of each code of the encoder over the training samples."""
        # A list of small tensors would fragment the memory between the batches.
        largest = torch.zeros(self.scaled.architecture.n_components)
        for x, _ in SampleBatches(self.samples, self.config.batch_size):
            largest = torch.maximum(largest.to(x), self.network.encode(x).abs().amax(dim=0))
        ranks = self.samples.sample.ranks
        return largest if ranks.size == 1 else torch.from_numpy(ranks.max(largest.cpu().numpy()))

    def losses_of_mean(self) -> NDArray:
        """Compute the loss of each held-out sample if it were reconstructed as the mean."""
        return self._over_samples(lambda x, target: self.criterion.per_sample(torch.zeros_like(x), target))

    @property
    def compares_hidden(self) -> bool:
        """Whether hidden values must be imputed as well as at the start."""
        return self.fill is not None and self.scaled.architecture.linear_skip and not self.config.regularizers

    def _floor_losses(self, projection: Projection | None) -> NDArray:
        """Compute the losses of each sample that must not increase, of shape (n_samples, n_floors)."""
        architecture = self.scaled.architecture
        with_floor = self.config.nested is not None and architecture.linear_skip and not self.config.regularizers
        sizes = prefix_sizes(architecture.n_components) if with_floor else []
        # PCA of a size also imputes with as many components.
        fills = [None if self.fill is None else self.fill.truncated(size) for size in sizes]
        losses = [self._losses(projection, hidden_alone=True)] if self.compares_hidden else []
        losses += [
            self._losses(projection, self.scaled.truncated(size), fill) for size, fill in zip(sizes, fills, strict=True)
        ]
        return np.stack(losses, axis=1) if losses else np.empty((len(self.judged.dataset), 0))

    def _losses(
        self,
        projection: Projection | None,
        scaled: ScaledAutoEncoder | None = None,
        fill: PPCAImputer | None = None,
        hidden_alone: bool = False,
    ) -> NDArray:
        """Compute the loss of each sample, or of its hidden values, by projected codes, or else the objective."""
        scaled, fill = self.scaled if scaled is None else scaled, self.fill if fill is None else fill
        if self.objective is not None:
            self.objective.rewind()

        def loss(x: Tensor, target: Tensor) -> Tensor:
            target = target.masked_fill(~x.isnan(), torch.nan) if hidden_alone else target
            if projection is not None:
                z = scaled.project_standardized(x)
                penalties = scaled.code_penalties(z)
                if self.objective is not None:
                    penalties = penalties + self.objective.bound_penalties(scaled.network, x, z)
                return self.criterion.per_sample(scaled.network.decode(z), target) + penalties
            filled = x if fill is None else fill(x)
            if self.objective is None:
                z = scaled.shrunk(scaled.network.encode(filled), x)
                return self.criterion.per_sample(scaled.network.decode(z), target)
            x = filled
            x_hat, penalty = self.objective(scaled.network, x)
            return self.criterion.per_sample(x_hat, target) + penalty

        return self._over_samples(loss)

    @torch.no_grad()
    def _over_samples(self, function: Callable[[Tensor, Tensor], Tensor]) -> NDArray:
        values = PerSampleBuffer(len(self.judged.dataset))
        for x, target in self.judged:
            values.append(function(x, target))
        return values.array

    def weights(self) -> list[Tensor]:
        """Return a copy of the weights that are evaluated."""
        with self.net.evaluation() as network:
            return [value.detach().clone() for value in trainable_state(network)]

    @torch.no_grad()
    def set_weights(self, weights: Sequence[Tensor]) -> None:
        """Restore weights that were returned by `weights`."""
        for value, weight in zip(trainable_state(self.network), weights, strict=True):
            value.copy_(weight)

    @torch.no_grad()
    def finish(self, weights: Sequence[Tensor] | None = None, prior_weight: float | None = 0.0) -> ScaledAutoEncoder:
        """Return a model with these weights, or the current ones, and its projection."""
        model = copy.deepcopy(self.model)
        weights = self.weights() if weights is None else weights
        for value, weight, trained in zip(
            trainable_state(model.network), weights, trainable_state(self.network), strict=True
        ):
            if trained.requires_grad:
                value.copy_(weight)
            else:  # frozen weights were rounded to single precision
                value.copy_(torch.where(value.to(weight.dtype) == weight, value, weight.to(value.dtype)))
        model.network.enable_inverse_link()
        self.measure(model, projection_of(self.config, self.config.projection_steps), prior_weight)
        model.measure_code_unit(self._some_samples().to(model.mean.dtype))
        return model


def projection_of(config: TrainingConfig, n_steps: int) -> Projection:
    """Return the projection for a configuration, without steps if a regularizer is one of the encoder."""
    projects = all(regularizer.projects for regularizer in config.regularizers)
    penalties = tuple(filter(penalizes_codes, config.regularizers))
    return Projection(min(n_steps, config.projection_steps) if projects else 0, config.loss, penalties)


def sample_losses(loss: Loss, model: ScaledAutoEncoder, sample: Sample) -> NDArray:
    """Compute the loss of each sample, and its loss if it were reconstructed as the mean, of shape (n, 2)."""
    if type(loss) is SquaredError:
        return apply_in_batches(model.squares, sample, 2, model.mean, np.float64)
    criterion = OfPresent(criterion_of(loss, model.mean, model.divisor))

    def measured(x: Tensor) -> Tensor:
        target, x_hat = ((values - model.mean) / model.divisor for values in (x, model.reconstruct(x)))
        return torch.stack([criterion.per_sample(one, target) for one in (x_hat, torch.zeros_like(x_hat))], dim=1)

    return apply_in_batches(measured, sample, 2, model.mean, np.float64)


def _criterion(config: TrainingConfig, scaled: ScaledAutoEncoder, samples: SampleDataset) -> AnyCriterion:
    """Return the criterion of a training, in units of the loss of the mean."""
    criterion = criterion_of(config.loss, scaled.mean, scaled.divisor)
    if isinstance(criterion, Criterion):
        criterion.set_unit(samples.few(REFERENCE_SAMPLES))
    return OfPresent(criterion) if config.incomplete else criterion
