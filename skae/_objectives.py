"""What training minimises and what disturbs it: each loss one small class with one entry in a table."""

import torch
from torch import Tensor, nn


class SquaredError(nn.Module):
    """Squared error pooled over all columns; of rows of unit scale, so a share of the training variance.

    PCA minimises the same, so a network that starts there starts at one minus its explained variance.
    """

    def per_row(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Loss of each row, of shape (n,)."""
        return (x_hat - x).square().mean(dim=1)

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Mean loss of a batch."""
        return nn.functional.mse_loss(x_hat, x)


LOSSES: dict[str, type[nn.Module]] = {"squared_error": SquaredError}


class GaussianNoise:
    """Adds normal noise to rows, so that what is learnt does not hang on their last details.

    Parameters
    ----------
    std : Tensor of shape (n_features,)
        Standard deviation in each column.
    generator : torch.Generator
        On the same device, used by nobody else.
    """

    def __init__(self, std: Tensor, generator: torch.Generator) -> None:
        self.std = std
        self.generator = generator

    def __call__(self, x: Tensor) -> Tensor:
        """Return x with noise."""
        return torch.addcmul(x, torch.empty_like(x).normal_(generator=self.generator), self.std)
