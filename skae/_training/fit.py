"""Fit a network: search for the best epoch on held-out samples, then train on all samples."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._data.containers import is_large
from skae._data.dataset import map_rows
from skae._data.duplicates import duplicate_groups, labels_by_first
from skae._data.sample import Sample, groups_over, mean_over, weights_over
from skae._network.architecture import Architecture
from skae._network.scaling import DataUnits, build
from skae._pca.components import PrincipalDirections
from skae._pca.exact import EXACT_SIZE, column_mean, principal_directions, squared_distances
from skae._pca.missing import FilledRows, directions_of_incomplete, mean_of_present
from skae._training.net import ReconstructionNet, TrainingSettings, epochs_of, predicting_net, schedulers
from skae._training.progress import EpochReport
from skae._training.schedule import STAGES, Regularisation
from skae._training.selection import EpochChoice, ValidationSplit
from skae._training.trainer import Training
from skae._utils import aligned_tensor, seeded_generator, threads_for, torch_dtype

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
    sample : Sample of shape (n_rows, n_features)
        The rows to train on.
    architecture : Architecture
        What to build.
    device : torch.device
        Where to put it.
    seed : int
        Draws the weights.
    before : DataUnits or None
        A trained network to begin with instead, whatever the rows.
    incomplete : bool
        Whether X has NaN for missing values.
    """

    sample: Sample
    architecture: Architecture
    device: torch.device
    seed: int
    before: DataUnits | None = None
    incomplete: bool = False

    def directions(self, sample: Sample) -> PrincipalDirections:
        """Mean, spread and principal directions of some of the rows."""
        n_components = min(self.architecture.n_components, *sample.shape)
        find = directions_of_incomplete if self.incomplete else principal_directions
        return find(sample, n_components).padded(self.architecture.n_components)

    def by_distance(self) -> "Start":
        """The same with the rows in the order of their distance from the mean, whatever order they came in.

        Rows of many values stay where they are.
        """
        sample = self.sample
        if is_large(sample.X):  # read as they lie
            return self
        mean = mean_of_present(sample)[0] if self.incomplete else column_mean(sample)
        values = self._filled(sample)
        return replace(self, sample=sample.take(np.argsort(squared_distances(values, mean), kind="stable")))

    def grouped(self) -> "Start":
        """The same with labels of the samples that say the same; unless there are some, those of copies."""
        sample = self.sample
        if sample.groups is not None:
            labels: NDArray | None = labels_by_first(sample.groups)
        else:
            labels = duplicate_groups(self._filled(sample))
        return replace(self, sample=replace(sample, groups=labels))

    def _filled(self, sample: Sample) -> Sample:
        """The samples with means in place of missing values."""
        return sample.of(FilledRows(sample.X, mean_of_present(sample)[0])) if self.incomplete else sample

    def continued(self, directions: PrincipalDirections) -> "Start":
        """The same with the trained network moved to the mean and the scale of the samples.

        Where PCA reconstructs the samples better than that, nothing is continued.
        """
        if self.before is None:
            return self
        before = self.on(directions)
        before.move_to(directions)
        fresh = replace(self, before=None)
        if self.architecture.linear_skip and not self.architecture.variational:
            errors = squares(before, self.sample)[0]
            if errors > squares(fresh.on(directions), self.sample)[0]:
                return fresh
        return replace(self, before=before)

    def error_share(self, directions: PrincipalDirections) -> float:
        """Share of the variance of all rows that the start leaves unexplained."""
        if self.before is None:
            return directions.residual_share(self.sample.total)
        errors, offsets = squares(self.on(directions), self.sample)
        return float(min(errors / offsets, 1.0)) if offsets > 0 else 0.0

    def on(self, directions: PrincipalDirections) -> DataUnits:
        """Build the network at these directions, unless there is one to go on with."""
        if self.before is not None:
            return copy.deepcopy(self.before).to(self.device)
        module = build(self.architecture, torch_dtype(self.sample.dtype))
        module.start_at(directions, seeded_generator(self.seed))
        return module.to(self.device).eval()


