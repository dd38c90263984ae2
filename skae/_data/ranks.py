"""Sums over all samples of a fit, which may be in several processes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Stride between the seeds of the random numbers of two ranks, far more than the number of folds.
SEED_STRIDE = 1_000_003


class Ranks:
    """The processes of a fit, each with some of the samples. This base class is a single process with all of them.

    A subclass for several processes makes each method collective: all processes call it in the same order, and each
    gets the same result.

    Attributes
    ----------
    rank : int
        Number of this process.
    size : int
        Number of processes.
    """

    rank = 0
    size = 1

    def sum(self, values: Any) -> Any:
        """Sum numbers or arrays of one shape over the processes."""
        return values

    def max(self, values: Any) -> Any:
        """Return the maximum of numbers or arrays of one shape over the processes."""
        return values

    def gather(self, values: NDArray) -> NDArray:
        """Concatenate the arrays of all processes, in the order of their numbers."""
        return values

    def first(self, values: Any) -> Any:
        """Return the number or array of the first process, which decides."""
        return values

    def expect(self, n_steps: int, n_values: int, dtype: torch.dtype) -> None:
        """Announce the sums of gradients of an epoch: their number, their length and their dtype."""

    def sum_gradients(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Sum tensors over the processes, and return them as a flat one, which is valid until the next call."""
        return torch.cat([one.flatten() for one in parts])

    def sync(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""

    def stage(self, name: str) -> None:
        """Say what follows, for the error that names where a process was missed."""

    def extremes(self, values: NDArray) -> NDArray:
        """Return the minima and maxima over the processes, of shape (2, n_features)."""
        return np.stack([-self.max(-values[0]), self.max(values[1])])

    def any(self, condition: bool | np.bool) -> bool:
        """Return whether a condition holds in any process."""
        return bool(self.max(int(condition)))

    def of_each(self, number: float) -> NDArray:
        """Return the number of each process, which is an integer or a float in all of them."""
        numbers = np.zeros(self.size, dtype=np.result_type(number))
        numbers[self.rank] = number
        return self.sum(numbers)

    def seed(self, seed: int) -> int:
        """Return a seed of this process for numbers that must differ between processes."""
        return (seed + SEED_STRIDE * self.rank) % 2**31


ALONE = Ranks()
