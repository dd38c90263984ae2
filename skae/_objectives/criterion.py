"""Losses of batches, relative to the loss of the mean."""

import numpy as np
import torch
from torch import Tensor, nn

from skae._objectives.losses import Loss, SquaredError


class AnyCriterion(nn.Module):
    """Base class of criteria, of which a subclass defines `per_sample`.

    Attributes
    ----------
    unit : float
        Unit by which the loss is divided.
    """

    unit = 1.0

    def per_sample(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Compute the loss of each sample, of shape (n,)."""
        raise NotImplementedError

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Compute the mean loss of a batch."""
        return self.per_sample(x_hat, x).mean()

    def nat(self, n_features: int, fraction: float) -> float:
        """Convert one nat of the log-likelihood of a sample to the unit of this loss.

        Deviances are in nats. Other losses are treated as the squared error of Gaussian noise whose variance is the
        one that PCA does not explain.

        Parameters
        ----------
        n_features : int
            Number of features.
        fraction : float
            Fraction of the variance that PCA does not explain.

        Returns
        -------
        float
            The loss that corresponds to one nat.
        """
        return 2.0 * fraction / n_features


class Criterion(AnyCriterion):
    """Mean loss of a batch, divided by the loss of the mean as reconstruction.

    Learning rates and penalties then do not depend on the units of the data.

    Parameters
    ----------
    loss : Loss
        Loss of values or samples.
    mean : Tensor of shape (n_features,)
        Mean that was subtracted from the samples.
    scale : Tensor
        Scale by which the samples, or each of their features, were divided.
    unit : float, default=1.0
        Unit by which the loss is divided.
    """

    mean: Tensor
    scale: Tensor

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
        """Compute the loss of each sample, of shape (n,)."""
        return self.loss.per_sample(x_hat, x, self.mean, self.scale) / self.unit

    def nat(self, n_features: int, fraction: float) -> float:
        """Convert one nat of the log-likelihood of a sample to the unit of this loss, as in `AnyCriterion.nat`."""
        deviance = self.loss.link in ("sigmoid", "exp")
        return 1.0 / (n_features * self.unit) if deviance else super().nat(n_features, fraction)


class PooledSquaredError(AnyCriterion):
    """Mean squared error over all features of standardized samples, as a fraction of the training variance.

    PCA minimizes the same loss, so that training starts at one minus the explained variance ratio of PCA.
    """

    def per_sample(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Compute the loss of each sample, of shape (n,)."""
        return (x_hat - x).square().mean(dim=1)

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Compute the mean loss of a batch."""
        return nn.functional.mse_loss(x_hat, x)


class OfPresent(AnyCriterion):
    """Criterion for targets with missing values, which do not contribute to the loss.

    Where the target is NaN, the reconstruction is compared with itself: there, the loss is minimal and its gradient is
    zero. The loss of a sample is divided by the number of all features, so that the weight of a value does not depend
    on the number of missing values of its sample.

    Parameters
    ----------
    criterion : AnyCriterion
        Criterion for complete samples.
    """

    def __init__(self, criterion: AnyCriterion) -> None:
        super().__init__()
        self.criterion = criterion

    @property
    def unit(self) -> float:
        """Loss of the mean, by which losses are divided."""
        return self.criterion.unit

    @unit.setter
    def unit(self, unit: float) -> None:
        self.criterion.unit = unit

    def per_sample(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Compute the loss of each sample, of shape (n,)."""
        return self.criterion.per_sample(x_hat, torch.where(x.isnan(), x_hat.detach(), x))

    def nat(self, n_features: int, fraction: float) -> float:
        """Convert one nat of the log-likelihood of a sample to the unit of this loss, as in `AnyCriterion.nat`."""
        return self.criterion.nat(n_features, fraction)


def criterion_of(loss: Loss, mean: Tensor, scale: Tensor, unit: float = 1.0) -> AnyCriterion:
    """Return the criterion of a loss for samples that are centered at this mean and divided by this scale."""
    return PooledSquaredError() if type(loss) is SquaredError else Criterion(loss, mean, scale, unit)