def fit_network(
    start: Start, settings: TrainingSettings, validation: ValidationSplit | None, refit: bool | str
) -> tuple[ReconstructionNet, TrainingRecord]:
    """Train a network by the whole procedure: find the epoch on held-out rows, then train on all rows.

    Parameters
    ----------
    start : Start
        The data, and where training begins.
    settings : TrainingSettings
        How to train.
    validation : ValidationSplit or None
        Which samples are held out; None trains on all of them.
    refit : bool or "auto"
        Whether to train again on all rows once the epoch is chosen; "auto" does so unless they are many.

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
        as_they_lie, start = start.sample, start.by_distance()
        if validation is not None and settings.max_epochs > 0 and start.architecture.kind != "pca":
            start = start.grouped()
            if start.sample.groups is not None:
                of_row = np.zeros(len(start.sample.X), dtype=start.sample.groups.dtype)
                of_row[start.sample.numbers] = start.sample.groups
                as_they_lie = replace(as_they_lie, groups=of_row[as_they_lie.numbers])
        # In an order of their own rows give the same to the last bit; many are read faster as they lie.
        few = np.prod(as_they_lie.shape) <= EXACT_SIZE
        directions = start.directions(start.sample if few else as_they_lie)
        start = start.continued(directions)
        share = start.error_share(directions)
        settings = replace(settings, residual_share=share)
        if not _something_to_learn(start, settings, directions):
            model, record = start.on(directions), TrainingRecord()
        elif validation is None:
            model, record = _train_on_all(start, settings, directions)
        else:
            model, record = _search(start, settings, directions, validation, refit)
        return _finished(model, record, start, settings)


def _finished(
    model: DataUnits, record: TrainingRecord, start: Start, settings: TrainingSettings
) -> tuple[ReconstructionNet, TrainingRecord]:
    """Give the codes their units, and wrap the network for predictions."""
    model.set_code_unit(None)
    learnt = record.best_epoch > 0 or start.before is not None
    if learnt and not settings.whiten:
        model.measure_code_unit(aligned_tensor(start.sample.spread_out(UNIT_ROWS)))
    elif settings.whiten:
        model.set_code_unit(code_spread(model, start.sample))
    return predicting_net(model, record.history), record


def squares(model: DataUnits, sample: Sample) -> NDArray:
    """Sums over the rows of the squared norms of their reconstruction error and of their offset from the mean."""
    return sample.weighted_sum(map_rows(model.squares, sample, 2, model.mean, np.float64))


def code_spread(model: DataUnits, sample: Sample) -> NDArray:
    """Standard deviation of each code (divisor n - 1); zero for a single row."""
    codes = map_rows(model.encode, sample, model.architecture.n_components, model.mean, np.float64)
    variance = sample.mean(np.square(codes - sample.mean(codes)))
    count = max(sample.total, len(sample))
    return np.sqrt(variance * (count / max(count - 1, 1)))


def _something_to_learn(start: Start, settings: TrainingSettings, directions: PrincipalDirections) -> bool:
    """Whether training could change anything: not so where PCA is perfect, or the best by proof."""
    if settings.max_epochs == 0:
        return False
    if not start.architecture.linear_skip:
        return True
    rounding = 10 * np.finfo(start.sample.dtype).eps
    if settings.regularizers:
        return True
    return start.architecture.kind != "pca" and directions.residual_share(start.sample.total) > rounding


def _n_sets(directions: PrincipalDirections, n_rows: int) -> int:
    """In how many sets to hold rows out: the fewer rows carry the variance, the more."""
    wanted = math.ceil(MANY_EFFECTIVE_ROWS / directions.effective_rows)
    return max(1, min(wanted, MANY_ROWS // n_rows))


def _search(
    start: Start,
    settings: TrainingSettings,
    directions: PrincipalDirections,
    validation: ValidationSplit,
    refit: bool | str,
) -> tuple[DataUnits, TrainingRecord]:
    """Find the epoch on held-out rows, and give the network of all rows as much training, or keep the one found."""
    model = start.on(directions)
    sample = start.sample
    many = refit == "auto" and len(sample) > MANY_ROWS
    linear_skip = start.architecture.linear_skip
    n_sets = _n_sets(directions, len(sample)) if refit and linear_skip else 1
    parts = validation.parts(sample, settings.seed, n_sets)
    if validation.sample is not None:
        refit = False
    too_few = min((len(train) for train, _ in parts), default=0) <= start.architecture.n_components
    if linear_skip and not settings.regularizers and (too_few or directions.effective_rows < MIN_EFFECTIVE_ROWS):
        return model, TrainingRecord()
    if start.before is None and settings.optimizer != "lbfgs":
        settings = replace(settings, stages=STAGES, departs=True)
    if not parts:
        raise ValueError(
            f"No samples can be held out: all {len(sample)} are copies of each other, or on one side of "
            "validation_split. Pass other samples, or early_stopping=False."
        )
    at = directions if many else None
    trainings = [_training_on(index, start, settings, *part, at) for index, part in enumerate(parts)]
    choice, weights = _run_side_by_side(trainings, settings, start)
    first = trainings[0]
    scores = _valid_scores(choice, trainings)
    record = TrainingRecord(choice.best_epoch, first.train_losses, scores, epochs_of(first.net))
    if choice.best_epoch == 0:
        return model, record
    fixed = validation.sample is not None and linear_skip
    if (not refit and not fixed) or (many or fixed) and settings.regularizers:
        return first.finish(weights), record
    if many or fixed:
        return _better_on_all_rows(first.finish(weights), model, sample, record)
    again = Training(model, replace(settings, verbose=0), sample, callbacks=schedulers(settings.callbacks))
    # As many steps as on the smaller set, whatever the number of batches is now.
    ratio = first.n_batches / again.n_batches
    lengths = [math.ceil(n_epochs * ratio) for n_epochs in choice.epochs_per_stage()]
    stages = [stage for stage, length in zip(settings.stages, lengths, strict=False) for _ in range(length)]
    _train_again(again, stages, lambda: _finished(again.snapshot(), record, start, settings))
    if again.improves():
        return again.finish(), record
    return model, replace(record, best_epoch=0)


def _train_again(training: Training, stages: Sequence[Regularisation], result: Callable[[], tuple]) -> None:
    """Train an epoch in each of these stages and look at nothing; tell what a stop would result in."""
    progress = training.settings.progress
    with progress.part("refit", len(stages)):
        for stage in stages:
            progress.epoch_begins()
            training.regularise(stage)
            training.epoch()
            progress.epoch_ends(EpochReport(training.train_losses[-1], None, None, result))
            if progress.stopped:
                break
    training.end()


def _training_on(index, start, settings, rows, valid, directions=None) -> Training:
    """Prepare the training of this index, with the samples it holds out; only the first one is heard and seen."""
    _check_normalisation(start.architecture, len(rows))
    callbacks = settings.callbacks if index == 0 else schedulers(settings.callbacks)
    own = replace(settings, seed=settings.seed + index, verbose=settings.verbose if index == 0 else 0)
    model = start.on(start.directions(rows) if directions is None else directions)
    return Training(model, own, rows, valid, callbacks)


def _check_normalisation(architecture: Architecture, n_rows: int) -> None:
    """Refuse to normalise over batches where there is but one row to train on."""
    if n_rows == 1 and architecture.normalization == "batch":
        raise ValueError(
            "normalization='batch' needs at least 2 rows to train on, but only 1 is left beside the held-out rows and "
            "those of weight zero. Choose a smaller validation_fraction, normalization='layer', or pass more rows."
        )


def _better_on_all_rows(
    found: DataUnits, model: DataUnits, sample: Sample, record: TrainingRecord
) -> tuple[DataUnits, TrainingRecord]:
    """Keep the network that was found if it reconstructs all rows better than the start does."""
    better = squares(found, sample)[0] < squares(model, sample)[0]
    return (found, record) if better else (model, replace(record, best_epoch=0))


def _run_side_by_side(
    trainings: list[Training], settings: TrainingSettings, start: Start
) -> tuple[EpochChoice, list[Tensor]]:
    """Train all until their held-out rows together see no more progress; also give the first one's best weights."""
    start_losses = np.concatenate([training.start_losses for training in trainings])
    cautious = trainings[0].core.architecture.linear_skip
    patience, stage_epochs = settings.n_iter_no_change, math.ceil(EARLY_STEPS / trainings[0].n_batches)
    samples = [training.sample for training in trainings]
    of_rows = {"weights": weights_over(samples), "groups": groups_over(samples)}
    choice = EpochChoice(start_losses, settings.tol, patience, cautious, len(settings.stages), stage_epochs, **of_rows)
    weights = trainings[0].weights()
    progress = settings.progress
    with progress.part("search", settings.max_epochs):
        while choice.n_epochs < settings.max_epochs and not (
            choice.exhausted or trainings[0].stopped or progress.stopped
        ):
            progress.epoch_begins()
            for training in trainings:
                training.regularise(settings.stages[choice.stage])
                training.epoch()
            losses = np.concatenate([training.valid_losses for training in trainings])
            if choice.consider(losses, _above_floor(trainings)):
                weights = trainings[0].weights()
            progress.epoch_ends(_report(choice, trainings, settings, start))
    for training in trainings:
        training.end()
    return choice, weights


