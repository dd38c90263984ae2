"""The principal directions of rows of which values are missing."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skae._filling import Filling
from skae._linear import PrincipalDirections, principal_directions
from skae._rows import Rows, SparseRows, StoredRows, chunks_of, extremes
from skae._sample import Sample

# Passes until the directions and what is filled in along them agree, at most.
MOST_PASSES = 30
# Change of the explained variance, as a share of all, that is none.
STILL = 1e-4
CHUNK_VALUES = 1_000_000


class FilledRows:
    """Rows whose missing values are filled in when they are asked for.

    Parameters
    ----------
    X : Rows of shape (n_samples, n_features)
        NaN where a value is missing.
    mean : ndarray of shape (n_features,)
        Expected of a value where nothing else is known.
    scale : float, default=1.0
        Unit in which the values are filled in.
    filling : Filling or None, default=None
        What is expected, given the other values of the row; the mean if None.
    """

    def __init__(self, X: Rows, mean: NDArray, scale: float = 1.0, filling: Filling | None = None) -> None:
        self.X = X
        self.mean = mean
        self.scale = scale
        self.filling = filling

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of rows and columns."""
        return self.X.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.X.dtype

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, key) -> NDArray:
        """Return the chosen rows, of a pair of choices some columns of theirs."""
        if isinstance(key, tuple):
            return self[key[0]][:, key[1]]
        rows = self.X[key]
        missing = np.isnan(rows)
        if not missing.any():
            return rows
        if self.filling is None:
            return np.where(missing, self.mean.astype(rows.dtype), rows)
        centred = torch.from_numpy((rows.astype(np.float64) - self.mean) / self.scale)
        expected = self.filling(centred).numpy() * self.scale + self.mean
        return np.where(missing, expected.astype(rows.dtype), rows)


def values_missing(sample: Sample) -> bool:
    """Whether any value is NaN."""
    if isinstance(sample.X, SparseRows):
        return bool(np.isnan(sample.X.matrix.data).any())
    return any(np.isnan(sample[chunk]).any() for chunk in chunks_of(sample, CHUNK_VALUES))


def check_columns(sample: Sample) -> None:
    """Refuse columns without any value."""
    there = np.zeros(sample.shape[1], dtype=bool)
    for chunk in chunks_of(sample, CHUNK_VALUES):
        there |= (~np.isnan(sample[chunk])).any(axis=0)
    empty = np.flatnonzero(~there)
    if len(empty) > 0:
        raise ValueError(
            f"Column {empty[0]} of X has no value at all, nor have {len(empty) - 1} other columns: there is nothing to "
            "learn about it. Drop what is empty, for example with SimpleImputer."
        )


def present(X: Any) -> Any:
    """The values of X that are there, of a sparse X those that it stores, of a file the extremes, as a vector."""
    values = X.matrix.data if isinstance(X, SparseRows) else extremes(X) if isinstance(X, StoredRows) else X
    return values[~np.isnan(values)]


def n_present(X: Rows) -> NDArray:
    """Number of values that each row has, at least one."""
    return np.concatenate([np.maximum((~np.isnan(X[chunk])).sum(axis=1), 1.0) for chunk in chunks_of(X, CHUNK_VALUES)])


def directions_of_incomplete(sample: Sample, n_components: int) -> PrincipalDirections:
    """Find the principal directions of rows with missing values, by filling in and looking again in turn.

    Parameters
    ----------
    sample : Sample of shape (n_rows, n_features)
        NaN where a value is missing.
    n_components : int
        Number of directions, at most ``min(n_rows, n_features)``.

    Returns
    -------
    PrincipalDirections
        Of the rows as they are filled in along these directions.
    """
    mean, share = mean_of_present(sample)
    n_columns = sample.shape[1]
    directions = principal_directions(sample.of(FilledRows(sample.X, mean)), n_components)
    explained = np.zeros(n_components)
    for _ in range(MOST_PASSES):
        directions = replace(directions, share_present=share)
        scale = directions.scale
        change = np.abs(directions.explained_variance / scale**2 - explained).sum() / n_columns
        if change < STILL:
            break
        explained = directions.explained_variance / scale**2
        filling = Filling(n_components, n_columns, torch.float64)
        filling.start_at(directions)
        filled = FilledRows(sample.X, directions.mean, scale, filling)
        directions = principal_directions(sample.of(filled), n_components)
    return replace(directions, share_present=share)


def mean_of_present(sample: Sample) -> tuple[NDArray, float]:
    """Mean of the values that each column has, and the share of values that are there."""
    total, count = np.zeros((2, sample.shape[1]))
    for chunk in chunks_of(sample, CHUNK_VALUES):
        values = sample[chunk]
        total += sample.weighted_sum(np.nan_to_num(values, nan=0.0), chunk)
        count += sample.weighted_sum(~np.isnan(values), chunk)
    # Which rows are held out is a matter of chance: a column without a value among the others is taken for constant.
    return total / np.where(count > 0, count, 1), max(float(count.sum()) / (sample.total * sample.shape[1]), 1e-6)
