"""A bounded number of rows that stand for all that have come by."""

import numpy as np
from numpy.typing import DTypeLike, NDArray

from skae._sample import Sample


class Reservoir:
    """A uniform sample of the rows offered so far, without replacement.

    Parameters
    ----------
    n_rows : int
        Most that are kept.
    n_features : int
        Number of columns.
    dtype : dtype
        Of the values.

    References
    ----------
    .. [1] J. S. Vitter, "Random sampling with a reservoir", ACM Transactions on Mathematical Software 11 (1985) 37-57.
       :doi:`10.1145/3147.3165`
    """

    def __init__(self, n_rows: int, n_features: int, dtype: DTypeLike) -> None:
        self.n_rows = n_rows
        self.n_offered = 0
        self.rows = np.zeros((0, n_features), dtype=dtype)
        self.weights = np.zeros(0)

    def __len__(self) -> int:
        return len(self.rows)

    def offer(self, rows: NDArray, weights: NDArray, random: np.random.RandomState) -> None:
        """Let rows take the places of others by chance."""
        free = self.n_rows - len(self)
        self.rows = np.concatenate([self.rows, rows[:free]])
        self.weights = np.concatenate([self.weights, weights[:free]])
        rest, its_weights = rows[free:], weights[free:]
        numbers = self.n_offered + min(free, len(rows)) + np.arange(len(rest))
        places = (random.uniform(size=len(rest)) * (numbers + 1)).astype(int)
        stays = places < self.n_rows
        self.rows[places[stays]], self.weights[places[stays]] = rest[stays], its_weights[stays]
        self.n_offered += len(rows)

    @property
    def sample(self) -> Sample:
        """All that are kept."""
        return Sample(self.rows, weights=None if np.all(self.weights == 1.0) else self.weights)
