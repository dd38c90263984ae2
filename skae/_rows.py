"""Rows wherever they lie: an array, or a sparse matrix of which a few rows at a time become dense."""

from typing import Any, Protocol

import numpy as np
import scipy.sparse
from numpy.typing import NDArray


class Rows(Protocol):
    """What the floors above ask of X; an array has it all."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> NDArray: ...


class SparseRows:
    """A sparse matrix whose rows come out dense.

    Parameters
    ----------
    matrix : CSR matrix or array of shape (n_samples, n_features)
        Left as it is.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray:
        """Return the chosen rows, of a pair of choices some columns of theirs, as a dense array."""
        rows, columns = key if isinstance(key, tuple) else (key, None)
        chosen = self.matrix[rows]
        return (chosen if columns is None else chosen[:, columns]).toarray()

    def gather(self, rows: NDArray, out: NDArray) -> None:
        """Write some rows into an array."""
        self.matrix[rows].toarray(out=out)


def as_rows(X: Any) -> Any:
    """Wrap what is sparse; an array stays as it is."""
    return SparseRows(X) if scipy.sparse.issparse(X) else X


def gather(X: Rows, rows: NDArray, out: NDArray) -> None:
    """Write some rows of X into a C-contiguous array of its dtype."""
    if isinstance(X, np.ndarray):
        # The mode spares numpy a buffer; all rows exist.
        np.take(X, rows, axis=0, out=out, mode="clip")
    else:
        X.gather(rows, out)  # type: ignore[attr-defined]
