"""Select and weight samples of X."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skae._data.containers import Samples

# Whole numbers are taken for repetitions up to so many a sample on average; above, repeating would cost too much.
MOST_REPETITIONS = 10
# Weights whose squares, times as many samples as anyone has, are floating-point numbers.
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100
# Of the largest weight; below, a sample changes no bit of any mean.
NEGLIGIBLE = 1e-30


@dataclass(frozen=True)
class Sample:
    """Some samples of X.

    Attributes
    ----------
    X : Samples of shape (n_samples, n_features)
        Where the samples lie; left as it is.
    indices : ndarray of int or None
        Numbers of the samples, in an order of their own and with repetitions; None is every sample once.
    weights : ndarray of shape (len(self),) or None
        How much each of them counts beside the others; None is equally.
    groups : ndarray of int of shape (len(self),) or None
        Labels of samples that say the same and stay on one side of a validation split; None is one for each sample.
    """

    X: Samples
    indices: NDArray | None = None
    weights: NDArray | None = None
    groups: NDArray | None = None

    def __len__(self) -> int:
        return len(self.X) if self.indices is None else len(self.indices)

    def __getitem__(self, positions: slice | NDArray) -> NDArray:
        """Return the samples at some positions."""
        return self.X[positions if self.indices is None else self.indices[positions]]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and features."""
        return len(self), self.X.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.X.dtype

    @property
    def numbers(self) -> NDArray:
        """Numbers of the samples in X."""
        return np.arange(len(self.X)) if self.indices is None else self.indices

    @property
    def total(self) -> float:
        """Number of samples, as far as they count."""
        return len(self) if self.weights is None else float(self.weights.sum())

    def first_at(self, numbers: NDArray) -> NDArray:
        """First position of a sample of these numbers or above, where positions ascend with the numbers."""
        return np.minimum(numbers, len(self)) if self.indices is None else np.searchsorted(self.indices, numbers)

    def take(self, positions: NDArray) -> "Sample":
        """The sample of the samples at some positions."""
        indices = positions if self.indices is None else self.indices[positions]
        weights, groups = (None if one is None else one[positions] for one in (self.weights, self.groups))
        return Sample(self.X, indices, weights, groups)

    def of(self, X: Samples) -> "Sample":
        """The same sample of other values."""
        return replace(self, X=X)

    def spread_out(self, n_samples: int) -> NDArray:
        """Up to so many of the samples, evenly spread over the order."""
        return self[np.linspace(0, len(self) - 1, min(len(self), n_samples), dtype=int)]

    def weighted_sum(self, values: NDArray, positions: slice = slice(None)) -> NDArray:
        """Sum of what was computed of the samples at some positions."""
        if self.weights is None:
            return values.sum(axis=0, dtype=np.float64)
        return self.weights[positions] @ values

    def mean(self, values: NDArray) -> NDArray:
        """Mean of what was computed of all samples."""
        return np.average(values, axis=0, weights=self.weights)


def weighted_sample(X: Samples, weights: NDArray | None) -> Sample:
    """Let each sample count as its weight says.

    Samples of weight zero, or next to nothing beside the largest, are left out. Whole numbers are numbers of repetitions,
    up to ten a sample on average; other weights are relative to their mean.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        All samples.
    weights : ndarray of shape (n_samples,) or None
        None below zero, some above; None is one each.
    """
    if weights is None:
        return Sample(X)
    used = np.flatnonzero((weights > 0) & (weights >= NEGLIGIBLE * weights.max()))
    chosen = weights[used].astype(np.float64)
    chosen /= (largest := chosen.max())
    if np.all(weights == np.rint(weights)) and largest * chosen.mean() <= MOST_REPETITIONS:
        samples, relative = np.repeat(used, weights[used].astype(int)), None
    else:
        samples, relative = used, chosen / chosen.mean()
        relative = None if np.all(relative == 1.0) else relative
    return Sample(X, None if np.array_equal(samples, np.arange(len(X))) else samples, relative)


def counted_sample(X: Samples, weights: NDArray | None) -> Sample:
    """Let each sample of a chunk count as its weight says, whatever the mean; samples of weight zero are left out.

    Raises
    ------
    ValueError
        If a weight is so large or so small that no mean could be kept beside the samples of other chunks.
    """
    if weights is None:
        return Sample(X)
    used = np.flatnonzero(weights)
    extreme = used[(weights[used] < SMALLEST_WEIGHT) | (weights[used] > LARGEST_WEIGHT)]
    if len(extreme) > 0:
        raise ValueError(
            f"sample_weight[{extreme[0]}] is {weights[extreme[0]]:.3g}; partial_fit takes 0 and weights from "
            f"{SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}. Divide all weights by the same number, or use 0."
        )
    return Sample(X, used, weights[used])


def groups_over(samples: Sequence[Sample]) -> NDArray | None:
    """Group labels of the samples of several sets, one set after the other; None if each is a group of its own."""
    if all(sample.groups is None for sample in samples):
        return None
    labels, n_labels = [], 0
    for sample in samples:
        of_set = np.arange(len(sample)) if sample.groups is None else np.unique(sample.groups, return_inverse=True)[1]
        labels.append(of_set + n_labels)
        n_labels = int(labels[-1].max(initial=n_labels)) + 1
    return np.concatenate(labels)


def mean_over(samples: Sequence[Sample], values: Sequence[NDArray]) -> float:
    """Mean of what was computed of the samples of several samples."""
    return float(np.average(np.concatenate(values), weights=weights_over(samples)))


def weights_over(samples: Sequence[Sample]) -> NDArray | None:
    """Weights of the samples of several samples, one after the other."""
    weights = [sample.weights for sample in samples if sample.weights is not None]
    return np.concatenate(weights) if weights else None


class Reservoir:
    """A uniform sample of the samples offered so far, without replacement.

    Parameters
    ----------
    n_samples : int
        Most that are kept.
    n_features : int
        Number of features.
    dtype : dtype
        Of the values.

    References
    ----------
    .. [1] J. S. Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software 11 (1985) 37-57.
       :doi:`10.1145/3147.3165`
    """

    def __init__(self, n_samples: int, n_features: int, dtype: DTypeLike) -> None:
        self.n_samples = n_samples
        self.n_offered = 0
        self.samples = np.zeros((0, n_features), dtype=dtype)
        self.weights = np.zeros(0)

    def __len__(self) -> int:
        return len(self.samples)

    def offer(self, samples: NDArray, weights: NDArray, random: np.random.RandomState) -> None:
        """Let samples take the places of others by chance."""
        free = self.n_samples - len(self)
        self.samples = np.concatenate([self.samples, samples[:free]])
        self.weights = np.concatenate([self.weights, weights[:free]])
        rest, its_weights = samples[free:], weights[free:]
        numbers = self.n_offered + min(free, len(samples)) + np.arange(len(rest))
        places = (random.uniform(size=len(rest)) * (numbers + 1)).astype(int)
        stays = places < self.n_samples
        self.samples[places[stays]], self.weights[places[stays]] = rest[stays], its_weights[stays]
        self.n_offered += len(samples)

    @property
    def sample(self) -> Sample:
        """All that are kept."""
        return Sample(self.samples, weights=None if np.all(self.weights == 1.0) else self.weights)
