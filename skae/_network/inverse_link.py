"""Inverse links, which map the output of a decoder to probabilities or rates."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skae._network.layers import fill_buffers
from skae._pca.components import PrincipalComponents

# Minimum distance from 0 and 1 of the mean of a feature at which the logistic function is expanded, and minimum rate,
# as a fraction of the mean rate, for the exponential function. No measurement of this value is recorded.
MIN_MEAN = 0.05
# Minimum probability of a category that is expected before training. No measurement of this value is recorded.
MIN_FREQUENCY = 1e-4


def _parts(values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Split features into consecutive parts, by operations that can be converted to ONNX."""
    return [values[:, stop - size : stop] for size, stop in zip(sizes, accumulate(sizes), strict=True)]


class InverseLink(nn.Module):
    """Logistic or exponential function, or softmax, of the output of a decoder.

    The function has an offset and a slope for each feature such that, for small values, it is approximately the
    identity of standardized samples. Before training it is not applied: values are clipped to the range of the means.

    Parameters
    ----------
    kind : {"sigmoid", "exp", "softmax"}
        Logistic or exponential function, or softmax.
    n_features : int
        Number of features.
    dtype : torch.dtype
        Dtype of the values.
    n_categories : sequence of int, default=()
        Numbers of consecutive features over which the softmax is taken.
    feature_scale : bool, default=False
        Whether samples are divided by a scale of each feature.
    """

    def __init__(
        self,
        kind: str,
        n_features: int,
        dtype: torch.dtype,
        n_categories: tuple[int, ...] = (),
        feature_scale: bool = False,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.n_categories = n_categories
        self.on = nn.Buffer(torch.zeros((), dtype=torch.bool))
        self.scale = nn.Buffer(torch.empty(n_features if feature_scale else (), dtype=dtype))
        self.mean = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.offset = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.slope = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.highest = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.varies = nn.Buffer(torch.empty(n_features, dtype=dtype))

    def init_from_pca(self, pca: PrincipalComponents, columns: Any = slice(None)) -> None:
        """Set the offsets and slopes from statistics of the training samples.

        The offset and slope of a nearly constant feature are limited by `MIN_MEAN`. Constant features are always
        reconstructed as their mean.
        """
        mean, scale, reach = (values if np.ndim(values) == 0 else values[columns] for values in pca.in_data_units)
        if self.kind == "sigmoid":
            middle, highest = np.clip(mean, MIN_MEAN, 1.0 - MIN_MEAN), np.ones_like(mean)
            offset, slope = np.log(middle / (1.0 - middle)), scale / (middle * (1.0 - middle))
        elif self.kind == "softmax":  # the values of a variable sum to zero, so that this is its derivative, too
            highest = np.ones_like(mean)
            offset, slope = np.log(np.maximum(mean, MIN_FREQUENCY)), scale / np.maximum(mean, MIN_MEAN)
        else:
            middle = np.maximum(mean, MIN_MEAN * (mean.mean() or 1.0))
            offset, slope = np.log(middle), scale / middle
            highest = 2.0 * (mean + reach) + middle  # limits the exponential function
        values = {"mean": mean, "scale": scale, "offset": offset, "slope": slope, "highest": highest}
        fill_buffers(self, {**values, "varies": reach > 0})

    def turn(self, on: bool) -> None:
        """Apply the function, or clip only."""
        self.on.fill_(on)

    def within_range(self, means: Tensor) -> Tensor:
        """Clip means in units of the data to their range, which rounding errors may have left."""
        if self.kind != "softmax":
            return means.clamp(0.0, 1.0 if self.kind == "sigmoid" else None)
        tiny = torch.finfo(means.dtype).tiny
        parts = _parts(means.clamp(0.0, 1.0), self.n_categories)
        return torch.cat([part / part.sum(dim=1, keepdim=True).clamp(min=tiny) for part in parts], dim=1)

    def forward(self, values: Tensor) -> Tensor:
        """Map the output of the decoder to means, which are standardized like the samples."""
        if not self.on:
            means = self.within_range(torch.addcmul(self.mean, values, self.scale))
        else:
            predictor = torch.addcmul(self.offset, values, self.slope)
            if self.kind == "sigmoid":
                means = torch.sigmoid(predictor)
            elif self.kind == "softmax":
                parts = _parts(predictor, self.n_categories)
                means = torch.cat([part.softmax(dim=1) for part in parts], dim=1)
            else:
                means = torch.minimum(predictor, self.highest.log()).exp()
        return (means - self.mean) / self.scale * self.varies


class ColumnLinks(nn.Module):
    """Inverse links of blocks of columns.

    Parameters
    ----------
    link : tuple of (str, tuple of int, tuple of int)
        Inverse link, columns and numbers of categories of each block, which together are all features.
    dtype : torch.dtype
        Dtype of the values.
    """

    def __init__(self, link: tuple, dtype: torch.dtype) -> None:
        super().__init__()
        order = np.concatenate([columns for _, columns, _ in link])
        self.columns = [np.array(columns) for _, columns, _ in link]
        self.sizes = [len(columns) for columns in self.columns]
        self.order = nn.Buffer(torch.from_numpy(order), persistent=False)
        self.place = nn.Buffer(torch.from_numpy(np.argsort(order)), persistent=False)
        self.parts = nn.ModuleList(
            nn.Identity() if kind == "identity" else InverseLink(kind, len(columns), dtype, sizes, feature_scale=True)
            for kind, columns, sizes in link
        )

    def init_from_pca(self, pca: PrincipalComponents) -> None:
        """Set the offsets and slopes of all blocks."""
        for part, columns in zip(self.parts, self.columns, strict=True):
            if isinstance(part, InverseLink):
                part.init_from_pca(pca, columns)

    def turn(self, on: bool) -> None:
        """Apply the functions, or clip only."""
        for part in self.parts:
            if isinstance(part, InverseLink):
                part.turn(on)

    def within_range(self, means: Tensor) -> Tensor:
        """Clip means in units of the data to their ranges."""
        parts = _parts(means.index_select(1, self.order), self.sizes)
        clipped = [
            link.within_range(part) if isinstance(link, InverseLink) else part
            for link, part in zip(self.parts, parts, strict=True)
        ]
        return torch.cat(clipped, dim=1).index_select(1, self.place)

    def forward(self, values: Tensor) -> Tensor:
        """Map the output of the decoder to means, which are standardized like the samples."""
        parts = _parts(values.index_select(1, self.order), self.sizes)
        means = [link(part) for link, part in zip(self.parts, parts, strict=True)]
        return torch.cat(means, dim=1).index_select(1, self.place)
