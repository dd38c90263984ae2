"""Fit a network: train while held-out samples gain, then a little on all samples."""

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._data.containers import exceeds_memory, is_large
from skae._data.dataset import apply_in_batches, n_hidden
from skae._data.duplicates import duplicate_groups, labels_by_first
from skae._data.sample import Sample, groups_over, mean_over, weights_over
from skae._network.architecture import Architecture
from skae._network.custom import freeze_like
from skae._network.layers import fill_buffers
from skae._network.scaling import ScaledAutoEncoder, build
from skae._objectives.losses import Loss, SquaredError
from skae._pca.components import PrincipalComponents
from skae._pca.exact import EXACT_SIZE, feature_mean, principal_components, squared_distances
from skae._pca.missing import ImputedRows, mean_of_present, principal_components_of_incomplete
from skae._pca.robust import clip_wild_samples, directional_components
from skae._training.basis import WIDE, PrincipalBasis, basis_size
from skae._training.net import ReconstructionNet, TrainingConfig, epochs_of, of_every_training, predicting_net
from skae._training.progress import EpochReport
from skae._training.schedule import STRONG, WEAK, Regularization
from skae._training.selection import EpochSelector, ValidationSplit
from skae._training.trainer import Trainer, sample_losses
from skae._utils import seeded_generator, threads_for, torch_dtype

# Where fewer samples than this carry what PCA loses, the mean over held-out samples is not normal yet: PCA is kept.
MIN_EFFECTIVE_SAMPLE_SIZE = 30
# Few or uneven samples are held out in several sets in turn, while there are less than this many effective samples.
LARGE_EFFECTIVE_SAMPLE_SIZE = 300
# The same of values that are hidden and filled in, where half of all or more are missing: by 17 and by 41 of them,
# measured, epochs were kept that filled in worse than PCA.
MIN_HIDDEN_VALUES = 100
MANY_HIDDEN_VALUES = 300
# With more samples than this one set is enough, and a tenth more samples would teach too little for a second training.
LARGE_SAMPLE_SIZE = 20_000
# Part of the loss of PCA below which training starts from components about zero: from PCA it usually ends better, also
# where the other start is a little better (digits, k = 4, cosine).
CLEARLY_BETTER = 0.75
# Steps of the first training, for up to so many samples; many samples have more to teach.
FIRST_STEPS, FEW_SAMPLES, GROWTH = 300, 2000, 0.75
# Largest number of steps of the search, for up to so many samples, and how much larger it may become.
MOST_STEPS, MEDIUM_SAMPLES, MOST_GROWTH = 1200, 5000, 4.0
# Steps on all samples at the end, as a fraction of those of the search, and at least.
TUNING_FRACTION, LEAST_TUNING = 0.2, 100
# Learning rate of the last steps, as a fraction of the first.
TUNING_RATE = 0.5
# Fraction of the gain on PCA that has to be left after a rehearsal of the last steps. On all samples they learn from a
# tenth more: olivetti at k = 8 loses a tenth in the rehearsal, and gains .044 of the variance on test samples.
GAIN_LEFT = 0.8
# Loss, as a fraction of that of the mean, below which another run could not gain much, and gain on PCA above which the
# last steps need no rehearsal. Without both, eight cells of seven data sets are .0005 better on average and take a
# fourth more work.
LITTLE_LEFT = 0.05
LARGE_GAIN = 0.1
# A step of L-BFGS looks at all samples twenty times.
LBFGS_STEPS = 20
# Weights of the prior on the codes of samples with missing values; None is the code of the encoder.
PRIOR_WEIGHTS = (None, 1.0, 3.0, 10.0, 30.0)


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
        Fraction of the held-out samples' variance explained, at the start and whenever they were compared.
    valid_epochs : list of int
        Numbers of epochs before these comparisons.
    history : list of dict
        What skorch noted about each epoch.
    """

    best_epoch: int = 0
    train_losses: list[float] = field(default_factory=list)
    valid_scores: list[float] | None = None
    valid_epochs: list[int] = field(default_factory=list)
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

    def components_at(self, sample: Sample, n_components: int, pca: PrincipalComponents) -> PrincipalComponents:
        """Principal components of some of the samples, with location and spread of all of them."""
        if is_large(self.sample.X) and n_components <= len(pca.components):
            return pca  # a tenth of many samples changes little
        find = principal_components_of_incomplete if self.incomplete else principal_components
        of_part = find(sample, min(n_components, *sample.shape)).padded(n_components)
        return replace(of_part, mean=pca.mean, feature_std=pca.feature_std, feature_max_abs=pca.feature_max_abs).padded(
            self.architecture.n_components
        )

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
    start: NetworkInitializer, config: TrainingConfig, validation: ValidationSplit | None
) -> tuple[ReconstructionNet, TrainingResult]:
    """Train a network by the whole procedure: while held-out samples gain, then a little on all samples.

    Parameters
    ----------
    start : NetworkInitializer
        The data, and where training begins.
    config : TrainingConfig
        How to train.
    validation : ValidationSplit or None
        Which samples are held out; None trains on all of them.

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
        if validation is not None and config.max_epochs != 0 and start.architecture.kind != "pca":
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
            model, record = _train_whole(start, config, pca)
        else:
            model, record = _search(start, config, pca, validation)
        return _finished(model, record, start, config)


