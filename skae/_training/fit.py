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
from skae._data.dataset import apply_in_batches, n_hidden
from skae._data.duplicates import duplicate_groups, labels_by_first
from skae._data.sample import Sample, groups_over, mean_over, weights_over
from skae._network.architecture import Architecture
from skae._network.custom import freeze_like
from skae._network.layers import fill_buffers
from skae._network.scaling import Projection, ScaledAutoEncoder, build
from skae._objectives.losses import Loss, SquaredError
from skae._objectives.regularizers import Regularizer
from skae._pca.components import PrincipalComponents
from skae._pca.exact import EXACT_SIZE, feature_mean, principal_components, squared_distances
from skae._pca.missing import ImputedRows, mean_of_present, principal_components_of_incomplete
from skae._pca.robust import clip_wild_samples, directional_components
from skae._training.net import ReconstructionNet, TrainingConfig, epochs_of, of_every_training, predicting_net
from skae._training.progress import EpochReport
from skae._training.schedule import STAGES, RegularizationStage
from skae._training.selection import EpochSelector, ValidationSplit
from skae._training.trainer import Trainer, loss_unit_of, sample_losses
from skae._utils import aligned_tensor, seeded_generator, threads_for, torch_dtype

# Where fewer samples than this carry the variance, the mean over held-out samples is not normal yet: PCA is kept.
MIN_EFFECTIVE_SAMPLE_SIZE = 30
# Few or uneven samples are held out in several sets in turn, while there are less than this many effective samples.
LARGE_EFFECTIVE_SAMPLE_SIZE = 300
# The same of values that are hidden and filled in, where half of all or more are missing: by 17 and by 41 of them,
# measured, epochs were kept that filled in worse than PCA.
MIN_HIDDEN_VALUES = 100
MANY_HIDDEN_VALUES = 300
# With more samples than this one set is enough, and a tenth more samples would teach too little for a second training.
LARGE_SAMPLE_SIZE = 20_000
# Training samples at which the slope of the decoder is measured.
UNIT_SAMPLES = 256
# Part of the loss of PCA below which training starts from components about zero: from PCA it usually ends better, also
# where the other start is a little better (digits, k = 4, cosine).
CLEARLY_BETTER = 0.75
# A stage before the last takes at most this many steps: many samples have most to learn in the last.
EARLY_STEPS = 4500


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves behind besides the weights.

    Attributes
    ----------
    best_epoch : int
        The epoch that was kept; 0 is the start.
    train_losses : list of float
        Mean loss of each epoch's batches, as a fraction of the variance.
    valid_scores : list of float or None
        Fraction of the held-out samples' variance explained, at the start and after each epoch.
    history : list of dict
        What skorch noted about each epoch.
    """

    best_epoch: int = 0
    train_losses: list[float] = field(default_factory=list)
    valid_scores: list[float] | None = None
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class NetworkInitializer:
    """Makes the network that training begins with: for the same seed the same weights, whatever the samples.

    Attributes
    ----------
    sample : Sample of shape (n_samples, n_features)
        The samples to train on.
    architecture : Architecture
        What to build.
    device : torch.device
        Where to put it.
    seed : int
        Draws the weights.
    before : ScaledAutoEncoder or None
        A trained network to begin with instead, whatever the samples.
    incomplete : bool
        Whether X has NaN for missing values.
    training_mean : ndarray of shape (n_features,) or None
        Mean of each feature of the training samples, where the location that the network uses is another.
    """

    sample: Sample
    architecture: Architecture
    device: torch.device
    seed: int
    before: ScaledAutoEncoder | None = None
    incomplete: bool = False
    training_mean: NDArray | None = None

    def principal_components(self, sample: Sample) -> PrincipalComponents:
        """Mean, spread and principal directions of some of the samples."""
        n_components = min(self.architecture.n_components, *sample.shape)
        find = principal_components_of_incomplete if self.incomplete else principal_components
        return find(sample, n_components).padded(self.architecture.n_components)

    def by_distance(self) -> "NetworkInitializer":
        """Sort the samples by their distance from the mean.

        Samples of many values stay where they are.
        """
        sample = self.sample
        if is_large(sample.X):  # read as they lie
            return self
        mean = mean_of_present(sample)[0] if self.incomplete else feature_mean(sample)
        values = self._filled(sample)
        return replace(self, sample=sample.take(np.argsort(squared_distances(values, mean), kind="stable")))

    def for_loss(self, loss: Loss) -> "NetworkInitializer":
        """Move wild samples towards the others, for losses that these do not dominate."""
        if loss.start != "robust" or not self.architecture.linear_skip:
            return self
        sample = clip_wild_samples(self.sample)
        return self if sample is self.sample else replace(self, sample=sample, training_mean=self.mean())

    def mean(self) -> NDArray:
        """Compute the mean of each feature."""
        return mean_of_present(self.sample)[0] if self.incomplete else feature_mean(self.sample)

    def grouped(self) -> "NetworkInitializer":
        """Label samples that belong to one group: the groups given to `fit`, or else copies."""
        sample = self.sample
        if sample.groups is not None:
            labels: NDArray | None = labels_by_first(sample.groups)
        else:
            labels = duplicate_groups(self._filled(sample))
        return replace(self, sample=replace(sample, groups=labels))

    def _filled(self, sample: Sample) -> Sample:
        """Replace missing values by the means of the features."""
        return sample.of(ImputedRows(sample.X, mean_of_present(sample)[0])) if self.incomplete else sample

    def continued(self, pca: PrincipalComponents) -> "NetworkInitializer":
        """Move the trained network to the mean and the scale of the samples.

        Where PCA reconstructs the samples better than that, nothing is continued.
        """
        if self.before is None:
            return self
        before = self.on(pca)
        before.rescale(pca)
        fresh = replace(self, before=None)
        if self.architecture.linear_skip and not self.architecture.variational:
            errors = squares(before, self.sample)[0]
            if errors > squares(fresh.on(pca), self.sample)[0]:
                return fresh
        return replace(self, before=before)

    def unexplained_fraction(self, pca: PrincipalComponents) -> float:
        """Fraction of the variance of all samples that the start leaves unexplained."""
        if self.before is None:
            return pca.unexplained_variance_ratio(self.sample.total)
        errors, offsets = squares(self.on(pca), self.sample)
        return float(min(errors / offsets, 1.0)) if offsets > 0 else 0.0

    def on(self, pca: PrincipalComponents) -> ScaledAutoEncoder:
        """Build the network at these directions, unless there is one to go on with."""
        if self.before is not None:
            model = copy.deepcopy(self.before).to(self.device)
            freeze_like(model, self.architecture.module)
            return model
        module = build(self.architecture, torch_dtype(self.sample.dtype))
        module.init_from_pca(pca, seeded_generator(self.seed))
        return module.to(self.device).eval()


def fit_network(
    start: NetworkInitializer, config: TrainingConfig, validation: ValidationSplit | None, refit: bool | str
) -> tuple[ReconstructionNet, TrainingResult]:
    """Train a network by the whole procedure: find the epoch on held-out samples, then train on all samples.

    Parameters
    ----------
    start : NetworkInitializer
        The data, and where training begins.
    settings : TrainingConfig
        How to train.
    validation : ValidationSplit or None
        Which samples are held out; None trains on all of them.
    refit : bool or "auto"
        Whether to train again on all samples once the epoch is chosen; "auto" does so unless they are many.

    Returns
    -------
    ReconstructionNet, TrainingResult
        A net for predictions, and how it came about.

    Raises
    ------
    ValueError
        If a loss is not finite.
    """
    with threads_for(config.batch_size * start.architecture.n_weights):
        start = start.for_loss(config.loss)
        as_they_lie, start = start.sample, start.by_distance()
        if validation is not None and config.max_epochs > 0 and start.architecture.kind != "pca":
            start = start.grouped()
            if start.sample.groups is not None:
                of_sample = np.zeros(len(start.sample.X), dtype=start.sample.groups.dtype)
                of_sample[start.sample.numbers] = start.sample.groups
                as_they_lie = replace(as_they_lie, groups=of_sample[as_they_lie.numbers])
        # In an order of their own samples give the same to the last bit; many are read faster as they lie.
        few = np.prod(as_they_lie.shape) <= EXACT_SIZE
        pca = start.principal_components(start.sample if few else as_they_lie)
        if config.loss.start == "direction" and not start.incomplete and start.architecture.linear_skip:
            about_zero = directional_components(start.sample, pca)
            losses = [
                start.sample.mean(sample_losses(config.loss, start.on(one), start.sample)[:, 0])
                for one in (about_zero, pca)
            ]
            if losses[0] < CLEARLY_BETTER * losses[1]:
                start, pca = replace(start, training_mean=start.mean()), about_zero
        start = start.continued(pca)
        fraction = start.unexplained_fraction(pca)
        config = replace(config, unexplained_variance_ratio=fraction)
        if not _something_to_learn(start, config, pca):
            model, record = start.on(pca), TrainingResult()
        elif validation is None:
            model, record = _train_on_all(start, config, pca)
        else:
            model, record = _search(start, config, pca, validation, refit)
        return _finished(model, record, start, config)


def _finished(
    model: ScaledAutoEncoder, record: TrainingResult, start: NetworkInitializer, config: TrainingConfig
) -> tuple[ReconstructionNet, TrainingResult]:
    """Give the codes their units, and wrap the network for predictions."""
    model.set_code_unit(None)
    if start.training_mean is not None:
        fill_buffers(model, {"training_mean": start.training_mean})
    learnt = record.best_epoch > 0 or start.before is not None
    if learnt:
        measure(model, start.sample, config)
    if config.whiten:
        model.set_code_unit(code_spread(model, start.sample))
    model.keep_double()
    return predicting_net(model, record.history), record


def measure(model: ScaledAutoEncoder, sample: Sample, config: TrainingConfig) -> None:
    """Prepare the projection of a trained network, and give its codes their units."""
    projects = all(regularizer.projects for regularizer in config.regularizers)
    penalties = [one for one in config.regularizers if type(one).code_penalty is not Regularizer.code_penalty]
    projection = Projection(config.projection_steps if projects else 0, config.loss, penalties)
    x = aligned_tensor(sample.spread_out(UNIT_SAMPLES))
    model.set_code_unit(None)
    model.measure(x, projection, loss_unit_of(config.loss, model, x))


def squares(model: ScaledAutoEncoder, sample: Sample) -> NDArray:
    """Sum the squared reconstruction errors and the squared distances from the mean over the samples."""
    return sample.weighted_sum(apply_in_batches(model.squares, sample, 2, model.mean, np.float64))


def code_spread(model: ScaledAutoEncoder, sample: Sample) -> NDArray:
    """Compute the standard deviation of each code (divisor n - 1); zero for a single sample."""
    codes = apply_in_batches(model.project, sample, model.architecture.n_components, model.mean, np.float64)
    variance = sample.mean(np.square(codes - sample.mean(codes)))
    count = max(sample.total, len(sample))
    return np.sqrt(variance * (count / max(count - 1, 1)))


def _something_to_learn(start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents) -> bool:
    """Whether training could change anything: not so where PCA is perfect, or the best by proof."""
    if config.max_epochs == 0:
        return False
    if not start.architecture.linear_skip:
        return True
    rounding = 10 * np.finfo(start.sample.dtype).eps
    if config.regularizers:
        return True
    return start.architecture.kind != "pca" and pca.unexplained_variance_ratio(start.sample.total) > rounding


def _n_folds_used(effective_sample_size: float, n_samples: int, n_compared: float) -> int:
    """Return the number of folds: more where few samples carry the loss or few hidden values are compared."""
    wanted = math.ceil(max(LARGE_EFFECTIVE_SAMPLE_SIZE / effective_sample_size, MANY_HIDDEN_VALUES / n_compared))
    return max(1, min(wanted, LARGE_SAMPLE_SIZE // n_samples))


def _search(
    start: NetworkInitializer,
    config: TrainingConfig,
    pca: PrincipalComponents,
    validation: ValidationSplit,
    refit: bool | str,
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Select the epoch on held-out samples, and train as long on all samples, or keep the network that was found."""
    model = start.on(pca)
    sample = start.sample
    many = refit == "auto" and len(sample) > LARGE_SAMPLE_SIZE
    linear_skip = start.architecture.linear_skip
    effective = _effective_sample_size(model, sample, config.loss, pca)
    n_compared = math.inf  # hidden values that are compared in a fold, where these alone are compared
    if start.incomplete and pca.present_fraction <= 0.5:
        n_compared = validation.fraction * len(sample) * n_hidden(pca.present_fraction, sample.shape[1])
    n_folds_used = _n_folds_used(effective, len(sample), n_compared) if refit and linear_skip else 1
    parts = validation.parts(sample, config.seed, n_folds_used)
    if validation.sample is not None:
        refit = False
    too_few = min((len(train) for train, _ in parts), default=0) <= start.architecture.n_components
    too_few |= len(parts) * n_compared < MIN_HIDDEN_VALUES
    if linear_skip and not config.regularizers and (too_few or effective < MIN_EFFECTIVE_SAMPLE_SIZE):
        return model, TrainingResult()
    if start.before is None and config.optimizer != "lbfgs":
        config = replace(config, stages=STAGES, departs=True)
    if not parts:
        raise ValueError(
            f"No samples can be held out: all {len(sample)} are copies of each other, or on one side of "
            "validation_split. Pass other samples, or early_stopping=False."
        )
    at = pca if many else None
    trainings = [_training_on(index, start, config, *part, at) for index, part in enumerate(parts)]
    choice, weights = _run_side_by_side(trainings, config, start)
    first = trainings[0]
    scores = _valid_scores(choice, trainings)
    record = TrainingResult(choice.best_epoch, first.train_losses, scores, epochs_of(first.net))
    if choice.best_epoch == 0:
        return model, record
    fixed = validation.sample is not None and linear_skip
    if (not refit and not fixed) or (many or fixed) and config.regularizers:
        return first.finish(weights), record
    if many or fixed:
        return _better_on_all_samples(first.finish(weights), model, sample, record, config.loss)
    again = Trainer(model, replace(config, verbose=0), sample, callbacks=of_every_training(config.callbacks))
    # As many steps as on the smaller set, whatever the number of batches is now.
    ratio = first.n_batches / again.n_batches
    lengths = [math.ceil(n_epochs * ratio) for n_epochs in choice.epochs_per_stage()]
    stages = [stage for stage, length in zip(config.stages, lengths, strict=False) for _ in range(length)]
    _train_again(again, stages, lambda: _finished(again.snapshot(), record, start, config))
    if again.improves():
        return again.finish(), record
    return model, replace(record, best_epoch=0)


