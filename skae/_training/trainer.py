"""Train one network, and evaluate it on single samples."""

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._data.dataset import Hiding, PerSampleBuffer, SampleBatches, SampleDataset, Standardizer, apply_in_batches
from skae._data.sample import Sample
from skae._network.autoencoder import FeedForwardAutoEncoder
from skae._network.custom import CustomModuleHalf
from skae._network.draws import Draws
from skae._network.layers import SeededDropout, trainable_state
from skae._network.scaling import ScaledAutoEncoder
from skae._objectives.criterion import AnyCriterion, Criterion, OfPresent, criterion_of
from skae._objectives.losses import Loss, SquaredError
from skae._objectives.objective import Objective
from skae._training.callbacks import DecoupledWeightDecay, ExponentialMovingAverage, StopTraining
from skae._training.net import TrainingConfig, build_net
from skae._training.schedule import DifferenceAugmentation, GaussianNoise, RegularizationStage
from skae._utils import seeded_generator

AVERAGING_DECAY = 0.99
# Training samples that give a loss its unit.
REFERENCE_SAMPLES = 2000


class Evaluator:
    """What single samples lose with the weights as they are.

    Parameters
    ----------
    core : FeedForwardAutoEncoder
        In evaluation mode when it is asked.
    criterion : Criterion, PooledSquaredError or OfPresent
        The loss.
    objective : Objective or None
        What regularizers add.
    batches : SampleBatches
        The samples, in their order.
    """

    def __init__(
        self,
        network: FeedForwardAutoEncoder,
        criterion: AnyCriterion,
        objective: Objective | None,
        batches: SampleBatches,
    ) -> None:
        self.network = network
        self.criterion = criterion
        self.objective = objective
        self.batches = batches

    def losses(self) -> NDArray:
        """Loss of each sample, penalties included."""
        if self.objective is not None:
            self.objective.rewind()
        return self._over_samples(self._loss)

    def losses_of_mean(self) -> NDArray:
        """Loss of each sample if it were reconstructed as the mean."""
        return self._over_samples(lambda x, target: self.criterion.per_sample(torch.zeros_like(x), target))

    def _loss(self, x: Tensor, target: Tensor) -> Tensor:
        if self.objective is None:
            return self.criterion.per_sample(self.network(x), target)
        x_hat, penalty = self.objective(self.network, x)
        return self.criterion.per_sample(x_hat, target) + penalty

    @torch.no_grad()
    def _over_samples(self, function: Callable[[Tensor, Tensor], Tensor]) -> NDArray:
        values = PerSampleBuffer(len(self.batches.dataset))
        for x, target in self.batches:
            values.append(function(x, target))
        return values.array


class Trainer:
    """One network on its way: the samples that train it, the samples held out, and the net that takes the steps.

    Parameters
    ----------
    model : ScaledAutoEncoder
        Its core is trained in single precision, in which standardized samples lose nothing that matters.
    settings : TrainingConfig
        How.
    sample : Sample
        The samples that train.
    valid : Sample, default=None
        The samples that are held out.
    callbacks : sequence of skorch callbacks, default=()
        The user's.
    """

    def __init__(
        self,
        model: ScaledAutoEncoder,
        config: TrainingConfig,
        sample: Sample,
        valid: Sample | None = None,
        callbacks: Sequence = (),
    ) -> None:
        # A line search compares losses: they must not be rounded nor noisy, and its steps are not averaged.
        self.stochastic = stochastic = config.optimizer != "lbfgs"
        self.model = model
        self.config = config
        self.network = copy.deepcopy(model.network).to(torch.float32 if stochastic else model.mean.dtype)
        self.stopped = False
        self.standardize = Standardizer(model.mean, model.scale, self.network.input_gain.dtype)
        filling = model.filling if config.incomplete else None
        self.fill = None if filling is None else copy.deepcopy(filling).to(self.standardize.dtype)
        self.samples = self._dataset(sample)
        self.valid = None if valid is None else self._dataset(valid)
        generator = seeded_generator(config.seed, model.mean.device)
        self.noise = GaussianNoise(math.sqrt(config.unexplained_variance_ratio) * self.network.output_gain, generator)
        self.difference = DifferenceAugmentation(generator)
        self.weight_decay = DecoupledWeightDecay()
        averaging = ExponentialMovingAverage(AVERAGING_DECAY) if stochastic else None
        self.criterion = criterion = _criterion(config, model, self.samples)
        self.objective = _objective(config, model, criterion)
        own = [self.weight_decay, averaging] if stochastic else []
        hiding = (None, None) if self.fill is None else self._hiding()
        extras = (averaging, self.difference, criterion, self.objective, hiding)
        self.net = build_net(self.network, config, [*own, *callbacks], self.valid, *extras)
        self.network.eval()
        looked_at = SampleBatches(
            self.samples if self.valid is None else self.valid, config.batch_size, hiding=hiding[1]
        )
        self.measures = Evaluator(self.network, criterion, self.objective, looked_at)
        self.start_losses = self.measures.losses()
        _leave_start(self)
        self.set_stage(config.stages[0])
        self.net.notify("on_train_begin", X=self.samples, y=None)

    def _dataset(self, sample: Sample) -> SampleDataset:
        return SampleDataset(sample, standardize=self.standardize, fill=self.fill)

    def _hiding(self) -> tuple[Hiding | None, Hiding]:
        """Return what hides values in training and in evaluation; a line search sees all values."""
        seed, device = self.config.seed, self.model.mean.device
        return Hiding(seed, device) if self.stochastic else None, Hiding(seed, device)

    def learn_from(self, sample: Sample) -> None:
        """Take the next epochs on other samples."""
        self.samples = self._dataset(sample)

    def set_stage(self, stage: RegularizationStage) -> None:
        """Train the next epochs like this."""
        if self.stochastic:
            corrupted = any(regularizer.corrupts for regularizer in self.config.regularizers)
            self.network.corruption = None if corrupted else self.noise
            self.noise.amount = stage.noise
            self.difference.amount = stage.difference
            self.weight_decay.amount = stage.weight_decay / self.n_batches

    def epoch(self) -> None:
        """Take the steps of one epoch, then look at the held-out samples."""
        try:
            self.net.fit_loop(self.samples, epochs=1)
        except StopTraining:
            self.stopped = True

    def end(self) -> None:
        """Tell the callbacks that training is over."""
        self.net.notify("on_train_end", X=self.samples, y=None)

    @property
    def n_batches(self) -> int:
        """Steps an epoch."""
        return len(self.net.get_iterator(self.samples))

    @property
    def train_losses(self) -> list[float]:
        """Training loss of each epoch."""
        return [float(epoch["train_loss"]) for epoch in self.net.history]

    @property
    def sample(self) -> Sample:
        """The samples that are looked at."""
        return self.measures.batches.dataset.sample

    @property
    def valid_losses(self) -> NDArray:
        """Loss of each held-out sample after the epoch, in their order."""
        return self.net.sample_losses_.array

    def improves(self) -> bool:
        """Return whether the samples have a smaller loss than at the start."""
        with self.net.evaluation():
            return bool(self.sample.mean(self.measures.losses()) < self.sample.mean(self.start_losses))

    def weights(self) -> list[Tensor]:
        """Copy the weights that are used for evaluation."""
        with self.net.evaluation() as network:
            return [value.detach().clone() for value in trainable_state(network)]

    def finish(self, weights: Sequence[Tensor] | None = None) -> ScaledAutoEncoder:
        """Hand these weights, or those of the last epoch, over to the model."""
        return _handed_over(self, self.model, self.weights() if weights is None else weights)

    def snapshot(self) -> ScaledAutoEncoder:
        """Return a copy of the model with the current weights."""
        return _handed_over(self, copy.deepcopy(self.model), self.weights())


