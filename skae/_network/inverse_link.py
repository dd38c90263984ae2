"""Inverse links, which map the output of a decoder to probabilities or rates."""

import numpy as np
import torch
from torch import Tensor, nn

from skae._network.layers import fill_buffers
from skae._pca.components import PrincipalComponents

# Minimum distance from 0 and 1 of the mean of a feature at which the logistic function is expanded, and minimum rate,
# as a fraction of the mean rate, for the exponential function. No measurement of this value is recorded.
MIN_MEAN = 0.05


class InverseLink(nn.Module):
    """Logistic or exponential function of the output of a decoder.

    The function has an offset and a slope for each feature such that, for small values, it is approximately the
    identity of standardized samples. Before training it is not applied: values are clipped to the range of the means.

    Parameters
    ----------
    kind : {"sigmoid", "exp"}
        Logistic or exponential function.
    n_features : int
        Number of features.
    dtype : torch.dtype
        Dtype of the values.
    """

    def __init__(self, kind: str, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.kind = kind
        self.on = nn.Buffer(torch.zeros((), dtype=torch.bool))
        self.scale = nn.Buffer(torch.empty((), dtype=dtype))
        self.mean = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.offset = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.slope = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.highest = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.varies = nn.Buffer(torch.empty(n_features, dtype=dtype))

    def init_from_pca(self, pca: PrincipalComponents) -> None:
        """Set the offsets and slopes from statistics of the training samples.

        The offset and slope of a nearly constant feature are limited by `MIN_MEAN`. Constant features are always
        reconstructed as their mean.
        """
        mean, scale, reach = pca.mean, pca.scale, pca.feature_max_abs
        if self.kind == "sigmoid":
            middle, highest = np.clip(mean, MIN_MEAN, 1.0 - MIN_MEAN), np.ones_like(mean)
            offset, slope = np.log(middle / (1.0 - middle)), scale / (middle * (1.0 - middle))
        else:
            middle = np.maximum(mean, MIN_MEAN * (mean.mean() or 1.0))
            offset, slope = np.log(middle), scale / middle
            highest = 2.0 * (mean + reach) + middle  # limits the exponential function
        values = {"mean": mean, "scale": np.array(scale), "offset": offset, "slope": slope, "highest": highest}
        fill_buffers(self, {**values, "varies": reach > 0})

    def within_range(self, means: Tensor) -> Tensor:
        """Clip means in units of the data to their range, which rounding errors may have left."""
        return means.clamp(0.0, 1.0 if self.kind == "sigmoid" else None)

    def forward(self, values: Tensor) -> Tensor:
        """Map the output of the decoder to means, which are standardized like the samples."""
        if not self.on:
            means = self.within_range(torch.addcmul(self.mean, values, self.scale))
        else:
            predictor = torch.addcmul(self.offset, values, self.slope)
            if self.kind == "sigmoid":
                means = torch.sigmoid(predictor)
            else:
                means = torch.minimum(predictor, self.highest.log()).exp()
        return (means - self.mean) / self.scale * self.varies