def _finished(
    model: ScaledAutoEncoder, result: TrainingResult, start: NetworkInitializer, config: TrainingConfig
) -> tuple[ReconstructionNet, TrainingResult]:
    """Give the codes their units, and wrap the network for predictions."""
    if start.training_mean is not None:
        fill_buffers(model, {"training_mean": start.training_mean})
    if config.whiten:
        model.whiten(code_spread(model, start.sample))
    model.keep_double()
    return predicting_net(model, result.history), result


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
    start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents, validation: ValidationSplit
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Train while held-out samples gain, then a little on all samples; keep PCA where these do not gain."""
    model, sample, linear_skip = start.on(pca), start.sample, start.architecture.linear_skip
    effective, of_variance = (
        _effective_sample_size(one, sample) for one in sample_losses(config.loss, model, sample).T
    )
    n_compared = math.inf  # hidden values that are compared in a fold, where these alone are compared
    if start.incomplete and pca.present_fraction <= 0.5:
        n_compared = validation.fraction * len(sample) * n_hidden(pca.present_fraction, sample.shape[1])
    n_folds_used = _n_folds_used(max(effective, of_variance), len(sample), n_compared) if linear_skip else 1
    parts = validation.parts(sample, config.seed, n_folds_used)
    too_few = min((len(train) for train, _ in parts), default=0) <= start.architecture.n_components
    too_few |= len(parts) * n_compared < MIN_HIDDEN_VALUES
    if linear_skip and not config.regularizers and (too_few or effective < MIN_EFFECTIVE_SAMPLE_SIZE):
        return model, TrainingResult()
    if not parts:
        raise ValueError(
            f"No samples can be held out: all {len(sample)} are copies of each other, or on one side of "
            "validation_split. Pass other samples, or early_stopping=False."
        )
    search = Search(start, config, pca, parts)
    search.run()
    if search.best is None:
        return model, search.result()
    found = search.trained_on_all() if validation.sample is None else search.best.model()
    return _better_on_all_samples(found, model, start, search.result(), config)


@dataclass(frozen=True)
class Candidate:
    """A network that held-out samples have compared.

    Attributes
    ----------
    trainer : Trainer
        What trained it.
    weights : list of Tensor
        Its weights.
    prior_weight : float or None
        Weight of the prior on the codes of samples with missing values.
    basis : PrincipalBasis or None
        In which it was trained.
    full : ScaledAutoEncoder
        A network on all features, to expand it into.
    """

    trainer: Trainer
    weights: list[Tensor]
    prior_weight: float | None
    basis: PrincipalBasis | None
    full: ScaledAutoEncoder

    def model(self) -> ScaledAutoEncoder:
        """Return the network on all features."""
        model = self.trainer.finish(self.weights, self.prior_weight)
        return model if self.basis is None else self.basis.expand(model, copy.deepcopy(self.full))


@dataclass
class Fold:
    """A training with the samples that it holds out.

    Attributes
    ----------
    trainer : Trainer
        The training.
    full : ScaledAutoEncoder
        The network on all features where it starts.
    samples : tuple of Sample
        The samples that train and those that are held out.
    basis : PrincipalBasis or None
        In which the network is trained.
    factor, offset : float and ndarray of shape (n_held_out,) or float
        Turn losses in the basis into losses on all features.
    """

    trainer: Trainer
    full: ScaledAutoEncoder
    samples: tuple[Sample, Sample]
    basis: PrincipalBasis | None = None
    factor: float = 1.0
    offset: NDArray | float = 0.0

    def losses(self, prior_weight: float | None) -> NDArray:
        """Loss of each held-out sample."""
        return self.factor * self.trainer.losses(prior_weight) + self.offset


class Search:
    """Trainings that go on while their held-out samples gain.

    A first training with strong regularization is followed by longer and longer ones with weak regularization, each
    with a learning rate that falls to zero. The last steps are taken on all samples, the way that held-out samples
    have found to be good.

    Parameters
    ----------
    start : NetworkInitializer
        The data, and where training begins.
    config : TrainingConfig
        How to train.
    pca : PrincipalComponents
        Of all samples.
    parts : list of pairs of Sample
        For each training, the samples that train and those that are held out.

    Attributes
    ----------
    best : Candidate or None
        The best network of the first training; None keeps PCA.
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
        start_losses = np.concatenate([fold.factor * fold.trainer.start_losses + fold.offset for fold in self.folds])
        self.selector = EpochSelector(
            start_losses, start.architecture.linear_skip, weights=weights_over(samples), groups=groups_over(samples)
        )
        references = [fold.factor * fold.trainer.losses_of_mean() + fold.offset for fold in self.folds]
        self.reference = mean_over(samples, references)
        self.prior_weights = PRIOR_WEIGHTS if start.incomplete else (0.0,)
        self.best: Candidate | None = None
        self.tuning: Regularization | None = WEAK
        self.before: tuple[list[float], list[dict]] = [], []  # of the training in the basis
        n_samples = len(self.folds[0].trainer.samples)
        growth = max(n_samples / FEW_SAMPLES, 1.0) ** GROWTH
        self.first_steps = FIRST_STEPS * growth
        self.most_steps = max(MOST_STEPS * min(max(n_samples / MEDIUM_SAMPLES, 1.0), MOST_GROWTH), self.first_steps)

    def _fold(self, index: int, samples: Sample, valid: Sample) -> Fold:
        """Prepare a training; only the first one is heard and seen."""
        start, config = self.start, self.config
        _check_normalization(start.architecture, len(samples))
        callbacks = config.callbacks if index == 0 else of_every_training(config.callbacks)
        config = replace(config, seed=config.seed + index, verbose=config.verbose if index == 0 else 0)
        size = basis_size(start.architecture.n_components)
        in_basis = self._may_use_basis(config) and WIDE * size < samples.shape[1] and size < len(samples)
        in_basis &= not exceeds_memory(len(samples), size)  # the coordinates are held in memory
        # Location and scale are those of all samples, so that they stay what they are in the end.
        n_components = size if in_basis else min(start.architecture.n_components, *samples.shape)
        pca = start.components_at(samples, n_components, self.pca)
        full = start.on(pca.truncated(start.architecture.n_components))
        if not in_basis:
            trainer = Trainer(full, config, samples, valid, callbacks, self.perturbs)
            return Fold(trainer, full, (samples, valid))
        basis = PrincipalBasis(pca)
        (inside, _), (valid_inside, outside) = (basis.coordinates(one) for one in (samples, valid))
        small = basis.network(full, basis.pca_of(inside, start.architecture.n_components), start.seed)
        trainer = Trainer(small, config, inside, valid_inside, callbacks, self.perturbs)
        whole = float(full.scale) ** 2 * samples.shape[1]
        factor = float(small.scale) ** 2 * basis.size / whole
        return Fold(trainer, full, (samples, valid), basis, factor, outside / whole)

    def _may_use_basis(self, config: TrainingConfig) -> bool:
        """Whether training in the basis gives what training on all features gives, sooner."""
        start = self.start
        of_network = start.architecture.kind == "dense" and start.architecture.linear_skip and start.before is None
        of_training = type(config.loss) is SquaredError and not config.regularizers and not config.callbacks
        return of_network and of_training and not start.incomplete and config.optimizer != "lbfgs"

    def run(self) -> None:
        """Train while held-out samples gain, then find out how to take the last steps."""
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
            while n_epochs < most and gain > config.tol and not self._stopped:
                more = min(n_epochs, most - n_epochs)  # the budget doubles
                gain = self._run(more, WEAK)
                n_epochs += more
        self.n_search_epochs = n_epochs
        if self.best is not None and not self._stopped and config.optimizer != "lbfgs":
            self._rehearse()
        for fold in self.folds:
            fold.trainer.end()

    @property
    def _stopped(self) -> bool:
        return self.folds[0].trainer.stopped or self.config.progress.stopped

    def _run(
        self, n_epochs: int, regularization: Regularization, rate_factor: float = 1.0, position: float = 0.0
    ) -> float:
        """Train all folds, compare, and return the gain of the held-out samples; go back where there is none."""
        before = [fold.trainer.weights() for fold in self.folds]
        for index, fold in enumerate(self.folds):
            hooks: Any = (
                {"before_epoch": self.config.progress.epoch_begins, "after_epoch": self._report} if index == 0 else {}
            )
            fold.trainer.run(n_epochs, regularization, rate_factor, position, **hooks)
        losses, prior_weight = self._compare()
        previous = min(self.selector.mean_losses[1:], default=math.inf)
        better = self.selector.update(losses, len(self._curve(self.folds[0].trainer)[0]))
        first = self.folds[0]
        if better:
            self.best = Candidate(first.trainer, first.trainer.weights(), prior_weight, first.basis, first.full)
        gain = previous - self.selector.mean_losses[-1]
        if not gain > 0:
            for fold, weights in zip(self.folds, before, strict=True):
                fold.trainer.set_weights(weights)
        return gain

    def _curve(self, trainer: Trainer) -> tuple[list[float], list[dict]]:
        """Training losses and history so far."""
        return [*self.before[0], *trainer.train_losses], [*self.before[1], *epochs_of(trainer.net)]

    def _compare(self) -> tuple[NDArray, float | None]:
        """Return the losses of the held-out samples, with the weight of the prior that makes them least."""
        candidates = []
        for prior_weight in self.prior_weights:
            losses = np.concatenate([fold.losses(prior_weight) for fold in self.folds])
            candidates.append((float(np.average(losses, weights=self.selector.fractions)), losses, prior_weight))
        _, losses, prior_weight = min(candidates, key=lambda one: one[0] if math.isfinite(one[0]) else math.inf)
        return losses, prior_weight

    def _rehearse(self) -> None:
        """Try the last steps on the samples that train: with weak and strong regularization, or not at all."""
        self._leave_basis()
        n_epochs = max(self._tuning_epochs(self.folds[0].trainer) // 2, 1)
        start, reached, self.tuning = self.selector.mean_losses[0], min(self.selector.mean_losses[1:]), WEAK
        if start - reached > LARGE_GAIN * self.reference:
            return
        self.tuning = None
        with self.config.progress.part("rehearsal", 2 * n_epochs):
            for regularization in (WEAK, STRONG):
                self._run(n_epochs, regularization, TUNING_RATE, 0.5)
                if start - self.selector.mean_losses[-1] > GAIN_LEFT * (start - reached):
                    self.tuning = regularization
                    return
                if self._stopped:
                    return

    def _leave_basis(self) -> None:
        """Go on with networks on all features."""
        for index, fold in enumerate(self.folds):
            trainer = fold.trainer
            if fold.basis is None:
                continue
            if index == 0:
                self.before = self._curve(trainer)
            trainer.end()
            model = fold.basis.expand(trainer.finish(), copy.deepcopy(fold.full))
            config = replace(self.config, seed=self.config.seed + index, verbose=trainer.net.verbose)
            self.folds[index] = Fold(Trainer(model, config, *fold.samples), fold.full, fold.samples)

    def _tuning_epochs(self, trainer: Trainer) -> int:
        """Return the number of epochs of the last steps."""
        n_steps = max(TUNING_FRACTION * self.n_search_epochs * self._batches_of_search, LEAST_TUNING)
        n_epochs = max(round(n_steps / trainer.n_batches), 1)
        return n_epochs if self.config.max_epochs is None else min(n_epochs, self.config.max_epochs)

    @property
    def _batches_of_search(self) -> int:
        return math.ceil(len(self.folds[0].samples[0]) / self.config.batch_size)

    def trained_on_all(self) -> ScaledAutoEncoder:
        """Take the last steps on all samples."""
        best, config = cast(Candidate, self.best), self.config
        model = best.model()
        if self.tuning is None or self._stopped or config.optimizer == "lbfgs":
            return model
        callbacks = of_every_training(config.callbacks)
        trainer = Trainer(model, replace(config, verbose=0), self.start.sample, self.folds[0].samples[1], callbacks)
        n_epochs = self._tuning_epochs(trainer)
        progress = config.progress

        def report() -> bool:
            def result() -> tuple:
                return _finished(trainer.finish(None, best.prior_weight), self.result(), self.start, config)

            progress.epoch_ends(EpochReport(trainer.train_losses[-1], None, None, result))
            return progress.stopped

        with progress.part("tuning", n_epochs):
            trainer.run(n_epochs, self.tuning, TUNING_RATE, 0.5, progress.epoch_begins, report)
        trainer.end()
        return trainer.finish(None, best.prior_weight)

    def _report(self) -> bool:
        """Report an epoch of the first training, and return whether to stop."""
        first, progress = self.folds[0], self.config.progress
        train_losses, _ = self._curve(first.trainer)

        def result() -> tuple:
            candidate = Candidate(
                first.trainer, first.trainer.weights(), self.prior_weights[0], first.basis, first.full
            )
            return _finished(
                candidate.model(), replace(self.result(), best_epoch=len(train_losses)), self.start, self.config
            )

        valid_loss = first.trainer.net.history[-1].get("valid_loss")
        progress.epoch_ends(EpochReport(train_losses[-1], valid_loss, self.selector.best_epoch, result))
        return progress.stopped

    def result(self) -> TrainingResult:
        """Return the history of the search."""
        train_losses, history = self._curve(self.folds[0].trainer)
        scores = [
            1.0 - loss / self.reference if self.reference > 0 else float(loss == 0)
            for loss in self.selector.mean_losses
        ]
        return TrainingResult(self.selector.best_epoch, train_losses, scores, list(self.selector.epochs), history)


def _check_normalization(architecture: Architecture, n_samples: int) -> None:
    """Refuse to normalize over batches where there is but one sample to train on."""
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
    """Keep the network that was found if all samples have a smaller loss than with the start."""
    if config.regularizers or not start.architecture.linear_skip:
        return found, result
    losses = [start.sample.mean(sample_losses(config.loss, one, start.sample)[:, 0]) for one in (found, model)]
    return (found, result) if losses[0] < losses[1] else (model, replace(result, best_epoch=0))


def _effective_sample_size(losses: NDArray, sample: Sample) -> float:
    """Return how many samples of equal weight would share the sum of the losses as evenly as these do."""
    losses = losses if sample.weights is None else losses * sample.weights
    losses = losses if sample.groups is None else np.bincount(sample.groups, losses)
    largest = losses.max(initial=0.0)
    if largest == 0:
        return float(max(len(losses), 1))
    losses = losses / largest  # squares of huge losses would overflow
    return float(losses.sum() ** 2 / np.square(losses).sum())


def _train_whole(
    start: NetworkInitializer, config: TrainingConfig, pca: PrincipalComponents
) -> tuple[ScaledAutoEncoder, TrainingResult]:
    """Train on all samples in one schedule; keep the start if that reconstructs them better."""
    _check_normalization(start.architecture, len(start.sample))
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

    def report() -> bool:
        def result() -> tuple:
            return _finished(trainer.finish(), record(), start, config)

        progress.epoch_ends(EpochReport(trainer.train_losses[-1], None, None, result))
        return progress.stopped

    with progress.part("training", n_epochs):
        trainer.run(n_epochs, STRONG, 1.0 if perturbs else TUNING_RATE, 0.0, progress.epoch_begins, report)
    trainer.end()
    return _better_on_all_samples(trainer.finish(), model, start, record(), config)