def _train_again(training: Trainer, stages: Sequence[RegularizationStage], result: Callable[[], tuple]) -> None:
    """Train an epoch in each of these stages and look at nothing; tell what a stop would result in."""
    progress = training.config.progress
    with progress.part("refit", len(stages)):
        for stage in stages:
            progress.epoch_begins()
            training.set_stage(stage)
            training.epoch()
            progress.epoch_ends(EpochReport(training.train_losses[-1], None, None, result))
            if progress.stopped:
                break
    training.end()


def _training_on(index, start, config, samples, valid, pca=None) -> Trainer:
    """Prepare the training of this index, with the samples it holds out; only the first one is heard and seen."""
    _check_normalisation(start.architecture, len(samples))
    callbacks = config.callbacks if index == 0 else of_every_training(config.callbacks)
    own = replace(config, seed=config.seed + index, verbose=config.verbose if index == 0 else 0)
    model = start.on(start.principal_components(samples) if pca is None else pca)
    return Trainer(model, own, samples, valid, callbacks)


def _check_normalisation(architecture: Architecture, n_samples: int) -> None:
    """Refuse to normalize over batches where there is but one sample to train on."""
    if n_samples == 1 and architecture.normalization == "batch":
        raise ValueError(
            "normalization='batch' needs at least 2 samples to train on, but only 1 is left beside the held-out "
            "samples and those of weight zero. Choose a smaller validation_fraction, normalization='layer', or pass "
            "more samples."
        )


