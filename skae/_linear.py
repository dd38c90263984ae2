"""The principal directions of X: where every linear path starts."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, svds
from sklearn.utils import gen_batches
from sklearn.utils.extmath import svd_flip

from skae._device import aligned_tensor, threads_for, torch_dtype
from skae._rows import Rows, SparseRows

# Up to this many values X is decomposed itself, to full precision. Above, the Gram matrix of its
# smaller side is summed up over chunks, which costs neither a copy of X nor more than two passes.
EXACT_SIZE = 2_000_000
CHUNK_VALUES = 4_000_000
# Passes that only look at each value take fewer at a time, which stay in the cache.
PASS_VALUES = 300_000
# Columns at a time of the Gram matrix: the larger the less overhead, the smaller the less is computed twice.
GRAM_BLOCK = 128
# A decomposition runs once, a batch thousands of times: it pays to start a second thread later.
WORK_PER_BATCH = 50
# Largest distance of a row from the mean, in parts of the largest number: codes have room above it.
LARGEST_CODE = 1e-3
# The Gram matrix of a sparse X is made up to this many rows and columns; Lanczos iterations take over where both
# are more, and find a small share of the directions at most.
ITERATED_SIDE = 2000
ITERATED_SHARE = 0.1


@dataclass(frozen=True)
class PrincipalDirections:
    """Location, spread and principal directions of some rows.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Mean of each column.
    column_scale : ndarray of shape (n_features,)
        Standard deviation of each column (divisor n).
    components : ndarray of shape (n_components, n_features)
        Orthonormal principal directions, the most important first, signs as in scikit-learn's PCA.
    explained_variance : ndarray of shape (n_components,)
        Variance along each direction (divisor n - 1).
    column_reach : ndarray of shape (n_features,)
        Largest distance from the mean in each column.
    code_reach : ndarray of shape (n_components,)
        Largest distance from the mean along each direction.
    effective_rows : float
        How many rows of equal weight would share the variance as evenly as these do.
    share_present : float
        Share of the values that were not missing.
    """

    mean: NDArray
    column_scale: NDArray
    components: NDArray
    explained_variance: NDArray
    column_reach: NDArray
    code_reach: NDArray
    effective_rows: float
    share_present: float = 1.0

    def padded(self, n_components: int) -> "PrincipalDirections":
        """The same with directions of zeros and of no variance up to a number."""
        missing = n_components - len(self.components)
        return replace(
            self,
            components=np.pad(self.components, ((0, missing), (0, 0))),
            explained_variance=np.pad(self.explained_variance, (0, missing)),
            code_reach=np.pad(self.code_reach, (0, missing)),
        )

    @property
    def scale(self) -> float:
        """Root mean square of the columns' standard deviations; 1 where nothing varies."""
        scale = float(np.sqrt(np.mean(np.square(self.column_scale / self._largest)))) * self._largest
        return scale if scale > 0 else 1.0

    @property
    def _largest(self) -> float:
        return float(self.column_scale.max()) or 1.0

    def residual_share(self, n_samples: int) -> float:
        """Share of the variance of the ``n_samples`` rows that the directions leave unexplained."""
        total = np.mean(np.square(self.column_scale / self.scale)) * len(self.mean)
        explained = np.sum(self.explained_variance / self.scale**2) * (n_samples - 1) / n_samples
        return float(max(1.0 - explained / total, 0.0)) if total > 0 else 0.0


