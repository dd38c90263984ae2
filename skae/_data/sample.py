"""Selection and weighting of samples of X."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skae._data.containers import Samples, WrappedSamples, exceeds_memory
from skae._data.ranks import ALONE, Ranks

# Integer weights are treated as numbers of repetitions up to this mean. Above, repeating samples would take too long.
# No measurement of this value is recorded.
MOST_REPETITIONS = 10
# Range of the weights of partial_fit, in which products of weights neither overflow nor underflow. Chosen by reasoning.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100
# Weights below this fraction of the largest weight are treated as zero, because they do not change any bit of a mean.
# Chosen by reasoning.
NEGLIGIBLE = 1e-30


@dataclass(frozen=True)
class Sample(WrappedSamples):
    """Selection of samples of X, with weights and groups.

    In a fit by several processes, each has a selection of its own samples. `len` and positions are those of the own
    samples; `count`, `total`, `sum` and `mean` are over all processes.

    Attributes
    ----------
    X : Samples of shape (n_samples, n_features)
        All samples. They are not copied.
    indices : ndarray of int of shape (len(self),) or None
        Indices of the selected samples in X, in any order and possibly with repetitions. None selects every sample
        once.
    weights : ndarray of shape (len(self),) or None
        Weights of the selected samples. None gives all the same weight.
    groups : ndarray of int of shape (len(self),) or None
        Labels of groups. Samples of a group stay on the same side of a validation split. None makes each sample a
        group.
    ranks : Ranks
        The processes that have samples, by default this one alone.
    """

    X: Samples
    indices: NDArray | None = None
    weights: NDArray | None = None
    groups: NDArray | None = None
    ranks: Ranks = ALONE

    def __len__(self) -> int:
        return len(self.X) if self.indices is None else len(self.indices)

    def __getitem__(self, key: slice | NDArray) -> NDArray:
        """Return the samples at the given positions of the selection as an array."""
        return self.X[key if self.indices is None else self.indices[key]]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and number of features."""
        return len(self), self.X.shape[1]

    @property
    def numbers(self) -> NDArray:
        """Indices of the selected samples in X."""
        return np.arange(len(self.X)) if self.indices is None else self.indices

    def numbers_at(self, positions: NDArray) -> NDArray:
        """Return the indices in X of the samples at the given positions of the selection."""
        return positions if self.indices is None else self.indices[positions]

    @cached_property
    def count(self) -> int:
        """Number of samples of all processes."""
        return int(self.ranks.sum(len(self)))

    @property
    def full_shape(self) -> tuple[int, int]:
        """Number of samples of all processes, and number of features."""
        return self.count, self.X.shape[1]

    @property
    def spans_ranks(self) -> bool:
        """Whether several processes have samples."""
        return self.ranks.size > 1

    @property
    def stays_in_order(self) -> bool:
        """Whether the samples are too many to be sorted or compared with each other, or in several processes."""
        return self.spans_ranks or exceeds_memory(*self.X.shape)

    @cached_property
    def total(self) -> float:
        """Sum of the weights, which is the number of samples without weights."""
        return self.ranks.sum(len(self) if self.weights is None else float(self.weights.sum()))

    def take(self, positions: NDArray) -> "Sample":
        """Select the samples at the given positions of the selection."""
        weights, groups = (None if one is None else one[positions] for one in (self.weights, self.groups))
        return Sample(self.X, self.numbers_at(positions), weights, groups, self.ranks)

    def of(self, X: Samples) -> "Sample":
        """Apply the selection, weights and groups to other data of the same length."""
        return replace(self, X=X)

    def evenly_spaced(self, n_samples: int) -> NDArray:
        """Return the positions of those of this process among ``n_samples`` samples that are evenly spaced over all."""
        ends = np.cumsum(self.ranks.of_each(len(self)))
        first, count = ends[self.ranks.rank] - len(self), ends[-1]
        chosen = np.linspace(0, count - 1, min(count, n_samples), dtype=int)
        return chosen[(chosen >= first) & (chosen < first + len(self))] - first

    def spread_out(self, n_samples: int) -> NDArray:
        """Return up to ``n_samples`` of the samples, at evenly spaced positions, as an array."""
        return self.ranks.gather(self[self.evenly_spaced(n_samples)])

    def few(self, n_samples: int) -> "Sample":
        """Select up to ``n_samples`` of the samples, at evenly spaced positions, which each process then has."""
        chosen = self.take(self.evenly_spaced(n_samples))
        if not self.spans_ranks:
            return chosen
        weights, groups = (None if one is None else self.ranks.gather(one) for one in (chosen.weights, chosen.groups))
        return Sample(self.ranks.gather(chosen[:]), None, weights, groups)

    def weighted_sum(self, values: NDArray, positions: slice = slice(None)) -> NDArray:
        """Return the weighted sum of values computed for the samples of this process at the given positions."""
        return values.sum(axis=0, dtype=np.float64) if self.weights is None else self.weights[positions] @ values

    def sum(self, values: NDArray) -> NDArray:
        """Return the weighted sum of values computed for all samples."""
        return self.ranks.sum(self.weighted_sum(values))

    def mean(self, values: NDArray) -> NDArray:
        """Return the weighted mean of values computed for all samples."""
        return self.sum(values) / self.total if self.spans_ranks else np.average(values, axis=0, weights=self.weights)

    def sum_of_groups(self, values: NDArray) -> NDArray:
        """Return the sums of values over the samples of each group, or the values of this process without groups."""
        if self.groups is None:
            return values
        n_labels = int(self.ranks.max(int(self.groups.max(initial=0)) + 1))
        return self.ranks.sum(np.bincount(self.groups, values, n_labels).astype(np.float64, copy=False))


