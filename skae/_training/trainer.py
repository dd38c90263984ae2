"""Train one network, and evaluate it on single samples."""

import copy
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._data.dataset import RowBatches, RowDataset, RowValues, Standardisation
from skae._data.sample import Sample
from skae._network.autoencoder import FeedForwardAutoEncoder
from skae._network.layers import SeededDropout, learnt_values
from skae._network.scaling import DataUnits
from skae._objectives.criterion import AnyCriterion, Criterion, OfPresent, PooledSquaredError, squares_of_present
from skae._objectives.losses import SquaredError
from skae._objectives.objective import Objective
from skae._training.callbacks import Shrinkage, StopTraining, WeightAveraging
from skae._training.net import TrainingSettings, build_net
from skae._training.schedule import Displacement, GaussianNoise, Regularisation
from skae._utils import seeded_generator

AVERAGING_DECAY = 0.99
# Training rows that give a loss its unit.
REFERENCE_ROWS = 2000


class RowMeasures:
    """What single rows lose with the weights as they are.

    Parameters
    ----------
    core : FeedForwardAutoEncoder
        In evaluation mode when it is asked.
    criterion : Criterion, PooledSquaredError or OfPresent
        The loss.
    objective : Objective or None
        What regularizers add.
    batches : RowBatches
        The rows, in their order.
    """

    def __init__(
        self,
        core: FeedForwardAutoEncoder,
        criterion: AnyCriterion,
        objective: Objective | None,
        batches: RowBatches,
    ) -> None:
        self.core = core
        self.criterion = criterion
        self.objective = objective
        self.batches = batches

    def losses(self) -> NDArray:
        """Loss of each row, penalties included."""
        if self.objective is not None:
            self.objective.rewind()
        return self._over_rows(self._loss)

    def squares(self) -> NDArray:
        """Squared error of each row."""
        return self._over_rows(lambda x, target: squares_of_present(self.core(x), target))

    def losses_of_mean(self) -> NDArray:
        """Loss of each row if it were reconstructed as the mean."""
        return self._over_rows(lambda x, target: self.criterion.per_row(torch.zeros_like(x), target))

    def _loss(self, x: Tensor, target: Tensor) -> Tensor:
        if self.objective is None:
            return self.criterion.per_row(self.core(x), target)
        x_hat, penalty = self.objective(self.core, x)
        return self.criterion.per_row(x_hat, target) + penalty

    @torch.no_grad()
    def _over_rows(self, function: Callable[[Tensor, Tensor], Tensor]) -> NDArray:
        values = RowValues(len(self.batches.dataset))
        for x, target in self.batches:
            values.append(function(x, target))
        return values.array