def _better_on_all_samples(
    found: ScaledAutoEncoder, model: ScaledAutoEncoder, sample: Sample, record: TrainingResult, loss: Loss
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Keep the network that was found if all samples have a smaller loss than with the start."""
    losses = [sample.mean(sample_losses(loss, one, sample)[:, 0]) for one in (found, model)]
    return (found, record) if losses[0] < losses[1] else (model, replace(record, best_epoch=0))


def _effective_sample_size(model: ScaledAutoEncoder, sample: Sample, loss: Loss, pca: PrincipalComponents) -> float:
    """Return how many samples of equal weight would share the loss of the mean as evenly as these do."""
    if type(loss) is SquaredError:
        return pca.effective_sample_size
    losses = sample_losses(loss, model, sample)[:, 1]
    losses = losses if sample.weights is None else losses * sample.weights
    losses = losses if sample.groups is None else np.bincount(sample.groups, losses)
    return float(losses.sum() ** 2 / max(np.square(losses).sum(), np.finfo(float).tiny))


def _run_side_by_side(
    trainings: list[Trainer], config: TrainingConfig, start: NetworkInitializer
) -> tuple[EpochSelector, list[Tensor]]:
    """Train all until their held-out samples together see no more progress; also give the first one's best weights."""
    start_losses = np.concatenate([training.start_losses for training in trainings])
    use_standard_error = trainings[0].network.architecture.linear_skip
    patience, stage_epochs = config.n_iter_no_change, math.ceil(EARLY_STEPS / trainings[0].n_batches)
    samples = [training.sample for training in trainings]
    of_samples = {"weights": weights_over(samples), "groups": groups_over(samples)}
    choice = EpochSelector(
        start_losses, config.tol, patience, use_standard_error, len(config.stages), stage_epochs, **of_samples
    )
    weights = trainings[0].weights()
    progress = config.progress
    with progress.part("search", config.max_epochs):
        while choice.n_epochs < config.max_epochs and not (
            choice.exhausted or trainings[0].stopped or progress.stopped
        ):
            progress.epoch_begins()
            for training in trainings:
                training.set_stage(config.stages[choice.stage])
                training.epoch()
            losses = np.concatenate([training.valid_losses for training in trainings])
            if choice.update(losses):
                weights = trainings[0].weights()
            progress.epoch_ends(_report(choice, trainings, config, start))
    for training in trainings:
        training.end()
    return choice, weights


def _report(
    choice: EpochSelector, trainings: list[Trainer], config: TrainingConfig, start: NetworkInitializer
) -> EpochReport:
    """Report an epoch of a search."""
    first = trainings[0]

    def result() -> tuple:
        scores = _valid_scores(choice, trainings)
        record = TrainingResult(choice.n_epochs, first.train_losses, scores, epochs_of(first.net))
        return _finished(first.snapshot(), record, start, config)

    return EpochReport(first.train_losses[-1], choice.mean_losses[-1], choice.best_epoch, result)


def _valid_scores(choice: EpochSelector, trainings: list[Trainer]) -> list[float]:
    """Mean losses of the held-out samples as shares of what the mean alone would lose."""
    samples = [training.sample for training in trainings]
    reference = mean_over(samples, [training.measures.losses_of_mean() for training in trainings])
    return [1.0 - loss / reference if reference > 0 else float(loss == 0) for loss in choice.mean_losses]


def _train_on_all(
    start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Train on all samples until their loss stops falling; keep the start if that reconstructs them better."""
    _check_normalisation(start.architecture, len(start.sample))
    model = start.on(pca)
    training = Trainer(model, config, start.sample, callbacks=config.callbacks)
    start_loss = np.array([start.sample.mean(training.start_losses)])
    choice = EpochSelector(start_loss, config.tol, config.n_iter_no_change, use_standard_error=False)
    progress = config.progress

    def result() -> tuple:
        record = TrainingResult(choice.n_epochs, training.train_losses, None, epochs_of(training.net))
        return _finished(training.snapshot(), record, start, config)

    with progress.part("training", config.max_epochs):
        while choice.n_epochs < config.max_epochs and not (choice.exhausted or training.stopped or progress.stopped):
            progress.epoch_begins()
            training.epoch()
            choice.update(np.array(training.train_losses[-1:]))
            progress.epoch_ends(EpochReport(training.train_losses[-1], None, None, result))
    training.end()
    better = training.improves()
    best_epoch = choice.n_epochs if better else 0
    record = TrainingResult(best_epoch, training.train_losses, None, epochs_of(training.net))
    return (training.finish() if better else model), record
