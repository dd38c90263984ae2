"""A loss in the unit in which training compares it."""

import numpy as np
import torch
from torch import Tensor, nn

from skae._objectives.losses import Loss, SquaredError


class Criterion(nn.Module):
    """A loss relative to that of the mean as reconstruction, so that learning rates do not depend on units.

    Parameters
    ----------
    loss : Loss
        Of values or samples.
    mean : Tensor of shape (n_features,)
        Subtracted from samples before they came here.
    scale : Tensor
        Divided out of them.
    unit : float, default=1.0
        What the loss is divided by.
    """

    mean: Tensor
    scale: Tensor
    is_squared_error = False

    def __init__(self, loss: Loss, mean: Tensor, scale: Tensor, unit: float = 1.0) -> None:
        super().__init__()
        self.loss = loss
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.unit = unit

    def set_unit(self, samples: Tensor) -> None:
        """Make the loss of the mean of these samples, which are centered and of unit scale, the unit of the loss."""
        self.unit = 1.0
        with torch.no_grad():
            reference = float(self.per_sample(torch.zeros_like(samples), samples).mean())
        self.unit = reference if np.isfinite(reference) and reference > 0 else 1.0

    def per_sample(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Loss of each sample, of shape (n,)."""
        if self.loss.in_data_units:
            x_hat, x = torch.addcmul(self.mean, x_hat, self.scale), torch.addcmul(self.mean, x, self.scale)
            if self.loss.link != "identity":  # rounding must not carry counts below zero
                x = x.clamp(0.0, 1.0) if self.loss.link == "sigmoid" else x.clamp(min=0.0)
        losses = self.loss.elementwise(x_hat, x)
        return (losses if losses.dim() == 1 else losses.mean(dim=1)) / self.unit

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return self.per_sample(x_hat, x).mean()

    def nat(self, n_features: int, fraction: float) -> float:
        """Return what one nat of a sample's likelihood is worth in units of this loss.

        A deviance is in nats itself; any other loss is taken for the squared error of Gaussian noise that has
        PCA's fraction of the variance.
        """
        if self.loss.link != "identity":
            return 1.0 / (n_features * self.unit)
        return 2.0 * fraction / n_features


class PooledSquaredError(nn.Module):
    """Squared error pooled over all features; of samples of unit scale, so a fraction of the training variance.

    PCA minimizes the same, so a network that starts there starts at one minus its explained variance.
    """

    is_squared_error = True
    unit = 1.0

    def per_sample(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Loss of each sample, of shape (n,)."""
        return (x_hat - x).square().mean(dim=1)

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return nn.functional.mse_loss(x_hat, x)

    def nat(self, n_features: int, fraction: float) -> float:
        """Return the loss of one nat of likelihood, for Gaussian noise with PCA's unexplained variance."""
        return 2.0 * fraction / n_features


class OfPresent(nn.Module):
    """A criterion that counts the values that are there: where the target is NaN, the reconstruction is its own target.

    Every loss is least, and flat, where a reconstruction is right, so such a value neither costs nor pulls. Samples are
    divided by the number of all features, so each value weighs the same, whatever else its sample lacks.

    Parameters
    ----------
    criterion : Criterion or PooledSquaredError
        For complete samples.
    """

    def __init__(self, criterion: Criterion | PooledSquaredError) -> None:
        super().__init__()
        self.criterion = criterion
        self.is_squared_error = criterion.is_squared_error

    @property
    def unit(self) -> float:
        """What the loss is divided by."""
        return self.criterion.unit

    @unit.setter
    def unit(self, unit: float) -> None:
        self.criterion.unit = unit

    def per_sample(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Loss of each sample, of shape (n,)."""
        return self.criterion.per_sample(x_hat, torch.where(x.isnan(), x_hat.detach(), x))

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return self.per_sample(x_hat, x).mean()

    def nat(self, n_features: int, fraction: float) -> float:
        """Return what one nat of a sample's likelihood is worth in units of this loss."""
        return self.criterion.nat(n_features, fraction)


AnyCriterion = Criterion | PooledSquaredError | OfPresent


def criterion_of(loss: Loss, mean: Tensor, scale: Tensor, unit: float = 1.0) -> Criterion | PooledSquaredError:
    """Return the criterion of a loss for samples that are centered at this mean and divided by this scale."""
    return PooledSquaredError() if type(loss) is SquaredError else Criterion(loss, mean, scale, unit)
