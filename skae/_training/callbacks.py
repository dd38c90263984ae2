"""Callbacks of skorch that average weights and check the loss."""

from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from skae._network.layers import trainable_state


class StopTraining(Exception):
    """Raised to end training early, unlike a keyboard interrupt, which ends the fit with an error."""


class ExponentialMovingAverage(Callback):
    """Exponential moving average of the weights over the steps, which is evaluated in place of the weights.

    Parameters
    ----------
    decay : float
        Weight of the average so far. It is smaller in the first steps.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.parameters_ = trainable_state(net.module_)
        self.average_ = [parameter.detach().clone() for parameter in self.parameters_]
        self.n_steps_ = 0

    @torch.no_grad()
    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if training:
            self.n_steps_ += 1
            decay = min(self.decay, (1 + self.n_steps_) / (10 + self.n_steps_))
            torch._foreach_lerp_(self.average_, self.parameters_, 1.0 - decay)
            for parameter, average in zip(self.parameters_, self.average_, strict=True):
                if isinstance(parameter, nn.Parameter) and not parameter.requires_grad:
                    average.copy_(parameter)  # it may have changed before it was frozen

    @torch.no_grad()
    def exchange(self) -> None:
        """Swap the weights of the module and their average."""
        for parameter, average in zip(self.parameters_, self.average_, strict=True):
            parameter.data, average.data = average.data, parameter.data


class FiniteLoss(Callback):
    """Raises an error if a loss is infinite or NaN."""

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        for key in ("train_loss", "valid_loss"):
            loss = net.history[-1].get(key, 0.0)
            if not np.isfinite(loss):
                raise ValueError(
                    f"The {key} became {loss} in epoch {len(net.history)}, with lr={net.lr:g}. "
                    "X itself is finite: try a smaller lr, a larger alpha or another optimizer."
                )