def _row_chunks(n_rows: int, n_columns: int, values: int = PASS_VALUES):
    return gen_batches(n_rows, max(values // max(n_columns, 1), 1))


@dataclass(frozen=True)
class ColumnMoments:
    """Location, spread and reach of the columns of some rows, in float64."""

    mean: NDArray
    scale: NDArray
    reach: NDArray
    effective_rows: float


def column_moments(X: Rows, rows: NDArray | slice = slice(None)) -> ColumnMoments:
    """Measure each column in two passes, without copying X whole.

    Raises
    ------
    ValueError
        If the variance is too large for a floating-point number.
    """
    n_rows = len(X) if isinstance(rows, slice) else len(rows)
    chunks = list(_row_chunks(n_rows, X.shape[1]))
    mean, drift, squares, reach = np.zeros((4, X.shape[1]))
    fourth = 0.0  # sum of the squares of the rows' squared distances
    with np.errstate(over="ignore", invalid="ignore"):
        for chunk in chunks:
            mean += _take(X, rows, chunk).sum(axis=0, dtype=np.float64) / n_rows
        for chunk in chunks:
            centred = _take(X, rows, chunk) - mean
            drift += centred.sum(axis=0)
            np.maximum(reach, np.abs(centred).max(axis=0), out=reach)
            np.square(centred, out=centred)
            squares += centred.sum(axis=0)
            fourth += float(np.square(centred.sum(axis=1)).sum())
        mean += drift / n_rows  # the second pass sees what the first rounded away
        variance = np.maximum(squares / n_rows - np.square(drift / n_rows), 0.0)
        total = variance.sum() * n_rows
    numbers = np.finfo(X.dtype)
    if not np.isfinite(total) or np.linalg.norm(reach / numbers.max) > LARGEST_CODE:
        worst = int(np.argmax(reach))
        raise ValueError(
            f"X is too large: squares of column {worst}, which reaches {reach[worst]:.3g} from its mean, overflow "
            f"float64, or codes overflow {X.dtype}. Rescale X, for example with StandardScaler."
        )
    # What is left of a constant column after rounding is no spread, nor is what cannot be divided by.
    constant = (variance <= np.square(numbers.eps * np.abs(mean))) | (np.sqrt(variance) < numbers.tiny)
    scale = np.where(constant, 0.0, np.sqrt(variance))
    effective_rows = total / fourth * total if np.isfinite(fourth) and fourth > 0 and total > 0 else 1.0
    return ColumnMoments(mean, scale, np.where(constant, 0.0, reach), effective_rows)


def squared_distances(X: Rows, mean: NDArray) -> NDArray:
    """Squared distance of each row from the mean, in float64."""
    chunks = _row_chunks(len(X), X.shape[1])
    return np.concatenate([np.square(X[chunk] - mean).sum(axis=1) for chunk in chunks])


def _take(X: Rows, rows: NDArray | slice, chunk: slice) -> NDArray:
    """Rows ``chunk`` of the rows ``rows`` of X."""
    return X[chunk] if isinstance(rows, slice) else X[rows[chunk]]


def principal_directions(X: Rows, n_components: int, rows: NDArray | None = None) -> PrincipalDirections:
    """Find the leading principal directions of X, or of some of its rows.

    Parameters
    ----------
    X : Rows of shape (n_samples, n_features)
        Finite floating-point data, left as it is.
    n_components : int
        Number of directions, at most ``min(n_rows, n_features)``.
    rows : ndarray of int, default=None
        The rows to look at; all of them if None.

    Returns
    -------
    PrincipalDirections
        In float64 whatever the dtype of X.

    Raises
    ------
    ValueError
        If the variance of a column overflows.
    """
    chosen = slice(None) if rows is None else rows
    moments = column_moments(X, chosen)
    mean = moments.mean
    n_rows = len(X) if rows is None else len(rows)
    largest = float(moments.scale.max()) or 1.0  # unit scale: squares of tiny and huge values stay numbers
    shorter = min(n_rows, X.shape[1])
    # Torch decomposes, not numpy, because its thread count can be held: the last bits depend on it.
    with threads_for(n_rows * X.shape[1] * shorter // WORK_PER_BATCH):
        if n_rows * X.shape[1] <= EXACT_SIZE:
            centred = aligned_tensor((np.asarray(X[chosen], dtype=np.float64) - mean) / largest)
            _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
            variances = singular.square()
        elif isinstance(X, SparseRows) and min(shorter * ITERATED_SHARE, shorter - ITERATED_SIDE) > n_components:
            variances, directions = _iterated(X, chosen, mean, largest, n_components)
        elif X.shape[1] <= n_rows:
            variances, directions = _from_columns(X, chosen, n_rows, mean, largest)
        else:
            variances, directions = _from_rows(X, chosen, n_rows, mean, largest)
        _, components = svd_flip(None, directions[:n_components].numpy(), u_based_decision=False)
        components = np.ascontiguousarray(components)
        code_reach = _code_reach(X, chosen, n_rows, mean, components)
    explained = variances[:n_components].numpy() / max(n_rows - 1, 1) * largest**2
    return PrincipalDirections(
        mean, moments.scale, components, explained, moments.reach, code_reach, moments.effective_rows
    )


def _code_reach(X, rows, n_rows, mean, components):
    """Largest distance from the mean along each direction."""
    centre, directions = mean.astype(X.dtype), aligned_tensor(components.astype(X.dtype)).T
    reach = torch.zeros(len(components), dtype=torch.float64)
    for chunk in _row_chunks(n_rows, X.shape[1]):
        codes = _centred_tensor(_take(X, rows, chunk), centre) @ directions
        reach = torch.maximum(reach, codes.abs().amax(dim=0).double())
    return reach.numpy()


def _from_columns(X, rows, n_rows, mean, largest):
    """Variances and directions out of the n_features x n_features Gram matrix."""
    gram = torch.zeros((X.shape[1], X.shape[1]), dtype=torch.float64)
    centre = mean.astype(X.dtype)
    for chunk in _row_chunks(n_rows, X.shape[1], CHUNK_VALUES):
        _add_lower_triangle(gram, _centred_tensor(_take(X, rows, chunk), centre).div_(largest))
    offset = aligned_tensor((mean - centre) / largest)  # the mean itself rounds in float32
    gram -= n_rows * torch.outer(offset, offset)
    return _descending(gram)


def _centred_tensor(X, centre):
    """Rows less their centre, in memory of torch's own."""
    rows = torch.empty(X.shape, dtype=torch_dtype(X.dtype))
    np.subtract(X, centre, out=rows.numpy())
    return rows


def _add_lower_triangle(gram, rows):
    """Add the rows' products of columns, of which the decomposition reads one triangle: little more than half."""
    for start in range(0, len(gram), GRAM_BLOCK):
        gram[start:, start : start + GRAM_BLOCK] += rows[:, start:].T @ rows[:, start : start + GRAM_BLOCK]


def _from_rows(X, rows, n_rows, mean, largest):
    """Variances and directions out of the n_rows x n_rows Gram matrix, for more columns than rows."""
    gram = torch.zeros((n_rows, n_rows), dtype=torch.float64)
    column_chunks = list(_row_chunks(X.shape[1], n_rows, CHUNK_VALUES))

    def centred(columns):
        return aligned_tensor((np.asarray(X[rows, columns], dtype=np.float64) - mean[columns]) / largest)

    for columns in column_chunks:
        block = centred(columns)
        gram += block @ block.T
    variances, vectors = _descending(gram)
    directions = torch.cat([vectors @ centred(columns) for columns in column_chunks], dim=1)
    # Dividing by the singular values would blow up rounding errors of the directions of no variance.
    orthonormal, triangle = torch.linalg.qr(directions.T)
    return variances, (orthonormal * torch.where(triangle.diagonal() < 0, -1.0, 1.0)).T


def _iterated(X, rows, mean, largest, n_components):
    """Variances and directions out of products with a sparse matrix, which is centred in thought only."""
    matrix = (X.matrix if isinstance(rows, slice) else X.matrix[rows]).astype(np.float64, copy=False)
    n_rows, n_columns = matrix.shape
    if not mean.any() and matrix.count_nonzero() == 0:
        return torch.zeros(n_components, dtype=torch.float64), torch.eye(n_components, n_columns, dtype=torch.float64)
    operator = LinearOperator(
        (n_rows, n_columns),
        matvec=lambda direction: (matrix @ direction.ravel() - mean @ direction.ravel()) / largest,
        rmatvec=lambda codes: (matrix.T @ codes.ravel() - mean * codes.sum()) / largest,
        dtype=np.float64,
    )
    start = np.random.RandomState(0).uniform(-1.0, 1.0, min(n_rows, n_columns))
    _, singular, directions = svds(operator, n_components, v0=start)
    order = np.argsort(-singular)
    return torch.from_numpy(singular[order]).square(), torch.from_numpy(directions[order])


def _descending(gram):
    """Eigenvalues and, row by row, eigenvectors of a Gram matrix, the largest first."""
    variances, vectors = torch.linalg.eigh(gram)
    return variances.flip(0).clamp_(min=0.0), vectors.flip(1).T