def weighted_sample(X: Samples, weights: NDArray | None, ranks: Ranks = ALONE) -> Sample:
    """Select the samples with non-zero weights.

    Samples whose weight is zero or negligible compared to the largest weight are left out. Integer weights are numbers
    of repetitions if the mean over the remaining samples is at most ten. Other weights are divided by their mean.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        All samples.
    weights : ndarray of shape (n_samples,) or None
        Non-negative weights, at least one of which is positive. None gives each sample the weight one.
    ranks : Ranks
        The processes that have samples. If one has weights, all have.

    Returns
    -------
    Sample
        The selected samples, repeated or with their weights.
    """
    if weights is None:
        return Sample(X, ranks=ranks)
    largest = ranks.max(weights.max(initial=0.0))
    used = np.flatnonzero((weights > 0) & (weights >= NEGLIGIBLE * largest))
    chosen = weights[used].astype(np.float64) / largest
    mean = ranks.sum(chosen.sum()) / ranks.sum(len(chosen)) if ranks.size > 1 else chosen.mean()
    if not ranks.any(np.any(weights != np.rint(weights))) and largest * mean <= MOST_REPETITIONS:
        samples, relative = np.repeat(used, weights[used].astype(int)), None
    else:
        samples, relative = used, chosen / mean
        relative = relative if ranks.any(np.any(relative != 1.0)) else None
    return Sample(X, None if np.array_equal(samples, np.arange(len(X))) else samples, relative, ranks=ranks)


def counted_sample(X: Samples, weights: NDArray | None) -> Sample:
    """Select the samples of a chunk with non-zero weights, which are kept unscaled.

    Weights are not divided by their mean, because they are relative to those of other chunks.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        All samples of the chunk.
    weights : ndarray of shape (n_samples,) or None
        Non-negative weights. None gives each sample the weight one.

    Returns
    -------
    Sample
        The selected samples with their weights.

    Raises
    ------
    ValueError
        If a weight is outside the range in which weighted sums over all chunks can be computed.
    """
    if weights is None:
        return Sample(X)
    used = np.flatnonzero(weights)
    extreme = used[(weights[used] < SMALLEST_WEIGHT) | (weights[used] > LARGEST_WEIGHT)]
    if len(extreme) > 0:
        raise ValueError(
            f"sample_weight[{extreme[0]}]={weights[extreme[0]]:.3g} must be 0 or from {SMALLEST_WEIGHT:g} to "
            f"{LARGEST_WEIGHT:g} in partial_fit. Divide all weights by the same number, or use 0."
        )
    return Sample(X, used, weights[used])