class Training:
    """One network on its way: the rows that train it, the rows held out, and the net that takes the steps.

    Parameters
    ----------
    model : DataUnits
        Its core is trained in single precision, in which standardised rows lose nothing that matters.
    settings : TrainingSettings
        How.
    sample : Sample
        The rows that train.
    valid : Sample, default=None
        The rows that are held out.
    callbacks : sequence of skorch callbacks, default=()
        The user's.
    """

    def __init__(
        self,
        model: DataUnits,
        settings: TrainingSettings,
        sample: Sample,
        valid: Sample | None = None,
        callbacks: Sequence = (),
    ) -> None:
        # A line search compares losses: they must not be rounded nor noisy, and its steps are not averaged.
        self.stochastic = stochastic = settings.optimizer != "lbfgs"
        self.model = model
        self.core = copy.deepcopy(model.core).to(torch.float32 if stochastic else model.mean.dtype)
        self.stopped = False
        self.standardise = Standardisation(model.mean, model.scale, self.core.input_gain.dtype)
        filling = model.filling if settings.incomplete else None
        self.fill = None if filling is None else copy.deepcopy(filling).to(self.standardise.dtype)
        self.rows = self._dataset(sample)
        self.valid = None if valid is None else self._dataset(valid)
        generator = seeded_generator(settings.seed, model.mean.device)
        self.noise = GaussianNoise(math.sqrt(settings.residual_share) * self.core.output_gain, generator)
        self.displacement = Displacement(generator)
        self.shrinkage = Shrinkage()
        averaging = WeightAveraging(AVERAGING_DECAY) if stochastic else None
        self.settings = settings
        self.criterion = criterion = _criterion(settings, model, self.rows)
        self.objective = _objective(settings, model, criterion)
        own = [self.shrinkage, averaging] if stochastic else []
        extras = (averaging, self.displacement, criterion, self.objective)
        self.net = build_net(self.core, settings, [*own, *callbacks], self.valid, *extras)
        self.core.eval()
        looked_at = RowBatches(self.rows if self.valid is None else self.valid, settings.batch_size)
        self.measures = RowMeasures(self.core, criterion, self.objective, looked_at)
        self.start_losses = self.measures.losses()
        # PCA is the floor of the squared error, whatever loss is minimised; a regularizer asks for something else.
        other = not criterion.is_squared_error and not settings.regularizers
        self.guarded = self.core.architecture.linear_skip and other
        self.start_squares = self.measures.squares() if self.guarded else np.zeros(0)
        _set_off(self)
        self.regularise(settings.stages[0])
        self.net.notify("on_train_begin", X=self.rows, y=None)

    def _dataset(self, sample: Sample) -> RowDataset:
        return RowDataset(sample, standardise=self.standardise, fill=self.fill)

    def learn_from(self, sample: Sample) -> None:
        """Take the next epochs on other rows."""
        self.rows = self._dataset(sample)

    def regularise(self, stage: Regularisation) -> None:
        """Train the next epochs like this."""
        if self.stochastic:
            corrupted = any(regularizer.corrupts for regularizer in self.settings.regularizers)
            self.core.corruption = None if corrupted else self.noise
            self.noise.amount = stage.noise
            self.displacement.amount = stage.displacement
            self.shrinkage.amount = stage.shrinkage / self.n_batches

    def epoch(self) -> None:
        """Take the steps of one epoch, then look at the held-out rows."""
        try:
            self.net.fit_loop(self.rows, epochs=1)
        except StopTraining:
            self.stopped = True

    def end(self) -> None:
        """Tell the callbacks that training is over."""
        self.net.notify("on_train_end", X=self.rows, y=None)

    @property
    def n_batches(self) -> int:
        """Steps an epoch."""
        return len(self.net.get_iterator(self.rows))

    @property
    def train_losses(self) -> list[float]:
        """Training loss of each epoch."""
        return [float(epoch["train_loss"]) for epoch in self.net.history]

    @property
    def sample(self) -> Sample:
        """The rows that are looked at."""
        return self.measures.batches.dataset.sample

    @property
    def valid_losses(self) -> NDArray:
        """Loss of each held-out row after the epoch, in their order."""
        return self.net.row_losses_.array

    @property
    def valid_squares(self) -> NDArray:
        """Squared error of each held-out row after the epoch, where it is not the loss."""
        return self.net.row_squares_.array

    def improves(self) -> bool:
        """Whether the rows have a smaller loss than at the start, and no larger squared error."""
        with self.net.evaluation():
            mean = self.sample.mean
            better = mean(self.measures.losses()) < mean(self.start_losses)
            return bool(better and (not self.guarded or mean(self.measures.squares()) <= mean(self.start_squares)))

    def weights(self) -> list[Tensor]:
        """A copy of the weights as they are evaluated."""
        with self.net.evaluation() as core:
            return [value.detach().clone() for value in learnt_values(core)]

    def finish(self, weights: Sequence[Tensor] | None = None) -> DataUnits:
        """Hand these weights, or those of the last epoch, over to the model."""
        return _handed_over(self, self.model, self.weights() if weights is None else weights)

    def snapshot(self) -> DataUnits:
        """A model of its own with the weights as they are now; training goes on."""
        return _handed_over(self, copy.deepcopy(self.model), self.weights())


def _set_off(training: Training) -> None:
    """Leave the start, which has been looked at."""
    core, settings = training.core, training.settings
    if settings.departs:
        core.set_off(settings.residual_share, seeded_generator(settings.seed))
    core.begin()
    for layer in core.modules():
        if isinstance(layer, SeededDropout):
            layer.generator = seeded_generator(settings.seed, training.model.mean.device)


def _handed_over(training: Training, model: DataUnits, weights: Sequence[Tensor]) -> DataUnits:
    """Give a model these weights, and the reach that codes have with them."""
    _set_weights(model.core, weights)
    model.core.begin()
    if training.core.architecture.linear_skip:
        core = copy.deepcopy(training.core).eval()
        _set_weights(core, weights)
        model.core.limit_codes(_code_reach(core, RowBatches(training.rows, training.net.batch_size)))
    return model


@torch.no_grad()
def _set_weights(core: FeedForwardAutoEncoder, weights: Sequence[Tensor]) -> None:
    for value, weight in zip(learnt_values(core), weights, strict=True):
        value.copy_(weight)


@torch.no_grad()
def _code_reach(core: FeedForwardAutoEncoder, batches: RowBatches) -> Tensor:
    """Largest distance from zero of each code."""
    return torch.stack([core.encode(x).abs().amax(dim=0) for x, _ in batches]).amax(dim=0)


def _criterion(settings: TrainingSettings, model: DataUnits, rows: RowDataset) -> AnyCriterion:
    """The loss in a unit of its own."""
    criterion: Criterion | PooledSquaredError = PooledSquaredError()
    if type(settings.loss) is not SquaredError:
        some = rows.take_filled(np.linspace(0, len(rows) - 1, min(len(rows), REFERENCE_ROWS), dtype=int))
        criterion = Criterion(settings.loss, model.mean, model.scale, some)
    return OfPresent(criterion) if settings.incomplete else criterion


def _objective(settings: TrainingSettings, model: DataUnits, criterion: AnyCriterion) -> Objective | None:
    """What the regularizers add, if there are any."""
    if not settings.regularizers:
        return None
    nat = criterion.nat(model.architecture.n_features, settings.residual_share)
    return Objective(settings.regularizers, settings.seed, model.mean.device, nat)
