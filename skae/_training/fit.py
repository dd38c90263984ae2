"""Fit a network: train while the loss of held-out samples decreases, then tune on all samples."""

import copy
import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._data.containers import ScaledSamples, exceeds_memory
from skae._data.dataset import LEAST_LIMIT, apply_in_batches
from skae._data.duplicates import duplicate_groups, labels_by_first
from skae._data.ranks import ALONE
from skae._data.sample import Sample, joined
from skae._network.architecture import Architecture
from skae._network.custom import freeze_like
from skae._network.layers import fill_buffers
from skae._network.scaling import ScaledAutoEncoder, build
from skae._objectives.losses import Loss, SquaredError
from skae._pca.components import PrincipalComponents
from skae._pca.exact import EXACT_SIZE, feature_mean, is_iterated, principal_components, squared_distances
from skae._pca.missing import ImputedRows, mean_of_present, never_together, principal_components_of_incomplete
from skae._pca.robust import clip_wild_samples, directional_components
from skae._training.basis import WIDE, PrincipalBasis, basis_sizes
from skae._training.net import ReconstructionNet, TrainingConfig, epochs_of, of_every_training, predicting_net
from skae._training.optimizers import FEW_SAMPLES, shrinkage
from skae._training.ordering import (
    JUDGING_STEPS,
    ExplainedVariance,
    prefix_sizes,
    variance_of_network,
    variance_of_pca,
)
from skae._training.progress import EpochReport
from skae._training.schedule import STRONG, WEAK, Regularization
from skae._training.selection import EpochSelector, ValidationSplit
from skae._training.trainer import Trainer, sample_losses
from skae._utils import seeded_generator, threads_for, torch_dtype

# PCA is kept if the effective sample size of its loss is smaller, because the mean loss of held-out samples is then not
# close to normally distributed.
MIN_EFFECTIVE_SAMPLE_SIZE = 30
# Several folds are used if the effective sample size is smaller.
LARGE_EFFECTIVE_SAMPLE_SIZE = 300
# The same two limits for the number of hidden values that are compared, if at least this fraction of all values are
# missing. By 17 to 177 values, networks were kept whose imputation was worse than that of PCA (diabetes, wine).
MUCH_MISSING = 0.25
MIN_HIDDEN_VALUES = 200
MANY_HIDDEN_VALUES = 300
# Fraction of the pairs of features that are never present together, above which PCA is kept: held-out samples have no
# value to hide that is as far from the others as the missing ones. With four fifths of each row of Waveform missing in
# one run, a network imputed with an error of 1.34 in place of .91, and of digits 1.13 in place of 1.08.
MOST_NEVER_TOGETHER = 0.25
# Number of samples from which a single fold is enough.
LARGE_SAMPLE_SIZE = 20_000
# Fraction of the loss of PCA below which training starts from components about zero. From PCA it usually ends at a
# lower loss, even if the other start is a little better (digits, k = 4, cosine).
CLEARLY_BETTER = 0.75
# Number of steps of the first run; above FEW_SAMPLES it increases by a power of the number of samples.
FIRST_STEPS, GROWTH = 300, 0.75
# Largest number of steps of the search with up to MEDIUM_SAMPLES samples, and largest factor for more samples. With a
# factor of four at most, the score of 60,000 images and 16 codes is .868 in place of .875 (MNIST) and .882 in place of
# .885 (Fashion-MNIST), in four fifths of the time.
MOST_STEPS, MEDIUM_SAMPLES, MOST_GROWTH = 1200, 5000, 8.0
# Number of steps of the tuning on all samples, as a fraction of that of the search, and its minimum.
TUNING_FRACTION, LEAST_TUNING = 0.2, 100
# Learning rate of the tuning, relative to that of the search.
TUNING_RATE = 0.5
# Fraction of the gain on PCA that has to be left after a trial of the tuning on the training samples alone. The tuning
# itself has a tenth more samples: on olivetti at k = 8 the trial loses a tenth of the gain, and the tuning increases
# the score of test samples by .044.
GAIN_LEFT = 0.8
# Loss, as a fraction of the variance, below which there is no further run, and gain on PCA above which there is no
# trial of the tuning. Without both, the mean score of eight fits is .0005 higher, for a fourth more work.
LITTLE_LEFT, LARGE_GAIN = 0.05, 0.1
# Fraction of the variance by which the reconstruction from the first codes may be worse than that of PCA with as many,
# and the imputation of hidden values than at the start. Without the latter, networks that reconstruct better were kept
# that impute worse: on diabetes with 10 % of the values missing, with an error of .91 in place of .82.
FLOOR_TOLERANCE = 0.001
# Factor by which more samples keep only their first codes after the first run without order, and after each that
# follows. On the word counts of pcmac_text at k = 8 and 32 (eight fits), a factor of five after the first explains .023
# less of the variance and keeps PCA once; on gas_drift, spambase, coil20 and olivetti it makes less than .005 of a
# difference. With a factor of two after all, four of seven fits of 200 to 400 curved samples are PCA, and none with
# five.
NESTED_GROWTH = (2.0, 5.0)
# Number of training samples by which this is verified after the tuning. No measurement of this value is recorded.
ORDERED_SAMPLES = 256
# Number of passes over all samples in a step of L-BFGS.
LBFGS_STEPS = 20
# Candidates for the weight of the prior on the codes of samples with missing values; None is the code of the encoder.
PRIOR_WEIGHTS = (None, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class TrainingResult:
    """Record of a training.

    Attributes
    ----------
    best_epoch : int
        The epoch that was kept; 0 is PCA or the network before.
    train_losses : list of float
        Mean loss of each epoch's batches, as a fraction of the variance.
    valid_scores : list of float or None
        Score of the held-out samples at the start and at each comparison.
    valid_epochs : list of int
        Number of epochs before each comparison.
    history : list of dict
        skorch's history of each epoch.
    score : float or None
        Fraction of the variance of all samples that the network explains, if it is known.
    explained : ExplainedVariance or None
        Variance that each code explains. None during the training and after `partial_fit`.
    """

    best_epoch: int = 0
    train_losses: list[float] = field(default_factory=list)
    valid_scores: list[float] | None = None
    valid_epochs: list[int] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)
    score: float | None = None
    explained: ExplainedVariance | None = None


