"""Description of a network: sizes, kind of layers, inverse link."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
}
# Length of a side of the filters of convolutions.
FILTER_SIDE = 3
# Width of the hidden layer of a custom module that is assumed to estimate its computational cost.
ASSUMED_WIDTH = 256


@dataclass(frozen=True)
class Architecture:
    """Description from which a network can be built, without its weights.

    Attributes
    ----------
    n_features : int
        Number of features of the samples.
    n_components : int
        Number of features of the codes.
    encoder_sizes, decoder_sizes : tuple of int
        Widths of the hidden layers. With ``kind="conv"``, numbers of channels of the convolutions, and the width of a
        dense layer.
    activation : str
        Name of the activation function of the hidden layers.
    linear_skip : bool
        Whether PCA is added to the output of the layers.
    kind : {"pca", "dense", "tied", "conv", "module"}
        Kind of the layers. "pca" has no layers.
    input_shape : tuple of int or None
        Channels, height and width of images, or channels and length of series, with ``kind="conv"``.
    normalization : {None, "batch", "layer"}
        Normalization before each activation.
    dropout : float
        Fraction of the hidden values that are set to zero in training.
    link : {"identity", "sigmoid", "exp"} or tuple
        Inverse link that maps the output of the decoder to means, or the inverse link, columns and numbers of
        categories of each block of columns.
    variational : bool
        Whether the encoder also computes a variance of each code.
    module : class or instance or None
        Custom module, with ``kind="module"``.
    fills : bool
        Whether missing values are imputed.
    module_needs : tuple of str
        Needs of the custom module, as returned by `skae._network.probe.tried_module`.
    n_dropped : int
        Number of codes after the first ``n_components`` that the layers have, and that are zero.
    n_outputs : int
        Number of outputs of a linear function of the codes.
    """

    n_features: int
    n_components: int
    encoder_sizes: tuple[int, ...]
    decoder_sizes: tuple[int, ...]
    activation: str
    linear_skip: bool
    kind: str = "dense"
    input_shape: tuple[int, ...] | None = None
    normalization: str | None = None
    dropout: float = 0.0
    link: str | tuple = "identity"
    variational: bool = False
    module: Any = field(default=None, compare=False)
    fills: bool = False
    module_needs: tuple[str, ...] = field(default=(), compare=False)
    n_dropped: int = 0
    n_outputs: int = 0

    @property
    def bottleneck(self) -> int:
        """Number of codes of the layers."""
        return self.n_components + self.n_dropped

    @property
    def sizes(self) -> str:
        """Widths of all layers, such as "64-256-128-2-128-256-64"."""
        encoder, decoder = (("...",), ("...",)) if self.kind == "module" else (self.encoder_sizes, self.decoder_sizes)
        return "-".join(map(str, (self.n_features, *encoder, self.bottleneck, *decoder, self.n_features)))

    @property
    def n_weights(self) -> int:
        """Number of multiplications per sample, which is estimated for a custom module."""
        linear = 2 * self.n_features * self.bottleneck if self.linear_skip else 0
        if self.kind == "pca":
            return linear
        if self.kind == "module":
            return linear + 2 * self.n_features * ASSUMED_WIDTH
        if self.kind == "conv":
            return linear + self._image_work(self.encoder_sizes) + self._image_work(self.decoder_sizes[::-1])
        encoder = (self.n_features, *self.encoder_sizes, self.bottleneck)
        decoder = (self.bottleneck, *self.decoder_sizes, self.n_features)
        return linear + sum(a * b for sizes in (encoder, decoder) for a, b in pairwise(sizes))

    def _image_work(self, sizes: tuple[int, ...]) -> int:
        """Compute the number of multiplications of convolutions that halve each side, and of the dense layer."""
        *widths, dense = sizes
        shapes = image_shapes(self.input_shape or (1, 1, 1), widths)
        n_taps = FILTER_SIDE ** (len(shapes[0]) - 1)
        convolutions = sum(math.prod(after) * n_taps * before[0] for before, after in pairwise(shapes))
        return convolutions + (math.prod(shapes[-1]) + self.bottleneck) * dense

    @property
    def gated(self) -> bool:
        """Whether the output of the layers is multiplied by a gate, because its initial value is not zero."""
        return self.linear_skip and self.kind in ("tied", "module")


def automatic_sizes(n_features: int, n_components: int) -> tuple[int, int]:
    """Return the default hidden layer sizes of the encoder: 256 and 128, or more for many components."""
    last = max(128, min(2 * n_components, (n_features + n_components) // 2))
    return max(256, min(2 * last, n_features)), last


def image_shapes(image: tuple[int, ...], widths: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the channels and sides of an image or series before and after convolutions that halve sides, rounded up.

    Parameters
    ----------
    image : tuple of int
        Channels and sides.
    widths : sequence of int
        Number of channels of each convolution.
    """
    shapes = [image]
    for width in widths:
        shapes.append((width, *(math.ceil(side / 2) for side in shapes[-1][1:])))
    return shapes