def sample_losses(loss: Loss, model: ScaledAutoEncoder, sample: Sample) -> NDArray:
    """Return the loss of each sample, and what it would be if the mean were its reconstruction, of shape (n, 2)."""
    if type(loss) is SquaredError:
        return apply_in_batches(model.squares, sample, 2, model.mean, np.float64)
    criterion = OfPresent(criterion_of(loss, model.mean, model.scale))

    def measured(x: Tensor) -> Tensor:
        target, x_hat = ((values - model.mean) / model.scale for values in (x, model.reconstruct(x)))
        return torch.stack([criterion.per_sample(one, target) for one in (x_hat, torch.zeros_like(x_hat))], dim=1)

    return apply_in_batches(measured, sample, 2, model.mean, np.float64)


def loss_unit_of(loss: Loss, model: ScaledAutoEncoder, x: Tensor) -> float:
    """Return the loss of the mean of samples, in which training counts the loss; 1 for the squared error."""
    criterion = criterion_of(loss, model.mean, model.scale)
    if isinstance(criterion, Criterion):
        criterion.set_unit(model.standardized(x.to(model.mean)))
    return criterion.unit


def _leave_start(training: Trainer) -> None:
    """Leave the start, which has been looked at."""
    network, config = training.network, training.config
    if config.departs:
        network.perturb_output_layers(config.unexplained_variance_ratio, seeded_generator(config.seed))
    network.enable_inverse_link()
    device = training.model.mean.device
    draws = Draws(config.seed, torch.device("cpu"), device)
    for layer in network.modules():
        if isinstance(layer, SeededDropout):
            layer.generator = seeded_generator(config.seed, device)
        elif isinstance(layer, CustomModuleHalf):
            layer.draws = draws


def _handed_over(training: Trainer, model: ScaledAutoEncoder, weights: Sequence[Tensor]) -> ScaledAutoEncoder:
    """Give a model these weights, and the reach that codes have with them."""
    frozen = [not value.requires_grad for value in trainable_state(training.network)]
    with torch.no_grad():
        # Training in single precision has rounded them all.
        for value, weight, kept in zip(trainable_state(model.network), weights, frozen, strict=True):
            rounded = value.to(weight.dtype)
            value.copy_(torch.where(rounded == weight, value, weight.to(value.dtype)) if kept else weight)
    model.network.enable_inverse_link()
    return model


def _criterion(config: TrainingConfig, model: ScaledAutoEncoder, samples: SampleDataset) -> AnyCriterion:
    """Return the criterion of a training."""
    dtype = samples.take(np.zeros(1, dtype=int)).dtype
    criterion = criterion_of(config.loss, model.mean.to(dtype), model.scale.to(dtype))
    if isinstance(criterion, Criterion):
        criterion.set_unit(
            samples.take_filled(np.linspace(0, len(samples) - 1, min(len(samples), REFERENCE_SAMPLES), dtype=int))
        )
    return OfPresent(criterion) if config.incomplete else criterion


def _objective(config: TrainingConfig, model: ScaledAutoEncoder, criterion: AnyCriterion) -> Objective | None:
    """Return the objective with regularizers, or None without any."""
    if not config.regularizers:
        return None
    nat = criterion.nat(model.architecture.n_features, config.unexplained_variance_ratio)
    return Objective(config.regularizers, config.seed, model.mean.device, nat)