@dataclass(frozen=True)
class NetworkInitializer:
    """Initialization of the network. The random weights depend on the seed alone.

    Attributes
    ----------
    sample : Sample of shape (n_samples, n_features)
        The training samples.
    architecture : Architecture
        Architecture of the network.
    device : torch.device
        Device of the network.
    seed : int
        Seed of the random weights.
    before : ScaledAutoEncoder or None
        Fitted network from which training continues.
    incomplete : bool
        Whether X has missing values.
    training_mean : ndarray of shape (n_features,) or None
        Mean of each feature of the training samples if the network is centered at another location.
    loss : Loss
        The loss, which may scale features before principal components are found.
    """

    sample: Sample
    architecture: Architecture
    device: torch.device
    seed: int
    before: ScaledAutoEncoder | None = None
    incomplete: bool = False
    training_mean: NDArray | None = None
    loss: Loss = field(default_factory=SquaredError)

    def principal_components(self, sample: Sample) -> PrincipalComponents:
        """Compute the principal components of some of the samples."""
        n_components = min(self.architecture.n_components, *sample.full_shape)
        return self._components(sample, n_components).padded(self.architecture.n_components)

    def _components(self, sample: Sample, n_components: int, min_noise: float | None = None) -> PrincipalComponents:
        """Compute a number of principal components."""
        of_incomplete = partial(principal_components_of_incomplete, min_noise=min_noise)
        find = of_incomplete if self.incomplete else principal_components
        scale = self.loss.feature_scale
        if scale is None:
            return find(sample, n_components)
        return replace(find(sample.of(ScaledSamples(sample.X, scale)), n_components), feature_scale=scale)

    def components_at(self, sample: Sample, n_components: int, pca: PrincipalComponents) -> PrincipalComponents:
        """Compute principal components of some of the samples, with mean and standard deviations of all samples."""
        if exceeds_memory(*self.sample.full_shape) and n_components <= len(pca.components):
            return pca  # those without a tenth of many samples hardly differ
        of_part = self._components(sample, min(n_components, *sample.full_shape), pca.min_noise).padded(n_components)
        return replace(of_part, mean=pca.mean, feature_std=pca.feature_std, feature_max_abs=pca.feature_max_abs).padded(
            self.architecture.n_components
        )

    def by_distance(self, strata: NDArray | None = None) -> "NetworkInitializer":
        """Sort the samples by their distance from the mean, those of each kind after the other.

        Large data keep their order.
        """
        sample = self.sample
        if sample.stays_in_order:
            return self
        mean = mean_of_present(sample)[0] if self.incomplete else feature_mean(sample)
        values = self._filled(sample)
        distances = squared_distances(values, mean)
        kinds = np.zeros(len(sample)) if strata is None else strata[sample.numbers]
        return replace(self, sample=sample.take(np.lexsort((distances, kinds))))

    def for_loss(self, loss: Loss) -> "NetworkInitializer":
        """Move outliers towards the other samples for losses that are robust to them."""
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
        if sample.groups is not None and sample.spans_ranks:
            return self
        if sample.groups is not None:
            labels: NDArray | None = labels_by_first(sample.groups)
        else:
            labels = duplicate_groups(self._filled(sample))
        return replace(self, sample=replace(sample, groups=labels))

    def _filled(self, sample: Sample) -> Sample:
        """Replace missing values by the means of the features."""
        return sample.of(ImputedRows(sample.X, mean_of_present(sample)[0])) if self.incomplete else sample

    def continued(self, pca: PrincipalComponents) -> "NetworkInitializer":
        """Move the fitted network to the mean and the scale of the samples.

        If PCA has the lower loss, the network is dropped.
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
        """Compute the fraction of the variance of all samples that the initial network does not explain."""
        if self.before is None:
            return pca.unexplained_variance_ratio(self.sample.total)
        errors, offsets = squares(self.on(pca), self.sample)
        return float(min(errors / offsets, 1.0)) if offsets > 0 else 0.0

    def on(self, pca: PrincipalComponents) -> ScaledAutoEncoder:
        """Initialize a network from principal components, or copy the network from which training continues."""
        if self.before is not None:
            model = copy.deepcopy(self.before).to(self.device)
            freeze_like(model, self.architecture.module)
            return model
        module = build(self.architecture, torch_dtype(self.sample.dtype))
        module.init_from_pca(pca, seeded_generator(self.seed))
        return module.to(self.device).eval()


def fit_network(
    start: NetworkInitializer, config: TrainingConfig, validation: ValidationSplit | None
) -> tuple[ReconstructionNet, TrainingResult]:
    """Train a network while the loss of held-out samples decreases, then tune it on all samples.

    Parameters
    ----------
    start : NetworkInitializer
        Training samples and initialization.
    config : TrainingConfig
        Parameters of the training.
    validation : ValidationSplit or None
        Validation split; None trains on all samples.

    Returns
    -------
    ReconstructionNet, TrainingResult
        A net for predictions, and the record of the training.

    Raises
    ------
    ValueError
        If a loss is infinite or NaN.
    """
    ranks = start.sample.ranks
    with threads_for(config.batch_size * start.architecture.n_weights):
        ranks.stage("principal components")
        given, (start, as_they_lie) = start.sample, prepared(start, config, validation)
        # In sorted order, permuted samples give identical results; large data are read faster in their own order.
        few = np.prod(as_they_lie.shape) <= EXACT_SIZE or as_they_lie.spans_ranks
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
        ranks.stage("training")
        if not something_to_learn(start, config, pca):
            model, record = start.on(pca), TrainingResult()
        elif validation is None:
            model, record = _train_whole(start, config, pca)
        else:
            model, record = _search(start, config, pca, validation)
        unit = model.code_unit.clone()
        net, record = _finished(model, record, start, config)
        if is_pca(start, config, record.best_epoch):
            explained = variance_of_pca(pca, given, start.architecture.n_components)
        else:
            explained = variance_of_network(model, pca, given, unit, record.score)
        return net, replace(record, explained=explained)


def prepared(
    start: NetworkInitializer, config: TrainingConfig, validation: ValidationSplit | None
) -> tuple[NetworkInitializer, Sample]:
    """Prepare the samples for the loss, sort and group them. Return them also in their own order."""
    start = start.for_loss(config.loss)
    strata = next((one.strata for one in config.regularizers if one.strata is not None), None)
    as_they_lie, start = start.sample, start.by_distance(strata)
    if validation is not None and config.max_epochs != 0 and start.architecture.kind != "pca":
        start = start.grouped()
        if start.sample.groups is not None:
            of_sample = np.zeros(len(start.sample.X), dtype=start.sample.groups.dtype)
            of_sample[start.sample.numbers] = start.sample.groups
            as_they_lie = replace(as_they_lie, groups=of_sample[as_they_lie.numbers])
    return start, as_they_lie


def is_pca(start: NetworkInitializer, config: TrainingConfig, best_epoch: int) -> bool:
    """Return whether the network is PCA of the samples as they were given."""
    untrained = start.architecture.kind == "pca" or (
        best_epoch == 0 and start.before is None and start.architecture.linear_skip
    )
    return untrained and not start.incomplete and type(config.loss) is SquaredError


def _finished(
    model: ScaledAutoEncoder, result: TrainingResult, start: NetworkInitializer, config: TrainingConfig
) -> tuple[ReconstructionNet, TrainingResult]:
    """Set the units of the codes, and return a net for predictions."""
    if start.training_mean is not None:
        fill_buffers(model, {"training_mean": start.training_mean})
    if config.whiten:
        model.whiten(code_spread(model, start.sample))
    model.keep_double()
    return predicting_net(model, result.history), result


def squares(model: ScaledAutoEncoder, sample: Sample) -> NDArray:
    """Sum the squared reconstruction errors and the squared distances from the mean over the samples."""
    return sample.sum(apply_in_batches(model.squares, sample, 2, model.mean, np.float64))


def code_spread(model: ScaledAutoEncoder, sample: Sample) -> NDArray:
    """Compute the standard deviation of each code (divisor n - 1); zero for a single sample."""
    codes = apply_in_batches(model.project, sample, model.architecture.n_components, model.mean, np.float64)
    variance = sample.mean(np.square(codes - sample.mean(codes)))
    count = max(sample.total, sample.count)
    return np.sqrt(variance * (count / max(count - 1, 1)))


def something_to_learn(start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents) -> bool:
    """Return whether training can lower the loss: not if that of PCA is zero or PCA is the optimum."""
    if config.max_epochs == 0:
        return False
    if not start.architecture.linear_skip:
        return True
    rounding = 10 * np.finfo(start.sample.dtype).eps
    if config.regularizers:
        return True
    return start.architecture.kind != "pca" and pca.unexplained_variance_ratio(start.sample.total) > rounding


def _n_folds_used(effective_sample_size: float, n_samples: int, n_compared: float) -> int:
    """Return the number of folds: several for a small effective sample size or few hidden values."""
    wanted = math.ceil(max(LARGE_EFFECTIVE_SAMPLE_SIZE / effective_sample_size, MANY_HIDDEN_VALUES / n_compared))
    return max(1, min(wanted, LARGE_SAMPLE_SIZE // n_samples))


def _search(
    start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents, validation: ValidationSplit
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Train while the loss of held-out samples decreases and tune on all samples, or keep PCA."""
    model, (parts, decide) = start.on(pca), held_out_parts(start, config, pca, validation)
    if not decide:
        return model, TrainingResult()
    search = Search(start, config, pca, parts)
    search.run()
    if search.best is None:
        return model, search.result()
    found = search.trained_on_all() if validation.sample is None else search.best.on_all_features(search.best.trained())
    return _better_on_all_samples(found, model, start, search.result(), config)


