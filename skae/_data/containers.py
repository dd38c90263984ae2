"""Wrap dense, sparse and memory-mapped data such that slices of samples come out as dense arrays."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.utils import gen_batches

# Above so many values X is never held whole: what lies in a file stays there, and samples are shuffled within windows of
# blocks that lie together. Whatever holds the samples, the same ones follow each other.
LARGE_SIZE = 2**26
BLOCK_VALUES = 2**17
WINDOW_BLOCKS = 64


class Samples(Protocol):
    """What the floors above ask of X; an array has it all."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> NDArray: ...


class SparseSamples:
    """A sparse matrix whose samples come out dense.

    Parameters
    ----------
    matrix : CSR matrix or array of shape (n_samples, n_features)
        Left as it is.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and features."""
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Return the chosen samples, of a pair of choices some features of theirs, as a dense array."""
        samples, features = key if isinstance(key, tuple) else (key, None)
        chosen = self.matrix[samples]
        return (chosen if features is None else chosen[:, features]).toarray()

    def gather(self, samples: NDArray, out: NDArray) -> None:
        """Write some samples into an array."""
        self.matrix[samples].toarray(out=out)


class StoredSamples:
    """Samples of something that reads slices from a file: a memory map, or an array of h5py or zarr.

    The blocks read last are kept, as many as a shuffled pass needs at a time.

    Parameters
    ----------
    array : array-like of shape (n_samples, n_features)
        Numbers; left as it is.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.dtype = np.dtype(array.dtype if array.dtype in (np.float32, np.float64) else np.float64)
        self._blocks: OrderedDict[int, NDArray] = OrderedDict()

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and features."""
        return self.array.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Return the chosen samples, of a pair of choices some features of theirs."""
        samples, features = key if isinstance(key, tuple) else (key, slice(None))
        if isinstance(samples, slice):
            return self._read(samples, features)
        chosen = np.empty((len(samples), len(range(*features.indices(self.shape[1])))), dtype=self.dtype)
        for places, _ in self._places(samples):
            span = slice(samples[places].min(), samples[places].max() + 1)
            chosen[places] = self._read(span, features)[samples[places] - span.start]
        return chosen

    def gather(self, samples: NDArray, out: NDArray) -> None:
        """Write some samples into an array."""
        for places, block in self._places(samples):
            out[places] = self._block(block)[samples[places] - block * block_length(self.shape[1])]

    def _read(self, samples: slice, features: slice = slice(None)) -> NDArray:
        return np.asarray(self.array[samples, features], dtype=self.dtype)

    def _places(self, samples: NDArray) -> Iterator[tuple[NDArray, int]]:
        """For each block, where its samples stand among those asked for, and its number."""
        blocks = samples // block_length(self.shape[1])
        order = np.argsort(blocks, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
            yield places, int(blocks[places[0]])

    def _block(self, block: int) -> NDArray:
        if block not in self._blocks:
            start = block * block_length(self.shape[1])
            # A copy: a view of a memory map would be read again and again.
            self._blocks[block] = np.array(self._read(slice(start, start + block_length(self.shape[1]))))
            if len(self._blocks) > WINDOW_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(block)
        return self._blocks[block]


def is_large(X: Samples) -> bool:
    """Whether X has more values than are held at a time."""
    return X.shape[0] * X.shape[1] > LARGE_SIZE


def block_length(n_features: int) -> int:
    """Samples that are read together."""
    return max(BLOCK_VALUES // n_features, 1)


def lies_in_file(X: Any) -> bool:
    """Whether X is read from a file when it is sliced: a memory map, or an array in chunks."""
    return isinstance(X, np.memmap) or (hasattr(X, "chunks") and hasattr(X, "dtype") and hasattr(X, "shape"))


def as_samples(X: Any) -> Any:
    """Wrap what is sparse; an array stays as it is."""
    return SparseSamples(X) if scipy.sparse.issparse(X) else X


def chunks_of(X: Samples, n_values: int) -> Iterator[slice]:
    """Slices of X of so many values."""
    return gen_batches(X.shape[0], max(n_values // max(X.shape[1], 1), 1))


def extremes(X: Samples) -> NDArray:
    """Smallest and largest value of each feature, of shape (2, n_features); NaN does not count."""
    lowest, highest = np.full(X.shape[1], np.inf), np.full(X.shape[1], -np.inf)
    for chunk in chunks_of(X, BLOCK_VALUES):
        samples = X[chunk]
        lowest, highest = np.fmin(lowest, np.fmin.reduce(samples)), np.fmax(highest, np.fmax.reduce(samples))
    return np.stack([lowest, highest])


def gather(X: Samples, samples: NDArray, out: NDArray) -> None:
    """Write some samples of X into a C-contiguous array of its dtype."""
    if isinstance(X, np.ndarray):
        # The mode spares numpy a buffer; all samples exist.
        np.take(X, samples, axis=0, out=out, mode="clip")
    else:
        X.gather(samples, out)  # type: ignore[attr-defined]
