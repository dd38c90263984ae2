"""Containers that return dense arrays when sparse or memory-mapped data are indexed."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

# Data with more than LARGE_SIZE values are not loaded into memory as a whole: they stay in their file. Samples are read
# in blocks of up to BLOCK_VALUES values and shuffled within windows of WINDOW_BLOCKS blocks. The order does not depend
# on the container, so that data in memory and in a file give the same results. No measurement of these values is
# recorded.
LARGE_SIZE = 2**26
BLOCK_VALUES = 2**17
WINDOW_BLOCKS = 64


class WrappedSamples:
    """Base class of samples that are converted when they are indexed.

    A subclass defines `_read`.

    Parameters
    ----------
    X : Samples, sparse matrix or array in a file of shape (n_samples, n_features)
        The data. They are not copied.
    """

    def __init__(self, X: Any) -> None:
        self.X = X

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and number of features."""
        return self.X.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return self.X.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Return the samples, or the samples and features if the key is a pair, as a dense array."""
        return self._read(*key) if isinstance(key, tuple) else self._read(key, slice(None))

    def _read(self, samples: Any, features: slice) -> NDArray:
        """Return some features of some samples as a dense array."""
        raise NotImplementedError


class SparseSamples(WrappedSamples):
    """CSR matrix or array that returns dense arrays when it is indexed."""

    def _read(self, samples: Any, features: slice) -> NDArray:
        return self.X[samples, features].toarray()


class StoredSamples(WrappedSamples):
    """Samples that are read from a memory map or an array of h5py or zarr when they are indexed.

    The last `WINDOW_BLOCKS` blocks that were read for an array of indices are cached, as many as a shuffled epoch needs
    at a time.
    """

    def __init__(self, X: Any) -> None:
        super().__init__(X)
        self._block = lru_cache(WINDOW_BLOCKS)(self._read_block)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values that are returned."""
        return np.dtype(self.X.dtype if self.X.dtype in (np.float32, np.float64) else np.float64)

    def _read(self, samples: Any, features: slice) -> NDArray:
        if isinstance(samples, slice):
            return np.asarray(self.X[samples, features], dtype=self.dtype)
        length, (start, stop, _) = block_length(self.shape[1]), features.indices(self.shape[1])
        blocks = samples // length
        selected = np.empty((len(samples), stop - start), dtype=self.dtype)
        for block in np.unique(blocks):
            positions = np.flatnonzero(blocks == block)
            selected[positions] = self._block(block * length, start, stop)[samples[positions] - block * length]
        return selected

    def _read_block(self, first: int, start: int, stop: int) -> NDArray:
        """Return a copy of some features of a block, because a view of a memory map would be read at every access."""
        return self._read(slice(first, first + block_length(self.shape[1])), slice(start, stop)).copy()


class ScaledSamples(WrappedSamples):
    """Samples whose features are divided by a scale of each when they are indexed.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        The samples. They are not copied.
    scale : ndarray of shape (n_features,)
        Scale of each feature.
    """

    def __init__(self, X: Any, scale: NDArray) -> None:
        super().__init__(X)
        self.scale = scale

    def _read(self, samples: Any, features: slice) -> NDArray:
        return (self.X[samples, features] / self.scale[features]).astype(self.dtype, copy=False)


# X in the rest of the package.
Samples = NDArray | WrappedSamples


def is_large(X: Samples) -> bool:
    """Return whether X has more than `LARGE_SIZE` values and is not loaded into memory as a whole."""
    return exceeds_memory(*X.shape)


def exceeds_memory(n_samples: int, n_features: int) -> bool:
    """Return whether a table of this shape has more than `LARGE_SIZE` values, too many to be held in memory."""
    return n_samples * n_features > LARGE_SIZE


def block_length(n_features: int) -> int:
    """Return the number of samples per block, which are read together."""
    return max(BLOCK_VALUES // n_features, 1)


def lies_in_file(X: Any) -> bool:
    """Return whether X is read from a file when it is indexed: a memory map, or an array of h5py or zarr."""
    return isinstance(X, np.memmap) or (hasattr(X, "chunks") and hasattr(X, "dtype") and hasattr(X, "shape"))


def as_samples(X: Any) -> Any:
    """Wrap X in `SparseSamples` if it is sparse; return other data unchanged."""
    return SparseSamples(X) if scipy.sparse.issparse(X) else X


def chunks_of(X: Samples, n_values: int) -> Iterator[slice]:
    """Generate slices of consecutive samples with up to ``n_values`` values, but at least one sample."""
    n_samples = max(n_values // max(X.shape[1], 1), 1)
    return (slice(first, first + n_samples) for first in range(0, X.shape[0], n_samples))


def map_chunks(function: Callable[[NDArray], NDArray], X: Samples, n_values: int) -> NDArray:
    """Apply a function to up to ``n_values`` values of consecutive samples at a time, and concatenate the results."""
    results = [function(X[chunk]) for chunk in chunks_of(X, n_values)]
    return np.concatenate(results) if results else function(X[:0])


def extremes(X: Samples) -> NDArray:
    """Compute the minimum and maximum of each feature, ignoring NaN, as an array of shape (2, n_features)."""
    lowest, highest = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    for chunk in chunks_of(X, BLOCK_VALUES):
        samples = X[chunk]
        lowest, highest = np.fmin(lowest, np.fmin.reduce(samples)), np.fmax(highest, np.fmax.reduce(samples))
    return np.stack([lowest, highest])
