"""Split off validation samples, and select the epoch to keep."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from skae._data.sample import Sample


class EpochChoice:
    """Decides which epoch to keep, when to go on to the next stage, and when to stop, from the held-out rows' losses.

    An epoch qualifies if its mean improvement on the start exceeds two standard errors of that mean, so that
    what a few lucky rows suggest does not count. Of those that qualify the best has the largest improvement
    less one standard error; if none does, the start is kept. This is the one place where that is decided.

    Parameters
    ----------
    start_losses : ndarray of shape (n_rows,)
        Loss of each held-out row at the start, as a share of the variance.
    tol : float
        Smallest progress that counts.
    n_iter_no_change : int
        Epochs without progress after which it is time for the next stage, or to stop.
    cautious : bool
        Whether standard errors count; otherwise means alone are compared.
    n_stages : int, default=1
        Number of stages.
    stage_epochs : int, default=0
        Largest number of epochs of a stage that is not the last; 0 sets no limit.
    weights : ndarray of shape (n_rows,), default=None
        How much each held-out row counts; None is equally.
    groups : ndarray of int of shape (n_rows,), default=None
        Labels of rows that depend on each other, such as copies: standard errors are those of sums over groups.

    Attributes
    ----------
    mean_losses : list of float
        Mean loss of the held-out rows, the start's first.
    best_epoch : int
        The epoch to keep; 0 is the start.
    stage_starts : list of int
        Epochs already run when each stage began.
    """

    def __init__(
        self,
        start_losses: NDArray,
        tol: float,
        n_iter_no_change: int,
        cautious: bool,
        n_stages: int = 1,
        stage_epochs: int = 0,
        weights: NDArray | None = None,
        groups: NDArray | None = None,
    ) -> None:
        self.groups = groups
        self.start_losses = start_losses
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.cautious = cautious
        self.n_stages = n_stages
        self.stage_epochs = stage_epochs
        self.shares = np.full(len(start_losses), 1 / len(start_losses)) if weights is None else weights / weights.sum()
        self.mean_losses = [self._mean(start_losses)]
        self.best_epoch = 0
        self.stage_starts = [0]
        self._best, self._reference = 0.0, -math.inf
        self._last_progress = 0

    def consider(self, losses: NDArray, allowed: bool = True) -> bool:
        """Note the losses after one more epoch, and say whether it is the best so far, if it is allowed to be."""
        self.mean_losses.append(self._mean(losses))
        gains = self.start_losses - losses
        mean = self._mean(gains)
        error = self._standard_error(gains - mean) if self.cautious else 0.0
        if mean > self._reference + self.tol:
            self._reference, self._last_progress = mean, self.n_epochs
        if self.stage < self.n_stages - 1 and (self._stalled or self._stage_over):
            self.stage_starts.append(self.n_epochs)
            self._last_progress = self.n_epochs
        if not allowed or mean <= 2 * error or mean - error <= self._best:
            return False
        self._best, self.best_epoch = mean - error, self.n_epochs
        return True

    def _standard_error(self, deviations: NDArray) -> float:
        """Standard error of a mean, from the deviations from it."""
        parts = self.shares * deviations
        return float(np.linalg.norm(parts if self.groups is None else np.bincount(self.groups, parts)))

    def _mean(self, values: NDArray) -> float:
        return float(np.average(values, weights=self.shares))

    @property
    def n_epochs(self) -> int:
        """Epochs considered so far."""
        return len(self.mean_losses) - 1

    @property
    def stage(self) -> int:
        """Stage of the next epoch, from zero."""
        return len(self.stage_starts) - 1

    @property
    def exhausted(self) -> bool:
        """Whether progress has been missing for long enough in the last stage."""
        return self._stalled and self.stage == self.n_stages - 1

    @property
    def _stage_over(self) -> bool:
        return 0 < self.stage_epochs <= self.n_epochs - self.stage_starts[-1]

    @property
    def _stalled(self) -> bool:
        return self.n_epochs - self._last_progress >= self.n_iter_no_change

    def epochs_per_stage(self) -> list[int]:
        """Number of epochs in each stage up to the best one."""
        ends = [*self.stage_starts[1:], self.n_epochs]
        return [max(min(end, self.best_epoch) - start, 0) for start, end in zip(self.stage_starts, ends, strict=True)]


@dataclass(frozen=True)
class ValidationSplit:
    """Which samples are held out from training, to choose the epoch.

    Attributes
    ----------
    fraction : float
        Fraction of the samples, chosen at random, where neither of the others says which.
    splits : sequence of pairs of ndarray of int, or None
        Numbers of the rows of X that train and of those that are held out, for each training.
    sample : Sample or None
        Samples beside those that train.
    """

    fraction: float = 0.1
    splits: Sequence[tuple[NDArray, NDArray]] | None = None
    sample: Sample | None = None

    def parts(self, sample: Sample, seed: int, n_sets: int) -> list[tuple[Sample, Sample]]:
        """Return, for each training, the samples that train and those that are held out."""
        if self.sample is not None:
            return [(sample, self.sample)]
        if self.splits is not None:
            chosen = (map(partial(np.isin, sample.numbers), split) for split in self.splits)
            parts = [tuple(sample.take(np.flatnonzero(mask)) for mask in masks) for masks in chosen]
        else:
            held_out = hold_out(len(sample), self.fraction, seed, n_sets, sample.groups)
            parts = [(sample.take(others(len(sample), one)), sample.take(one)) for one in held_out]
        return [(train, valid) for train, valid in parts if len(train) > 0 and len(valid) > 0]


def hold_out(n_rows: int, fraction: float, seed: int, n_sets: int, groups: NDArray | None = None) -> list[NDArray]:
    """Choose the rows to hold out, one set for each training.

    Neighbours are dealt out to different sets, so that of rows in the order of their distance from the mean each set
    gets its share of wild ones.

    Parameters
    ----------
    n_rows : int
        Number of rows.
    fraction : float
        Share of the rows in each set.
    seed : int
        Deals.
    n_sets : int
        Number of sets wanted; there are at most as many as fractions in the whole.
    groups : ndarray of int of shape (n_rows,), default=None
        Labels from zero of rows that stay in one set; None is one for each row. Neighboring labels are dealt out to
        different sets.

    Returns
    -------
    list of ndarray of int
        Positions, ascending; empty where all rows are in one group.
    """
    n_hands = max(round(1 / min(fraction, 1 - fraction)), 2)
    random = np.random.RandomState(seed)
    n_groups = n_rows if groups is None else int(groups.max()) + 1
    hands = np.empty(n_groups, dtype=np.min_scalar_type(n_hands))  # small: there may be rows in their millions
    for first in range(0, n_groups, n_hands):
        hands[first : first + n_hands] = random.permutation(n_hands)[: n_groups - first]
    numbers: list[int] = list(range(n_hands))
    if groups is not None:
        hands = hands[groups]
        sizes = np.bincount(hands, minlength=n_hands)
        # A group as large as several sets would leave too little to train on; if all are, the smallest set will do.
        most = max(2 * n_rows / n_hands, sizes[sizes > 0].min())
        numbers = [hand for hand in numbers if sizes[hand] <= most]
    dealt = (np.flatnonzero(hands == hand) for hand in numbers)
    sets = itertools.islice((positions for positions in dealt if 0 < len(positions) < n_rows), n_sets)
    if fraction > 0.5:
        return [others(n_rows, positions) for positions in itertools.islice(sets, 1)]
    return list(sets)


def others(n_rows: int, positions: NDArray) -> NDArray:
    """Return all positions but these, ascending."""
    mask = np.ones(n_rows, dtype=bool)
    mask[positions] = False
    return np.flatnonzero(mask)


def automatic_batch_size(n_rows: int) -> int:
    """About twenty steps an epoch, with batches between 32 and 256 rows, a power of two."""
    return int(np.clip(2 ** round(np.log2(n_rows / 20)), 32, 256))


def automatic_patience(n_batches: int) -> int:
    """Epochs to wait for progress: 15 of up to twenty batches, fewer of more batches, since each takes more steps."""
    return math.ceil(15 * min(1.0, (20 / n_batches) ** 0.75))