def held_out_parts(
    start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents, validation: ValidationSplit
) -> tuple[list[tuple[Sample, Sample]], bool]:
    """Return the training and held-out samples of each fold, and whether these are enough to decide against PCA.

    Raises
    ------
    ValueError
        If no samples can be held out and PCA cannot be kept.
    """
    model, sample, linear_skip = start.on(pca), start.sample, start.architecture.linear_skip
    effective, of_variance = (
        _effective_sample_size(one, sample) for one in sample_losses(config.loss, model, sample).T
    )
    n_compared = math.inf  # expected number of hidden values per fold, if these decide
    if start.incomplete and (missing := 1.0 - pca.present_fraction) >= MUCH_MISSING:
        n_compared = validation.fraction * sample.count * sample.shape[1] * (1.0 - missing) * min(missing, LEAST_LIMIT)
    n_folds_used = _n_folds_used(max(effective, of_variance), sample.count, n_compared) if linear_skip else 1
    parts = validation.parts(sample, config.seed, n_folds_used)
    too_few = min((train.count for train, _ in parts), default=0) <= start.architecture.n_components
    too_few |= len(parts) * n_compared < MIN_HIDDEN_VALUES
    too_few |= n_compared < math.inf and never_together(sample) > MOST_NEVER_TOGETHER
    if linear_skip and not config.regularizers and (too_few or effective < MIN_EFFECTIVE_SAMPLE_SIZE):
        return parts, False
    if not parts:
        raise ValueError(
            f"No samples can be held out: all {sample.count} are copies of each other, or on one side of "
            "validation_split. Pass other samples, or early_stopping=False."
        )
    return parts, True


