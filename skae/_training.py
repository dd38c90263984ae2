"""The order in which networks are trained: hold out, search, choose, train again on all rows."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._batches import RowBatches, RowDataset, Standardisation, hold_out, map_rows
from skae._callbacks import EpochChoice, Shrinkage, StopTraining, WeightAveraging
from skae._device import aligned_tensor, seeded_generator, threads_for, torch_dtype
from skae._linear import PrincipalDirections, principal_directions, squared_distances
from skae._modules import Architecture, DataUnits, build
from skae._net import ReconstructionNet, TrainingSettings, build_net, epochs_of, predicting_net, schedulers
from skae._objectives import STAGES, Displacement, GaussianNoise, Regularisation

AVERAGING_DECAY = 0.99
# Where fewer rows than this carry the variance, the mean over held-out rows is not normal yet: PCA is kept.
MIN_EFFECTIVE_ROWS = 30
# Few or uneven rows are held out in several sets in turn, while there are less than this many effective rows.
MANY_EFFECTIVE_ROWS = 300
# With more rows than this one set is enough, and a tenth more rows would teach too little for a second training.
MANY_ROWS = 20_000
# Training rows at which the slope of the decoder is measured.
UNIT_ROWS = 256
# A stage before the last takes at most this many steps: many rows have most to learn in the last.
EARLY_STEPS = 4500


@dataclass(frozen=True)
class TrainingRecord:
    """What a training leaves behind besides the weights.

    Attributes
    ----------
    best_epoch : int
        The epoch that was kept; 0 is the start.
    train_losses : list of float
        Mean loss of each epoch's batches, as a share of the variance.
    valid_scores : list of float or None
        Share of the held-out rows' variance explained, at the start and after each epoch.
    history : list of dict
        What skorch noted about each epoch.
    """

    best_epoch: int = 0
    train_losses: list[float] = field(default_factory=list)
    valid_scores: list[float] | None = None
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Start:
    """Makes the network that training begins with: for the same seed the same weights, whatever the rows.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features)
        The training data.
    architecture : Architecture
        What to build.
    device : torch.device
        Where to put it.
    seed : int
        Draws the weights.
    before : DataUnits or None
        A trained network to begin with instead, whatever the rows.
    """

    X: NDArray
    architecture: Architecture
    device: torch.device
    seed: int
    before: DataUnits | None = None

    def directions(self, rows: NDArray | None = None) -> PrincipalDirections:
        """Mean, spread and principal directions of some rows, all of them if None."""
        n_rows = len(self.X) if rows is None else len(rows)
        n_components = min(self.architecture.n_components, n_rows, self.X.shape[1])
        return principal_directions(self.X, n_components, rows)

    def on(self, directions: PrincipalDirections) -> DataUnits:
        """Build the network at these directions, unless there is one to go on with."""
        if self.before is not None:
            return copy.deepcopy(self.before).to(self.device)
        module = build(self.architecture, torch_dtype(self.X.dtype))
        module.start_at(directions, seeded_generator(self.seed))
        return module.to(self.device).eval()


class Training:
    """One network on its way: the rows that train it, the rows held out, and the net that takes the steps.

    Parameters
    ----------
    model : DataUnits
        Its core is trained in single precision, in which standardised rows lose nothing that matters.
    settings : TrainingSettings
        How.
    X : ndarray of shape (n_samples, n_features)
        The data.
    rows : ndarray of int, default=None
        The rows that train; all of them if None.
    valid : ndarray of int, default=None
        The rows that are held out.
    callbacks : sequence of skorch callbacks, default=()
        The user's.
    """

    def __init__(
        self,
        model: DataUnits,
        settings: TrainingSettings,
        X: NDArray,
        rows: NDArray | None = None,
        valid: NDArray | None = None,
        callbacks: Sequence = (),
    ) -> None:
        # A line search compares losses: they must not be rounded nor noisy, and its steps are not averaged.
        self.stochastic = stochastic = settings.optimizer != "lbfgs"
        self.model = model
        self.core = copy.deepcopy(model.core).to(torch.float32 if stochastic else model.mean.dtype)
        self.stopped = False
        standardise = Standardisation(model.mean, model.scale, self.core.input_gain.dtype)
        self.rows = RowDataset(X, rows=rows, standardise=standardise)
        self.valid = None if valid is None else RowDataset(X, rows=valid, standardise=standardise)
        generator = seeded_generator(settings.seed, model.mean.device)
        self.noise = GaussianNoise(math.sqrt(settings.residual_share) * self.core.output_gain, generator)
        self.displacement = Displacement(generator)
        self.shrinkage = Shrinkage()
        averaging = WeightAveraging(AVERAGING_DECAY) if stochastic else None
        own = [self.shrinkage, averaging] if stochastic else []
        self.net = build_net(self.core, settings, [*own, *callbacks], self.valid, averaging, self.displacement)
        self.start_losses = self.losses(self.core.eval())
        if settings.departs:
            self.core.set_off(settings.residual_share, seeded_generator(settings.seed))
        self.regularise(settings.stages[0])
        self.net.notify("on_train_begin", X=self.rows, y=None)

    def regularise(self, stage: Regularisation) -> None:
        """Train the next epochs like this."""
        if self.stochastic:
            self.core.corruption = self.noise
            self.noise.amount = stage.noise
            self.displacement.amount = stage.displacement
            self.shrinkage.amount = stage.shrinkage / self.n_batches

    def epoch(self) -> None:
        """Take the steps of one epoch, then look at the held-out rows."""
        try:
            self.net.fit_loop(self.rows, epochs=1)
        except StopTraining:
            self.stopped = True

    def repeat(self, epochs_per_stage: Sequence[int], stages: Sequence[Regularisation]) -> None:
        """Train for a number of epochs in each stage and look at nothing."""
        for n_epochs, stage in zip(epochs_per_stage, stages, strict=False):
            self.regularise(stage)
            for _ in range(n_epochs):
                self.epoch()
        self.end()

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
    def valid_losses(self) -> NDArray:
        """Loss of each held-out row after the epoch, in their order."""
        return torch.cat(self.net.row_losses_).cpu().double().numpy()

    @torch.no_grad()
    def losses(self, function: Callable[[Tensor], Tensor]) -> NDArray:
        """Loss of each row that is held out, or else that trains, if ``function`` reconstructs it."""
        batches = RowBatches(self.rows if self.valid is None else self.valid, self.net.batch_size)
        return torch.cat([self.net.criterion_.per_row(function(x), x) for x, _ in batches]).cpu().double().numpy()

    def current_losses(self) -> NDArray:
        """Loss of each of these rows with the weights as they are evaluated."""
        with self.net.evaluation() as core:
            return self.losses(core)

    def weights(self) -> list[Tensor]:
        """A copy of the weights as they are evaluated."""
        with self.net.evaluation() as core:
            return [parameter.detach().clone() for parameter in core.parameters()]

    def finish(self, weights: Sequence[Tensor] | None = None) -> DataUnits:
        """Hand these weights, or those of the last epoch, over to the model."""
        chosen = self.weights() if weights is None else weights
        with torch.no_grad():
            for parameter, weight in zip(self.model.core.parameters(), chosen, strict=True):
                parameter.copy_(weight)
        if self.core.architecture.linear_skip:
            self.model.core.limit_codes(self.code_reach(chosen))
        return self.model

    @torch.no_grad()
    def code_reach(self, weights: Sequence[Tensor]) -> Tensor:
        """Largest distance from zero that the codes of the training rows have with these weights."""
        core = copy.deepcopy(self.core).eval()
        for parameter, weight in zip(core.parameters(), weights, strict=True):
            parameter.copy_(weight)
        batches = RowBatches(self.rows, self.net.batch_size)
        return torch.stack([core.encode(x).abs().amax(dim=0) for x, _ in batches]).amax(dim=0)


def fit_network(
    start: Start, settings: TrainingSettings, validation_fraction: float | None, refit: bool | str, whiten: bool
) -> tuple[ReconstructionNet, TrainingRecord]:
    """Train a network by the whole procedure: find the epoch on held-out rows, then train on all rows.

    Parameters
    ----------
    start : Start
        The data, and where training begins.
    settings : TrainingSettings
        How to train.
    validation_fraction : float or None
        Share of the rows held out at a time; None trains on all rows and holds none out.
    refit : bool or "auto"
        Whether to train again on all rows once the epoch is chosen; "auto" does so unless they are many.
    whiten : bool
        Whether to scale the codes to unit variance on all rows.

    Returns
    -------
    ReconstructionNet, TrainingRecord
        A net for predictions, and how it came about.

    Raises
    ------
    ValueError
        If a loss is not finite.
    """
    with threads_for(settings.batch_size * start.architecture.n_weights):
        directions = start.directions()
        share = directions.residual_share(len(start.X))
        settings = replace(settings, residual_share=share)
        if not _something_to_learn(start, settings, directions):
            model, record = start.on(directions), TrainingRecord()
        elif validation_fraction is None:
            model, record = _train_on_all(start, settings, directions)
        else:
            model, record = _search(start, settings, directions, validation_fraction, refit)
        model.set_code_unit(None)
        learnt = record.best_epoch > 0 or start.before is not None
        if learnt and not whiten:
            some = np.linspace(0, len(start.X) - 1, min(len(start.X), UNIT_ROWS), dtype=int)
            model.measure_code_unit(aligned_tensor(start.X[some]))
        elif whiten:
            codes = map_rows(model.encode, start.X, start.architecture.n_components, model.mean, np.float64)
            model.set_code_unit(codes.std(axis=0, ddof=1))
        return predicting_net(model, record.history), record


def _something_to_learn(start: Start, settings: TrainingSettings, directions: PrincipalDirections) -> bool:
    """Whether training could change anything: not so where PCA is perfect, or the best by proof."""
    if settings.max_epochs == 0:
        return False
    if not start.architecture.linear_skip:
        return True
    rounding = 10 * np.finfo(start.X.dtype).eps
    return start.architecture.activation != "identity" and directions.residual_share(len(start.X)) > rounding


def _n_sets(directions: PrincipalDirections, n_rows: int) -> int:
    """In how many sets to hold rows out: the fewer rows carry the variance, the more."""
    wanted = math.ceil(MANY_EFFECTIVE_ROWS / directions.effective_rows)
    return max(1, min(wanted, MANY_ROWS // n_rows))


def _search(
    start: Start,
    settings: TrainingSettings,
    directions: PrincipalDirections,
    validation_fraction: float,
    refit: bool | str,
) -> tuple[DataUnits, TrainingRecord]:
    """Find the epoch on held-out rows, and give the network of all rows as much training, or keep the one found."""
    model = start.on(directions)
    many = refit == "auto" and len(start.X) > MANY_ROWS
    linear_skip = start.architecture.linear_skip
    n_sets = _n_sets(directions, len(start.X)) if refit and linear_skip else 1
    distances = squared_distances(start.X, directions.mean)
    held_out = hold_out(distances, validation_fraction, settings.seed, n_sets)
    complements = [np.setdiff1d(np.arange(len(start.X)), valid) for valid in held_out]
    too_few = min(map(len, complements)) <= start.architecture.n_components
    if linear_skip and (too_few or directions.effective_rows < MIN_EFFECTIVE_ROWS):
        return model, TrainingRecord()
    if start.before is None and settings.optimizer != "lbfgs":
        settings = replace(settings, stages=STAGES, departs=True)
    at = directions if many else None
    trainings = [
        _training_of_set(index, start, settings, rows, valid, at)
        for index, (rows, valid) in enumerate(zip(complements, held_out, strict=True))
    ]
    choice, weights = _run_side_by_side(trainings, settings)
    first = trainings[0]
    scores = _valid_scores(choice, trainings)
    record = TrainingRecord(choice.best_epoch, first.train_losses, scores, epochs_of(first.net))
    if choice.best_epoch == 0:
        return model, record
    if not refit:
        return first.finish(weights), record
    if many:
        return _better_on_all_rows(first.finish(weights), model, start.X, record)
    again = Training(model, replace(settings, verbose=0), start.X, callbacks=schedulers(settings.callbacks))
    # As many steps as on the smaller set, whatever the number of batches is now.
    ratio = first.n_batches / again.n_batches
    again.repeat([math.ceil(n_epochs * ratio) for n_epochs in choice.epochs_per_stage()], settings.stages)
    if again.current_losses().mean() < again.start_losses.mean():
        return again.finish(), record
    return model, replace(record, best_epoch=0)


def _training_of_set(index, start, settings, rows, valid, directions=None) -> Training:
    """Prepare the training without the set of this index; only the first one is heard and seen."""
    callbacks = settings.callbacks if index == 0 else schedulers(settings.callbacks)
    own = replace(settings, seed=settings.seed + index, verbose=settings.verbose if index == 0 else 0)
    model = start.on(start.directions(rows) if directions is None else directions)
    return Training(model, own, start.X, rows, valid, callbacks)


def _better_on_all_rows(
    found: DataUnits, model: DataUnits, X: NDArray, record: TrainingRecord
) -> tuple[DataUnits, TrainingRecord]:
    """Keep the network that was found if it reconstructs all rows better than the start does."""
    errors = [map_rows(one.squares, X, 2, one.mean, np.float64)[:, 0].sum() for one in (found, model)]
    return (found, record) if errors[0] < errors[1] else (model, replace(record, best_epoch=0))


def _run_side_by_side(trainings: list[Training], settings: TrainingSettings) -> tuple[EpochChoice, list[Tensor]]:
    """Train all until their held-out rows together see no more progress; also give the first one's best weights."""
    start_losses = np.concatenate([training.start_losses for training in trainings])
    cautious = trainings[0].core.architecture.linear_skip
    patience, stage_epochs = settings.n_iter_no_change, math.ceil(EARLY_STEPS / trainings[0].n_batches)
    choice = EpochChoice(start_losses, settings.tol, patience, cautious, len(settings.stages), stage_epochs)
    weights = trainings[0].weights()
    while choice.n_epochs < settings.max_epochs and not choice.exhausted and not trainings[0].stopped:
        for training in trainings:
            training.regularise(settings.stages[choice.stage])
            training.epoch()
        if choice.consider(np.concatenate([training.valid_losses for training in trainings])):
            weights = trainings[0].weights()
    for training in trainings:
        training.end()
    return choice, weights


