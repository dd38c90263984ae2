"""Describe a network: sizes, kind of layers, inverse link."""

import math
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
# Values that a filter of a convolution sees in each channel.
FILTER_SIZE = 9
# Width that a user's own network is taken to have where only the cost of a sample is asked for.
ASSUMED_WIDTH = 256


@dataclass(frozen=True)
class Architecture:
    """What has to be known to build a network before its weights are filled in.

    Attributes
    ----------
    n_features, n_components : int
        Features of the samples and of the codes.
    encoder_sizes, decoder_sizes : tuple of int
        Widths of the hidden layers; of images, the channels of convolutions and the width of one dense layer.
    activation : str
        Between the layers.
    linear_skip : bool
        Whether PCA runs beside the stacks.
    kind : {"pca", "dense", "tied", "conv", "module"}
        How the stacks are built; "pca" has none, because none could improve on PCA.
    input_shape : tuple of int or None
        Channels, height and width of the images that samples are.
    normalization : {None, "batch", "layer"}
        Before each activation.
    dropout : float
        Fraction of hidden values that is dropped while training.
    link : {"identity", "sigmoid", "exp"}
        Makes means of what the decoder computes.
    variational : bool
        Whether a code comes with a variance.
    module : class or instance or None
        The user's own network.
    fills : bool
        Whether values may be missing.
    module_needs : tuple of str
        What the user's own network needs besides its weights.
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
    link: str = "identity"
    variational: bool = False
    module: Any = field(default=None, compare=False)
    fills: bool = False
    module_needs: tuple[str, ...] = field(default=(), compare=False)

    @property
    def sizes(self) -> str:
        """Widths from the input to the output, in short."""
        own = self.kind == "module"
        encoder, decoder = (("...",), ("...",)) if own else (self.encoder_sizes, self.decoder_sizes)
        return "-".join(map(str, (self.n_features, *encoder, self.n_components, *decoder, self.n_features)))

    @property
    def n_weights(self) -> int:
        """Number of multiplications that one sample costs; a guess for a user's own network."""
        linear = 2 * self.n_features * self.n_components if self.linear_skip else 0
        if self.kind == "pca":
            return linear
        if self.kind == "module":
            return linear + 2 * self.n_features * ASSUMED_WIDTH
        if self.kind == "conv":
            return linear + self._image_work(self.encoder_sizes) + self._image_work(self.decoder_sizes[::-1])
        encoder = (self.n_features, *self.encoder_sizes, self.n_components)
        decoder = (self.n_components, *self.decoder_sizes, self.n_features)
        return linear + sum(a * b for sizes in (encoder, decoder) for a, b in pairwise(sizes))

    def _image_work(self, sizes: tuple[int, ...]) -> int:
        """Multiplications of convolutions that halve each side, and of the dense layer behind them."""
        channels, *sides = self.input_shape or (1, 1, 1)
        *widths, dense = sizes
        work = 0
        for width in widths:
            sides = [math.ceil(side / 2) for side in sides]
            work += math.prod(sides) * FILTER_SIZE * channels * width
            channels = width
        return work + (math.prod(sides) * channels + self.n_components) * dense

    @property
    def gated(self) -> bool:
        """Whether the stacks start behind a gate, because their last layers cannot start at zero."""
        return self.linear_skip and self.kind in ("tied", "module")


def automatic_sizes(n_features: int, n_components: int) -> tuple[int, int]:
    """Two hidden widths that shrink towards the bottleneck: 256 and 128, more for a wide bottleneck."""
    last = max(128, min(2 * n_components, (n_features + n_components) // 2))
    return max(256, min(2 * last, n_features)), last