@dataclass(frozen=True)
class Candidate:
    """Network that was compared by the held-out samples.

    Attributes
    ----------
    trainer : Trainer
        Its trainer.
    weights : list of Tensor
        Its weights.
    prior_weight : float or None
        Weight of the prior on the codes of samples with missing values.
    basis : PrincipalBasis or None
        Basis in which it was trained; None for all features.
    full : ScaledAutoEncoder
        Network on all features into which it is expanded.
    """

    trainer: Trainer
    weights: list[Tensor]
    prior_weight: float | None
    basis: PrincipalBasis | None
    full: ScaledAutoEncoder

    def trained(self) -> ScaledAutoEncoder:
        """Return the network, which may be one in the basis."""
        return self.trainer.finish(self.weights, self.prior_weight)

    def on_all_features(self, model: ScaledAutoEncoder) -> ScaledAutoEncoder:
        """Expand a network in the basis."""
        return model if self.basis is None else self.basis.expand(model, copy.deepcopy(self.full))


@dataclass
class Fold:
    """Trainer with its held-out samples.

    Attributes
    ----------
    trainer : Trainer
        The trainer.
    full : ScaledAutoEncoder
        Initial network on all features.
    samples : tuple of Sample
        Training samples and held-out samples.
    basis : PrincipalBasis or None
        Basis in which the network is trained; None for all features.
    factor, offset : float and ndarray of shape (n_held_out,) or float
        Factor and offset from losses in the basis to losses on all features.
    """

    trainer: Trainer
    full: ScaledAutoEncoder
    samples: tuple[Sample, Sample]
    basis: PrincipalBasis | None = None
    factor: float = 1.0
    offset: NDArray | float = 0.0

    def losses(self, prior_weight: float | None) -> NDArray:
        """Compute the loss of each held-out sample."""
        return self._on_all_features(*self.trainer.losses(prior_weight))

    def start_losses(self) -> NDArray:
        """Return the loss of each held-out sample at the start."""
        return self._on_all_features(self.trainer.start_losses, self.trainer.start_floors)

    def _on_all_features(self, losses: NDArray, floors: NDArray) -> NDArray:
        losses = np.column_stack([losses, floors])
        return self.factor * losses + np.broadcast_to(self.offset, len(losses))[:, np.newaxis]


