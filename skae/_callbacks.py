"""What happens beside the steps of training: averaging, choosing the epoch, stopping."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback

from skae._layers import learnt_values


class StopTraining(Exception):
    """Ends training early and on purpose, unlike a keyboard interrupt, which ends the program's work."""


class WeightAveraging(Callback):
    """Exponential average of the weights over the steps; it is evaluated instead of the last step.

    Parameters
    ----------
    decay : float
        Weight of the past. The first steps forget faster, lest a short training hang on its start.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_train_begin(self, net, **kwargs) -> None:
        self.parameters_ = learnt_values(net.module_)
        self.average_ = [parameter.detach().clone() for parameter in self.parameters_]
        self.n_steps_ = 0

    @torch.no_grad()
    def on_batch_end(self, net, training: bool = False, **kwargs) -> None:
        if training:
            self.n_steps_ += 1
            decay = min(self.decay, (1 + self.n_steps_) / (10 + self.n_steps_))
            torch._foreach_lerp_(self.average_, self.parameters_, 1.0 - decay)

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the weights of the module and their average."""
        for parameter, average in zip(self.parameters_, self.average_, strict=True):
            parameter.data, average.data = average.data, parameter.data


class Shrinkage(Callback):
    """Takes a share of each weight after every step, whatever the optimizer.

    Attributes
    ----------
    amount : float
        The share; may be changed between steps.
    """

    def __init__(self) -> None:
        self.amount = 0.0

    def on_train_begin(self, net, **kwargs) -> None:
        self.parameters_ = list(net.module_.parameters())

    @torch.no_grad()
    def on_batch_end(self, net, training: bool = False, **kwargs) -> None:
        if training and self.amount > 0:
            torch._foreach_mul_(self.parameters_, 1.0 - self.amount)


class FiniteLoss(Callback):
    """Refuses to go on with a loss that is no number."""

    def on_epoch_end(self, net, **kwargs) -> None:
        for key in ("train_loss", "valid_loss"):
            loss = net.history[-1].get(key, 0.0)
            if not np.isfinite(loss):
                raise ValueError(
                    f"The {key} became {loss} in epoch {len(net.history)}, with lr={net.lr:g}. "
                    "X itself is finite: try a smaller lr, a larger alpha or another optimizer."
                )


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
