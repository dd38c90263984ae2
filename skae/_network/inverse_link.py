"""Map the output of a decoder to means within their range: probabilities and rates."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._network.layers import fill_buffers

# A probability or rate is not taken to be nearer to certain than this, or than this part of the mean rate.
NEAREST_TO_CERTAIN = 0.05


class InverseLink(nn.Module):
    """Makes a mean within its range of what a decoder computes: a probability or a rate.

    The decoder's values are steps from the mean of the training samples; the link is the logistic function or the
    exponential, with offset and slope of a feature such that small steps stay what they are. Before training it is
    off: the values are PCA's, and end at the range. Samples and values are centered and of unit scale.

    Parameters
    ----------
    kind : {"sigmoid", "exp"}
        Which.
    n_features : int
        Number of features.
    dtype : torch.dtype
        Of the values.
    """

    on: Tensor
    mean: Tensor
    scale: Tensor
    offset: Tensor
    slope: Tensor
    highest: Tensor
    varies: Tensor

    def __init__(self, kind: str, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("on", torch.zeros((), dtype=torch.bool))
        self.register_buffer("scale", torch.empty((), dtype=dtype))
        for name in ("mean", "offset", "slope", "highest", "varies"):
            self.register_buffer(name, torch.empty(n_features, dtype=dtype))

    def init_from_pca(self, mean: NDArray, reach: NDArray, scale: float) -> None:
        """Take over location, largest distance from it, and overall scale, all in units of the data.

        A feature that is nearly constant is treated as if it were less so, and one that is constant stays at its mean.
        """
        if self.kind == "sigmoid":
            middle = np.clip(mean, NEAREST_TO_CERTAIN, 1.0 - NEAREST_TO_CERTAIN)
            offset, slope = np.log(middle / (1.0 - middle)), scale / (middle * (1.0 - middle))
            highest = np.ones_like(mean)
        else:
            middle = np.maximum(mean, NEAREST_TO_CERTAIN * (mean.mean() or 1.0))
            offset, slope = np.log(middle), scale / middle
            highest = 2.0 * (mean + reach) + middle  # an exponential must not run away
        values = {"mean": mean, "scale": np.array(scale), "offset": offset, "slope": slope, "highest": highest}
        fill_buffers(self, {**values, "varies": reach > 0})

    def within_range(self, means: Tensor) -> Tensor:
        """Means in units of the data, which rounding may have moved across the border of the range."""
        return means.clamp_(0.0, 1.0 if self.kind == "sigmoid" else None)

    def forward(self, values: Tensor) -> Tensor:
        """Map what the decoder computes to means, centered and of unit scale."""
        if not self.on:
            means = torch.addcmul(self.mean, values, self.scale).clamp(min=0.0)
            means = torch.minimum(means, self.highest) if self.kind == "sigmoid" else means
        else:
            predictor = torch.addcmul(self.offset, values, self.slope)
            if self.kind == "sigmoid":
                means = torch.sigmoid(predictor)
            else:
                means = torch.minimum(predictor, self.highest.log()).exp()
        return (means - self.mean) / self.scale * self.varies