class Search:
    """Training in runs, as long as the loss of the held-out samples decreases.

    A first run with strong regularization is followed by runs with weak regularization, which double the number of
    epochs. In each, the learning rate decreases to zero. The final tuning on all samples uses the regularization that
    was selected by the held-out samples.

    Parameters
    ----------
    start : NetworkInitializer
        Training samples and initialization.
    config : TrainingConfig
        Parameters of the training.
    pca : PrincipalComponents
        Principal components of all samples.
    parts : list of pairs of Sample
        Training samples and held-out samples of each fold.

    Attributes
    ----------
    best : Candidate or None
        Best network of the first fold; None keeps PCA.
    """

    def __init__(
        self, start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents, parts: list
    ) -> None:
        self.start = start
        self.config = config
        self.pca = pca
        self.perturbs = start.before is None and config.optimizer != "lbfgs"
        self.folds = [self._fold(index, *part) for index, part in enumerate(parts)]
        samples = [fold.trainer.sample for fold in self.folds]
        start_losses = np.concatenate([fold.start_losses() for fold in self.folds])
        self.selector = EpochSelector(start_losses[:, 0], start.architecture.linear_skip, joined(samples))
        references = [fold.factor * fold.trainer.losses_of_mean() + fold.offset for fold in self.folds]
        self.reference = float(self.selector.sample.mean(np.concatenate(references)))
        self.nested_factor = 1.0
        self.ordered = self.eligible = True
        self.lowest_loss = math.inf
        self.floors_at_start = self.selector.mean(start_losses[:, 1:])
        self.n_hidden = int(self.folds[0].trainer.compares_hidden)
        self.prior_weights = PRIOR_WEIGHTS if start.incomplete else (0.0,)
        self.best: Candidate | None = None
        self.tuning: Regularization | None = WEAK
        n_samples = self.folds[0].trainer.samples.count
        growth = max(n_samples / FEW_SAMPLES, 1.0) ** GROWTH
        self.first_steps = FIRST_STEPS * growth
        self.most_steps = max(MOST_STEPS * min(max(n_samples / MEDIUM_SAMPLES, 1.0), MOST_GROWTH), self.first_steps)

    def _fold(self, index: int, samples: Sample, valid: Sample) -> Fold:
        """Prepare the trainer of a fold. Only the first one has callbacks and output."""
        start, config = self.start, self.config
        _check_normalization(start.architecture, samples.count)
        callbacks = config.callbacks if index == 0 else of_every_training(config.callbacks)
        config = replace(config, seed=config.seed + index, verbose=config.verbose if index == 0 else 0)
        smaller, size = basis_sizes(start.architecture.n_components)
        in_basis = self._may_use_basis(config) and WIDE * smaller < samples.shape[1] and smaller < samples.count
        # The coordinates are held in memory; many components of a large sparse table take longer than they save.
        in_basis &= not exceeds_memory(samples.ranks.max(len(samples)), size)
        in_basis &= samples.spans_ranks or not is_iterated(samples, size)
        # Mean and scale are those of all samples, so that they do not change at the end.
        n_components = min(size if in_basis else start.architecture.n_components, *samples.full_shape)
        pca = start.components_at(samples, n_components, self.pca)
        full = start.on(pca.truncated(start.architecture.n_components))
        if not in_basis:
            trainer = Trainer(full, config, samples, valid, callbacks, self.perturbs, compares=True)
            return Fold(trainer, full, (samples, valid))
        basis = PrincipalBasis.of(pca, start.architecture.n_components, samples.total)
        (inside, _), (valid_inside, outside) = (basis.coordinates(one) for one in (samples, valid))
        small = basis.network(full, basis.pca_of(inside, start.architecture.n_components), start.seed)
        trainer = Trainer(small, config, inside, valid_inside, callbacks, self.perturbs, compares=True)
        whole = float(full.scale) ** 2 * samples.shape[1]
        factor = float(small.scale) ** 2 * basis.size / whole
        return Fold(trainer, full, (samples, valid), basis, factor, outside / whole)

    def _may_use_basis(self, config: TrainingConfig) -> bool:
        """Return whether the network can be trained in the basis of principal components."""
        start = self.start
        of_network = start.architecture.kind == "dense" and start.architecture.linear_skip and start.before is None
        of_training = type(config.loss) is SquaredError and not config.regularizers and not config.callbacks
        return of_network and of_training and not start.incomplete and config.optimizer != "lbfgs"

    def run(self) -> None:
        """Train while the loss of the held-out samples decreases, then select the regularization of the tuning."""
        config, first = self.config, self.folds[0].trainer
        steps_per_epoch = first.n_batches * (LBFGS_STEPS if config.optimizer == "lbfgs" else 1)
        most = max(round(self.most_steps / steps_per_epoch), 1)
        most = most if config.max_epochs is None else min(most, config.max_epochs)
        first_epochs = min(max(round(self.first_steps / steps_per_epoch), 1), most)
        with config.progress.part("search", most):
            fresh = self.perturbs
            gain = self._run(first_epochs, STRONG if fresh else WEAK, 1.0 if fresh else TUNING_RATE)
            n_epochs = first_epochs
            if self.selector.mean_losses[-1] < LITTLE_LEFT * self.reference:
                gain = 0.0
            while n_epochs < most and (gain > config.tol or not self.ordered) and not self._stopped:
                more = min(n_epochs, most - n_epochs)  # doubles the number of epochs
                gain = self._run(more, WEAK)
                n_epochs += more
        self.n_search_epochs = n_epochs
        if self.best is not None and not self._stopped and config.optimizer != "lbfgs":
            self._try_tuning()
        for fold in self.folds:
            fold.trainer.end()

    def networks(self) -> list[ScaledAutoEncoder]:
        """Return the best network of each fold."""
        if self.best is None:
            return [fold.full for fold in self.folds]
        best, networks = self.best, []
        for fold, weights in zip(self.folds, self.best_weights, strict=True):
            of_fold = Candidate(fold.trainer, weights, best.prior_weight, fold.basis, fold.full)
            networks.append(of_fold.on_all_features(of_fold.trained()))
        return networks

    @property
    def _stopped(self) -> bool:
        stopped = self.folds[0].trainer.stopped or self.config.progress.stopped
        return bool(self.start.sample.ranks.first(stopped))

    def _run(
        self, n_epochs: int, regularization: Regularization, rate_factor: float = 1.0, position: float = 0.0
    ) -> float:
        """Train all folds, and return the decrease of the held-out loss. Undo the run if there is none."""
        before = [fold.trainer.weights() for fold in self.folds]
        regularization = self._scaled(regularization)
        for index, fold in enumerate(self.folds):
            hooks: Any = (self.config.progress.epoch_begins, self._report) if index == 0 else ()
            fold.trainer.run(n_epochs, regularization, rate_factor, position, *hooks)
        losses, prior_weight = self._compare()
        first, loss = self.folds[0], float(self.selector.mean(losses[:, 0]))
        kept = self._floors_kept(losses)
        was_ordered, self.ordered = self.ordered, bool(kept[self.n_hidden :].all())
        self.eligible = bool(kept.all())
        better = self.selector.update(losses[:, 0], len(first.trainer.train_losses), self.eligible)
        if better:
            self.best_weights = [fold.trainer.weights() for fold in self.folds]
            self.best = Candidate(first.trainer, self.best_weights[0], prior_weight, first.basis, first.full)
        # Codes that are not ordered yet may have lower losses, which are no measure for those that are.
        gain = self.lowest_loss - loss
        if self.ordered:
            self.lowest_loss = min(self.lowest_loss, loss)
        else:
            self.nested_factor *= NESTED_GROWTH[int(self.nested_factor > 1.0)]
        if was_ordered and not gain > 0:
            for fold, weights in zip(self.folds, before, strict=True):
                fold.trainer.set_weights(weights)
        return gain

    def _scaled(self, regularization: Regularization) -> Regularization:
        """Decrease the regularization for many samples, and cut more codes if their order needs it."""
        factor = shrinkage(self.folds[0].trainer.samples.count)
        return regularization.scaled(factor, factor * self.nested_factor)

    def _floors_kept(self, losses: NDArray) -> NDArray:
        """Return whether hidden values are imputed, and samples reconstructed by the first codes, as at the start."""
        return self.selector.mean(losses[:, 1:]) <= self.floors_at_start + FLOOR_TOLERANCE * self.reference

    def _compare(self) -> tuple[NDArray, float | None]:
        """Return the losses of the held-out samples with the best weight of the prior, and that weight.

        A weight with which hidden values are imputed as well as at the start is better than others.
        """
        candidates = []
        for prior_weight in self.prior_weights:
            losses = np.concatenate([fold.losses(prior_weight) for fold in self.folds])
            loss, imputes = float(self.selector.mean(losses[:, 0])), self._floors_kept(losses)[: self.n_hidden].all()
            candidates.append(((not imputes, loss if math.isfinite(loss) else math.inf), losses, prior_weight))
        _, losses, prior_weight = min(candidates, key=lambda one: one[0])
        return losses, prior_weight

    def _try_tuning(self) -> None:
        """Select weak, strong or no tuning by a trial on the training samples."""
        n_epochs = max(self._tuning_epochs(self.folds[0].trainer) // 2, 1)
        for fold, weights in zip(self.folds, self.best_weights, strict=True):
            fold.trainer.set_weights(weights)
        start, self.tuning = self.selector.mean_losses[0], WEAK
        if self.selector.best_gain > LARGE_GAIN * self.reference:
            return
        self.tuning = None
        with self.config.progress.part("trial", 2 * n_epochs):
            for regularization in (WEAK, STRONG):
                self._run(n_epochs, regularization, TUNING_RATE, 0.5)
                if self.eligible and start - self.selector.mean_losses[-1] > GAIN_LEFT * self.selector.best_gain:
                    self.tuning = regularization
                    return
                if self._stopped:
                    return

    def _tuning_epochs(self, trainer: Trainer) -> int:
        """Return the number of epochs of the tuning."""
        n_steps = max(TUNING_FRACTION * self.n_search_epochs * self._batches_of_search, LEAST_TUNING)
        n_epochs = max(round(n_steps / trainer.n_batches), 1)
        return n_epochs if self.config.max_epochs is None else min(n_epochs, self.config.max_epochs)

    @property
    def _batches_of_search(self) -> int:
        return math.ceil(self.folds[0].samples[0].count / self.config.batch_size)

    def trained_on_all(self) -> ScaledAutoEncoder:
        """Return the best network, tuned on all samples."""
        best, config = cast(Candidate, self.best), self.config
        model, sample = best.trained(), self.start.sample
        valid: Sample | None = self.folds[0].samples[1]
        if self.tuning is None or self._stopped or config.optimizer == "lbfgs":
            return best.on_all_features(model)
        if best.basis is not None:
            sample, valid = best.basis.coordinates(sample)[0], None  # there are no callbacks
        trainer = Trainer(model, replace(config, verbose=0), sample, valid, of_every_training(config.callbacks))
        n_epochs = self._tuning_epochs(trainer)
        progress = config.progress

        def finished() -> ScaledAutoEncoder:
            return best.on_all_features(trainer.finish(None, best.prior_weight))

        def result() -> tuple:
            return _finished(finished(), self.result(), self.start, config)

        def report() -> bool:
            return progress.epoch_ends(EpochReport(trainer.train_losses[-1], None, None, result))

        with progress.part("tuning", n_epochs):
            trainer.run(n_epochs, self._scaled(self.tuning), TUNING_RATE, 0.5, progress.epoch_begins, report)
        trainer.end()
        tuned = finished()
        ordered = self.start.sample.ranks.first(self._is_ordered(tuned))
        return tuned if ordered else best.on_all_features(model)

    def _is_ordered(self, model: ScaledAutoEncoder) -> bool:
        """Return whether the first codes of a network reconstruct training samples as well as PCA does."""
        pca, sample = self.start.on(self.pca), self.start.sample.few(ORDERED_SAMPLES)
        for size in prefix_sizes(model.architecture.n_components) if len(self.floors_at_start) > self.n_hidden else ():
            shorts = (one.truncated(size, JUDGING_STEPS) for one in (model, pca))
            losses = [sample_losses(self.config.loss, short, sample) for short in shorts]
            (of_model, _), (of_pca, reference) = (sample.mean(one) for one in losses)
            if of_model > of_pca + FLOOR_TOLERANCE * reference:
                return False
        return True

    def _report(self) -> bool:
        """Report an epoch of the first fold, and return whether to stop."""
        first = self.folds[0]
        train_losses = first.trainer.train_losses

        def result() -> tuple:
            candidate = Candidate(
                first.trainer, first.trainer.weights(), self.prior_weights[0], first.basis, first.full
            )
            model = candidate.on_all_features(candidate.trained())
            return _finished(model, replace(self.result(), best_epoch=len(train_losses)), self.start, self.config)

        valid_loss = first.trainer.net.history[-1].get("valid_loss")
        return self.config.progress.epoch_ends(
            EpochReport(train_losses[-1], valid_loss, self.selector.best_epoch, result)
        )

    def result(self) -> TrainingResult:
        """Return the record of the search."""
        trainer = self.folds[0].trainer
        scores = [
            1.0 - loss / self.reference if self.reference > 0 else float(loss == 0)
            for loss in self.selector.mean_losses
        ]
        epochs, history = list(self.selector.epochs), epochs_of(trainer.net)
        return TrainingResult(self.selector.best_epoch, trainer.train_losses, scores, epochs, history)


def _check_normalization(architecture: Architecture, n_samples: int) -> None:
    """Raise an error for batch normalization with a single training sample."""
    if n_samples == 1 and architecture.normalization == "batch":
        raise ValueError(
            "normalization='batch' needs at least 2 samples to train on, but only 1 is left beside the held-out "
            "samples and those of weight zero. Choose a smaller validation_fraction, normalization='layer', or pass "
            "more samples."
        )


def _better_on_all_samples(
    found: ScaledAutoEncoder,
    model: ScaledAutoEncoder,
    start: NetworkInitializer,
    result: TrainingResult,
    config: TrainingConfig,
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Return the trained network, or the initial one if that has the lower loss on all samples."""
    if config.regularizers or not start.architecture.linear_skip:
        return found, result
    means = [start.sample.mean(sample_losses(config.loss, one, start.sample)) for one in (found, model)]
    if not means[0][0] < means[1][0]:
        return model, replace(result, best_epoch=0)
    if type(config.loss) is SquaredError:
        result = replace(result, score=float(1.0 - means[0][0] / means[0][1]))
    return found, result


def _effective_sample_size(losses: NDArray, sample: Sample) -> float:
    """Compute the effective sample size of the mean loss: the squared sum of losses over the sum of their squares."""
    losses = losses if sample.weights is None else losses * sample.weights
    losses, ranks = sample.sum_of_groups(losses), sample.ranks if sample.groups is None else ALONE
    largest = ranks.max(losses.max(initial=0.0))
    if largest == 0:
        return float(max(ranks.sum(len(losses)), 1))
    losses = losses / largest  # squares of huge losses would overflow
    return float(ranks.sum(losses.sum()) ** 2 / ranks.sum(np.square(losses).sum()))


def _train_whole(
    start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Train on all samples in one run. Keep the initial network if that has the lower loss."""
    _check_normalization(start.architecture, start.sample.count)
    model = start.on(pca)
    perturbs = start.before is None and config.optimizer != "lbfgs"
    trainer = Trainer(model, config, start.sample, callbacks=config.callbacks, perturbs=perturbs)
    progress = config.progress
    n_epochs = config.max_epochs
    if n_epochs is None:
        steps = 2 * FIRST_STEPS / (LBFGS_STEPS if config.optimizer == "lbfgs" else 1)
        n_epochs = max(round(steps / trainer.n_batches), 1)

    def record() -> TrainingResult:
        return TrainingResult(len(trainer.train_losses), trainer.train_losses, None, [], epochs_of(trainer.net))

    def result() -> tuple:
        return _finished(trainer.finish(), record(), start, config)

    def report() -> bool:
        return progress.epoch_ends(EpochReport(trainer.train_losses[-1], None, None, result))

    with progress.part("training", n_epochs):
        trainer.run(n_epochs, STRONG, 1.0 if perturbs else TUNING_RATE, 0.0, progress.epoch_begins, report)
    trainer.end()
    return _better_on_all_samples(trainer.finish(), model, start, record(), config)