def _report(choice: EpochChoice, trainings: list[Training], settings: TrainingSettings, start: Start) -> EpochReport:
    """What there is to tell after an epoch of a search."""
    first = trainings[0]

    def result() -> tuple:
        scores = _valid_scores(choice, trainings)
        record = TrainingRecord(choice.n_epochs, first.train_losses, scores, epochs_of(first.net))
        return _finished(first.snapshot(), record, start, settings)

    return EpochReport(first.train_losses[-1], choice.mean_losses[-1], choice.best_epoch, result)


def _above_floor(trainings: list[Training]) -> bool:
    """Whether the held-out rows have no larger squared error than PCA's, where another loss is minimised."""
    if not trainings[0].guarded:
        return True
    samples = [training.sample for training in trainings]
    at_start = mean_over(samples, [training.start_squares for training in trainings])
    return mean_over(samples, [training.valid_squares for training in trainings]) <= at_start


def _valid_scores(choice: EpochChoice, trainings: list[Training]) -> list[float]:
    """Mean losses of the held-out rows as shares of what the mean alone would lose."""
    samples = [training.sample for training in trainings]
    reference = mean_over(samples, [training.measures.losses_of_mean() for training in trainings])
    return [1.0 - loss / reference if reference > 0 else float(loss == 0) for loss in choice.mean_losses]


