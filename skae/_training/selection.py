"""Split off validation samples, and select the epoch to keep."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from skae._data.sample import Sample


class EpochSelector:
    """Selection of the epoch to keep, by the losses of held-out samples.

    An epoch qualifies if its mean improvement on the start exceeds two standard errors of that mean. Of those that
    qualify, the best one has the largest improvement; if none does, the start is kept.

    Parameters
    ----------
    start_losses : ndarray of shape (n_samples,)
        Loss of each held-out sample at the start, as a fraction of the variance.
    use_standard_error : bool
        Whether standard errors count; otherwise only means are compared.
    sample : Sample
        Weights and groups of the held-out samples. A group are samples that depend on each other, such as copies:
        standard errors are those of sums over groups.

    Attributes
    ----------
    mean_losses : list of float
        Mean loss of the held-out samples at the start and at each comparison.
    epochs : list of int
        Number of epochs before each of these.
    best_epoch : int
        The epoch to keep; 0 is the start.
    best_gain : float
        Mean improvement of that epoch on the start.
    """

    def __init__(
        self,
        start_losses: NDArray,
        use_standard_error: bool,
        sample: Sample,
    ) -> None:
        self.sample = sample
        self.start_losses = start_losses
        self.use_standard_error = use_standard_error
        weights, total = sample.weights, sample.total
        self.fractions = np.full(len(start_losses), 1 / total) if weights is None else weights / total
        self.mean_losses = [self._mean(start_losses)]
        self.epochs = [0]
        self.best_epoch = 0
        self.best_gain = 0.0

    def update(self, losses: NDArray, epoch: int, eligible: bool = True) -> bool:
        """Compare the losses after an epoch, and return whether they are the best so far and it is eligible."""
        self.mean_losses.append(self._mean(losses))
        self.epochs.append(epoch)
        gains = self.start_losses - losses
        mean = self._mean(gains)
        error = self._standard_error(gains - mean) if self.use_standard_error else 0.0
        if not (eligible and mean > 2 * error and mean > self.best_gain):
            return False
        self.best_gain, self.best_epoch = mean, epoch
        return True

    def _standard_error(self, deviations: NDArray) -> float:
        """Compute the standard error of a mean from the deviations."""
        parts = self.sample.sum_of_groups(self.fractions * deviations)
        if self.sample.spans_ranks and self.sample.groups is None:
            return float(np.sqrt(self.sample.ranks.sum(np.square(parts).sum())))
        return float(np.linalg.norm(parts))

    def mean(self, losses: NDArray) -> NDArray:
        """Average losses over the held-out samples."""
        if self.sample.spans_ranks:
            return self.sample.ranks.sum(self.fractions @ losses)
        return np.average(losses, axis=0, weights=self.fractions)

    def _mean(self, values: NDArray) -> float:
        return float(self.mean(values))


@dataclass(frozen=True)
class ValidationSplit:
    """Split into training and held-out samples, which select the epoch.

    Attributes
    ----------
    fraction : float
        Fraction of the samples that is held out at random if the other two are None.
    splits : sequence of pairs of ndarray of int, or None
        Indices of the training samples and of the held-out samples in X, for each fold.
    sample : Sample or None
        Held-out samples that are not in X.
    """

    fraction: float = 0.1
    splits: Sequence[tuple[NDArray, NDArray]] | None = None
    sample: Sample | None = None

    def parts(self, sample: Sample, seed: int, n_folds_used: int) -> list[tuple[Sample, Sample]]:
        """Return the training samples and the held-out samples of each fold."""
        if self.sample is not None:
            return [(sample, self.sample)]
        if self.splits is not None:
            chosen = (map(partial(np.isin, sample.numbers), split) for split in self.splits)
            parts = [tuple(sample.take(np.flatnonzero(mask)) for mask in masks) for masks in chosen]
        else:
            held_out = validation_folds(sample, self.fraction, seed, n_folds_used)
            parts = [(sample.take(complement(len(sample), one)), sample.take(one)) for one in held_out]
        return [(train, valid) for train, valid in parts if train.count > 0 and valid.count > 0]


def validation_folds(sample: Sample, fraction: float, seed: int, n_folds_used: int) -> list[NDArray]:
    """Choose the held-out samples of each fold.

    Consecutive samples are in different folds. If samples are sorted by their distance from the mean, each fold has its
    fraction of outliers.

    Parameters
    ----------
    sample : Sample
        The samples. Those of a group are in one fold; groups with consecutive labels are in different folds.
    fraction : float
        Fraction of the samples in each fold.
    seed : int
        Seed of the random assignment.
    n_folds_used : int
        Largest number of folds that are returned.

    Returns
    -------
    list of ndarray of int
        Sorted positions of the held-out samples. The list is empty if all samples are in one group.
    """
    n_folds = max(round(1 / min(fraction, 1 - fraction)), 2)
    random = np.random.RandomState(seed)
    n_samples, groups, ranks = len(sample), sample.groups, sample.ranks
    n_groups = n_samples if groups is None else int(ranks.max(int(groups.max(initial=0)))) + 1
    fold_of = np.empty(n_groups, dtype=np.min_scalar_type(n_folds))  # saves memory
    for first in range(0, n_groups, n_folds):
        fold_of[first : first + n_folds] = random.permutation(n_folds)[: n_groups - first]
    numbers: list[int] = list(range(n_folds))
    if groups is not None:
        fold_of = fold_of[groups]
        sizes = ranks.sum(np.bincount(fold_of, minlength=n_folds))
        # If a large group were held out, few training samples would be left; if all groups are large, the smallest is.
        most = max(2 * sizes.sum() / n_folds, sizes[sizes > 0].min())
        numbers = [fold for fold in numbers if sizes[fold] <= most]
    count, dealt = sample.count, (np.flatnonzero(fold_of == fold) for fold in numbers)
    sets = itertools.islice((positions for positions in dealt if 0 < ranks.sum(len(positions)) < count), n_folds_used)
    if fraction > 0.5:
        return [complement(n_samples, positions) for positions in itertools.islice(sets, 1)]
    return list(sets)


def complement(n_samples: int, positions: NDArray) -> NDArray:
    """Return all other positions, sorted."""
    mask = np.ones(n_samples, dtype=bool)
    mask[positions] = False
    return np.flatnonzero(mask)