def joined(samples: Sequence[Sample]) -> Sample:
    """Concatenate the weights and the groups of several selections, for values computed for their samples.

    Groups of two selections have no labels in common. There are none if no selection has weights or groups.
    """
    ranks = samples[0].ranks
    weights = [sample.weights for sample in samples if sample.weights is not None]
    groups = None
    if any(sample.groups is not None for sample in samples):
        labels = [np.arange(len(sample)) if sample.groups is None else sample.groups for sample in samples]
        n_labels = ranks.max(1 + max(int(one.max(initial=0)) for one in labels))
        groups = np.concatenate([one + np.int64(index * n_labels) for index, one in enumerate(labels)])
        groups = groups if ranks.size > 1 else np.unique(groups, return_inverse=True)[1]
    lengths = np.empty((sum(map(len, samples)), 0))
    return Sample(lengths, None, np.concatenate(weights) if weights else None, groups, ranks)


class Reservoir:
    """Uniform random sample, without replacement, of all samples offered so far, or one that prefers the latest.

    Parameters
    ----------
    n_samples : int
        Maximum number of samples that are kept.
    n_features : int
        Number of features.
    dtype : dtype-like
        Dtype of the samples.
    lifetime : float, default=inf
        Mean number of samples that are offered until a kept one is replaced, at least ``n_samples``. If it is finite,
        the probability that a sample is kept decreases exponentially with the number of later ones.

    Attributes
    ----------
    n_offered : int
        Number of samples offered so far.
    samples : ndarray of shape (n_kept, n_features)
        The samples that are kept.
    weights : ndarray of shape (n_kept,)
        Their weights.

    References
    ----------
    .. [1] J. S. Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software 11 (1985) 37-57.
       :doi:`10.1145/3147.3165`
    .. [2] C. Aggarwal, "On biased reservoir sampling in the presence of stream evolution", VLDB 2006.
    """

    def __init__(self, n_samples: int, n_features: int, dtype: DTypeLike, lifetime: float = np.inf) -> None:
        self.n_samples = n_samples
        self.lifetime = max(lifetime, n_samples)
        self.n_offered = 0
        self.samples = np.zeros((0, n_features), dtype=dtype)
        self.weights = np.zeros(0)

    def __len__(self) -> int:
        return len(self.samples)

    def offer(self, samples: NDArray, weights: NDArray, random: np.random.RandomState) -> None:
        """Add samples while there is space, then let them replace others at random.

        Parameters
        ----------
        samples : ndarray of shape (n, n_features)
            New samples.
        weights : ndarray of shape (n,)
            Their weights, which do not change the probability that they are kept.
        random : RandomState
            Random number generator.
        """
        free = self.n_samples - len(self)
        self.samples = np.concatenate([self.samples, samples[:free]])
        self.weights = np.concatenate([self.weights, weights[:free]])
        rest, rest_weights = samples[free:], weights[free:]
        numbers = self.n_offered + min(free, len(samples)) + np.arange(len(rest))
        positions = (random.uniform(size=len(rest)) * np.minimum(numbers + 1, self.lifetime)).astype(int)
        kept = positions < self.n_samples
        self.samples[positions[kept]], self.weights[positions[kept]] = rest[kept], rest_weights[kept]
        self.n_offered += len(samples)

    @property
    def sample(self) -> Sample:
        """The samples that are kept, with their weights."""
        return Sample(self.samples, weights=None if np.all(self.weights == 1.0) else self.weights)