def _train_on_all(
    start: Start, settings: TrainingSettings, directions: PrincipalDirections
) -> tuple[DataUnits, TrainingRecord]:
    """Train on all rows until their loss stops falling; keep the start if that reconstructs them better."""
    _check_normalisation(start.architecture, len(start.sample))
    model = start.on(directions)
    training = Training(model, settings, start.sample, callbacks=settings.callbacks)
    start_loss = np.array([start.sample.mean(training.start_losses)])
    choice = EpochChoice(start_loss, settings.tol, settings.n_iter_no_change, cautious=False)
    progress = settings.progress

    def result() -> tuple:
        record = TrainingRecord(choice.n_epochs, training.train_losses, None, epochs_of(training.net))
        return _finished(training.snapshot(), record, start, settings)

    with progress.part("training", settings.max_epochs):
        while choice.n_epochs < settings.max_epochs and not (choice.exhausted or training.stopped or progress.stopped):
            progress.epoch_begins()
            training.epoch()
            choice.consider(np.array(training.train_losses[-1:]))
            progress.epoch_ends(EpochReport(training.train_losses[-1], None, None, result))
    training.end()
    better = training.improves()
    best_epoch = choice.n_epochs if better else 0
    record = TrainingRecord(best_epoch, training.train_losses, None, epochs_of(training.net))
    return (training.finish() if better else model), record
