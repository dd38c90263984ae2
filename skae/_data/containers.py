"""Containers that return dense arrays when sparse or memory-mapped data are indexed."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import gen_batches

# Data with more than LARGE_SIZE values are not loaded into memory as a whole: they stay in their file. Samples are read
# in blocks of up to BLOCK_VALUES values and shuffled within windows of WINDOW_BLOCKS blocks. The order does not depend
# on the container, so that data in memory and in a file give the same results. No measurement of these values is
# recorded.
LARGE_SIZE = 2**26
BLOCK_VALUES = 2**17
WINDOW_BLOCKS = 64


class Samples(Protocol):
    """Protocol of X in the rest of the package; a NumPy array satisfies it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> NDArray: ...


class SparseSamples:
    """Sparse matrix that returns dense arrays when it is indexed.

    Parameters
    ----------
    matrix : CSR matrix or array of shape (n_samples, n_features)
        The data. They are not copied.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and number of features."""
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values."""
        return self.matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Return the samples, or the samples and features if the key is a pair, as a dense array."""
        samples, features = key if isinstance(key, tuple) else (key, None)
        selected = self.matrix[samples]
        return (selected if features is None else selected[:, features]).toarray()

    def gather(self, samples: NDArray, out: NDArray) -> None:
        """Copy samples into an array.

        Parameters
        ----------
        samples : ndarray of int of shape (n,)
            Indices of the samples.
        out : ndarray of shape (n, n_features)
            Where they are written.
        """
        self.matrix[samples].toarray(out=out)


class StoredSamples:
    """Samples that are read from a file when they are indexed.

    The file is a memory map or an array of h5py or zarr. The last `WINDOW_BLOCKS` blocks that were read are cached, as
    many as a shuffled epoch needs at a time.

    Parameters
    ----------
    array : array-like of shape (n_samples, n_features)
        The data. They are not copied.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.dtype = np.dtype(array.dtype if array.dtype in (np.float32, np.float64) else np.float64)
        self._blocks: OrderedDict[int, NDArray] = OrderedDict()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and number of features."""
        return self.array.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Return the samples, or the samples and features if the key is a pair, as a dense array."""
        samples, features = key if isinstance(key, tuple) else (key, slice(None))
        if isinstance(samples, slice):
            return self._read(samples, features)
        selected = np.empty((len(samples), len(range(*features.indices(self.shape[1])))), dtype=self.dtype)
        for positions, _ in self._by_block(samples):
            span = slice(samples[positions].min(), samples[positions].max() + 1)
            selected[positions] = self._read(span, features)[samples[positions] - span.start]
        return selected

    def gather(self, samples: NDArray, out: NDArray) -> None:
        """Copy samples into an array.

        Parameters
        ----------
        samples : ndarray of int of shape (n,)
            Indices of the samples.
        out : ndarray of shape (n, n_features)
            Where they are written.
        """
        for positions, block in self._by_block(samples):
            out[positions] = self._block(block)[samples[positions] - block * block_length(self.shape[1])]

    def _read(self, samples: slice, features: slice = slice(None)) -> NDArray:
        """Read contiguous samples from the file."""
        return np.asarray(self.array[samples, features], dtype=self.dtype)

    def _by_block(self, samples: NDArray) -> Iterator[tuple[NDArray, int]]:
        """Yield the positions in ``samples`` of the samples of each block, and the index of the block."""
        blocks = samples // block_length(self.shape[1])
        order = np.argsort(blocks, kind="stable")
        for positions in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
            yield positions, int(blocks[positions[0]])

    def _block(self, block: int) -> NDArray:
        """Return a block from the cache, or read it."""
        if block not in self._blocks:
            start = block * block_length(self.shape[1])
            # A copy, because a view of a memory map would be read from the file at every access.
            self._blocks[block] = np.array(self._read(slice(start, start + block_length(self.shape[1]))))
            if len(self._blocks) > WINDOW_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(block)
        return self._blocks[block]


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
    return gen_batches(X.shape[0], max(n_values // max(X.shape[1], 1), 1))


def extremes(X: Samples) -> NDArray:
    """Compute the minimum and maximum of each feature, ignoring NaN.

    Returns
    -------
    ndarray of shape (2, n_features)
        Minima and maxima.
    """
    lowest, highest = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    for chunk in chunks_of(X, BLOCK_VALUES):
        samples = X[chunk]
        lowest, highest = np.fmin(lowest, np.fmin.reduce(samples)), np.fmax(highest, np.fmax.reduce(samples))
    return np.stack([lowest, highest])


def gather(X: Samples, samples: NDArray, out: NDArray) -> None:
    """Copy samples of X into an array.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        The data.
    samples : ndarray of int of shape (n,)
        Indices of the samples.
    out : ndarray of shape (n, n_features)
        C-contiguous array of the dtype of X, where they are written.
    """
    if isinstance(X, np.ndarray):
        # mode="clip" avoids a buffered copy of out. No index is out of bounds.
        np.take(X, samples, axis=0, out=out, mode="clip")
    else:
        X.gather(samples, out)  # type: ignore[attr-defined]
