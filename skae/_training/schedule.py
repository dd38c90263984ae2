"""The regularization schedule: noise, augmentation and weight decay of each stage."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RegularizationStage:
    """How hard it is made for a network to learn single samples by heart.

    Attributes
    ----------
    noise : float
        Standard deviation of the noise on what is encoded, in parts of the error that PCA makes.
    displacement : float
        Standard deviation of the steps that samples, and targets with them, take along differences of samples.
    shrinkage : float
        Fraction of each weight that is lost over an epoch.
    """

    noise: float
    difference: float = 0.0
    weight_decay: float = 0.0


# The stages of a training, from coarse to fine. Strong ones find the better optimum, above all for a small
# bottleneck, and are where few samples of many features end; the last is where a table of many samples ends.
STAGES = (RegularizationStage(1.2, 0.2, 0.02), RegularizationStage(0.5, 0.1, 0.005), RegularizationStage(0.5))


class GaussianNoise:
    """Adds normal noise to samples, so that what is learned does not hang on their last details.

    Parameters
    ----------
    std : Tensor of shape (n_features,)
        Standard deviation in each feature, times ``amount``.
    generator : torch.Generator
        On the same device, used by nobody else.

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
    """Moves each sample of a batch along the difference of two others: to where a sample might as well have been.

    Parameters
    ----------
    generator : torch.Generator
        On the device of the samples, used by nobody else.

    Attributes
    ----------
    amount : float
        Standard deviation of the steps, one being the whole difference; may be changed between batches.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator
        self.amount = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """Return the moved samples; x itself where the amount is zero."""
        if self.amount == 0:
            return x
        steps = torch.empty_like(x[:, :1]).normal_(generator=self.generator)
        first, second = (
            torch.randperm(len(x), generator=self.generator, device=self.generator.device) for _ in range(2)
        )
        return torch.addcmul(x, steps, x[first].sub_(x[second]), value=self.amount)
