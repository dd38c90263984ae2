"""The schedule of a training: learning rate and regularization at each step."""

from dataclasses import dataclass
from typing import Any

import torch
from skorch.callbacks import Callback
from torch import Tensor

from skae._network.layers import trainable

# Fraction of the steps over which the learning rate rises; then it falls linearly to zero.
WARM_UP = 0.05


@dataclass(frozen=True)
class Regularization:
    """Strength of the regularization at the beginning and at the end of a training; it changes linearly.

    Attributes
    ----------
    noise : tuple of float
        Standard deviation of the noise added to what is encoded, relative to the error of PCA.
    difference : tuple of float
        Standard deviation of the steps that samples take along differences of samples, their targets with them.
    weight_decay : tuple of float
        Fraction by which weights shrink in an epoch, whatever the optimizer.
    """

    noise: tuple[float, float]
    difference: tuple[float, float]
    weight_decay: tuple[float, float]


# Of a first training and of the following ones. Mean score on eight cells of seven data sets after runs of 300, 300 and
# 600 steps: .838; with twice the weight decay and noise of 1.2 at the beginning, as in a prototype, .832.
STRONG = Regularization((0.9, 0.3), (0.15, 0.0), (0.03, 0.0))
WEAK = Regularization((0.6, 0.3), (0.15, 0.0), (0.05, 0.0))
# A stream of samples has no end.
CONSTANT = Regularization((0.5, 0.5), (0.0, 0.0), (0.0, 0.0))


class GaussianNoise:
    """Adds normal noise to samples, so that training does not fit their last details.

    Parameters
    ----------
    std : Tensor of shape (n_features,)
        Standard deviation in each feature, times ``amount``.
    generator : torch.Generator
        Generator on the same device, used by nothing else.

    Attributes
    ----------
    amount : float
        May be changed between batches.
    """

    def __init__(self, std: Tensor, generator: torch.Generator) -> None:
        self.std = std
        self.generator = generator
        self.amount = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return x with noise; half of it is drawn and the other half its negative, because drawing takes time."""
        n_drawn = (len(x) + 1) // 2
        drawn = torch.empty_like(x[:n_drawn]).normal_(generator=self.generator)
        noise = torch.cat([drawn, -drawn[: len(x) - n_drawn]])
        return torch.addcmul(x, noise, self.std, value=self.amount)


class DifferenceAugmentation:
    """Moves each sample of a batch along the difference of two others.

    Parameters
    ----------
    generator : torch.Generator
        Generator on the device of the samples, used by nothing else.

    Attributes
    ----------
    amount : float
        Standard deviation of the steps, relative to the whole difference; may be changed between batches.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.amount = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the moved samples; x itself where the amount is zero."""
        if self.amount == 0:
            return x
        steps = torch.empty_like(x[:, :1]).normal_(generator=self.generator)
        # The samples of a batch are in random order, so that neighbors are as good as any others.
        return torch.addcmul(x, steps, x.roll(1, 0).sub_(x.roll(2, 0)), value=self.amount)


class Schedule(Callback):
    """Sets learning rate and regularization before each step, and lets the weights decay after it.

    Parameters
    ----------
    noise : GaussianNoise
        Noise added to what is encoded.
    difference : DifferenceAugmentation
        Augmentation of the samples.
    sets_rate : bool
        Whether the learning rate follows the schedule; otherwise it stays as it is.
    """

    def __init__(self, noise: GaussianNoise, difference: DifferenceAugmentation, sets_rate: bool) -> None:
        self.noise = noise
        self.difference = difference
        self.sets_rate = sets_rate
        self.begin(1, 1, CONSTANT)

    def begin(
        self,
        n_steps: int,
        n_batches: int,
        regularization: Regularization,
        rate_factor: float = 1.0,
        position: float = 0.0,
    ) -> None:
        """Begin a training of some steps.

        Parameters
        ----------
        n_steps : int
            Number of steps.
        n_batches : int
            Number of steps in an epoch.
        regularization : Regularization
            Strength of the regularization.
        rate_factor : float, default=1.0
            Multiplies the learning rate.
        position : float, default=0.0
            Where between its beginning and its end the regularization begins.
        """
        self.n_steps = n_steps
        self.n_batches = n_batches
        self.regularization = regularization
        self.rate_factor = rate_factor
        self.position = position
        self.step = 0
        self.peaks: list[float] = []
        self.decay = 0.0

    def on_batch_begin(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Set the learning rate and the regularization of the next step."""
        if not training:
            return
        done = self.step / self.n_steps
        at = self.position + (1.0 - self.position) * min(self.step / max(self.n_steps - 1, 1), 1.0)
        strengths = self.regularization
        self.noise.amount, self.difference.amount, decay = (
            first + at * (last - first)
            for first, last in (strengths.noise, strengths.difference, strengths.weight_decay)
        )
        self.decay = decay / self.n_batches
        if self.sets_rate:
            groups = net.optimizer_.param_groups
            self.peaks = self.peaks or [group["lr"] for group in groups]
            factor = self.rate_factor * min(1.0, (self.step + 1) / (WARM_UP * self.n_steps)) * max(1.0 - done, 0.0)
            for group, peak in zip(groups, self.peaks, strict=True):
                group["lr"] = peak * factor
        self.step += 1

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Forget which weights are frozen: callbacks may freeze some at the beginning of an epoch."""
        self.weights: list[Tensor] = []

    @torch.no_grad()
    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        """Shrink the weights that are not frozen."""
        if training and self.decay > 0:
            self.weights = self.weights or [*trainable(net.module_)]
            torch._foreach_mul_(self.weights, 1.0 - self.decay)