def _valid_scores(choice: EpochChoice, trainings: list[Training]) -> list[float]:
    """Mean losses of the held-out rows as shares of what the mean alone would lose."""
    reference = float(np.mean(np.concatenate([training.losses(torch.zeros_like) for training in trainings])))
    return [1.0 - loss / reference if reference > 0 else float(loss == 0) for loss in choice.mean_losses]


def _train_on_all(
    start: Start, settings: TrainingSettings, directions: PrincipalDirections
) -> tuple[DataUnits, TrainingRecord]:
    """Train on all rows until their loss stops falling; keep the start if that reconstructs them better."""
    model = start.on(directions)
    training = Training(model, settings, start.X, callbacks=settings.callbacks)
    start_loss = training.start_losses.mean(keepdims=True)
    choice = EpochChoice(start_loss, settings.tol, settings.n_iter_no_change, cautious=False)
    while choice.n_epochs < settings.max_epochs and not choice.exhausted and not training.stopped:
        training.epoch()
        choice.consider(np.array(training.train_losses[-1:]))
    training.end()
    better = training.current_losses().mean() < start_loss
    best_epoch = choice.n_epochs if better else 0
    record = TrainingRecord(best_epoch, training.train_losses, None, epochs_of(training.net))
    return (training.finish() if better else model), record
