"""Layers and stacks of them, and the description from which they are built."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

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
# Width that a user's own network is taken to have where only the cost of a row is asked for.
ASSUMED_WIDTH = 256


@dataclass(frozen=True)
class Architecture:
    """What has to be known to build a network before its weights are filled in.

    Attributes
    ----------
    n_features, n_components : int
        Columns of the rows and of the codes.
    encoder_sizes, decoder_sizes : tuple of int
        Widths of the hidden layers; of images, the channels of convolutions and the width of one dense layer.
    activation : str
        Between the layers.
    linear_skip : bool
        Whether PCA runs beside the stacks.
    kind : {"pca", "dense", "tied", "conv", "module"}
        How the stacks are built; "pca" has none, because none could improve on PCA.
    input_shape : tuple of int or None
        Channels, height and width of the images that rows are.
    normalization : {None, "batch", "layer"}
        Before each activation.
    dropout : float
        Share of hidden values that is dropped while training.
    link : {"identity", "sigmoid", "exp"}
        Makes means of what the decoder computes.
    variational : bool
        Whether a code comes with a variance.
    module : class or instance or None
        The user's own network.
    fills : bool
        Whether values may be missing.
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

    @property
    def sizes(self) -> str:
        """Widths from the input to the output, in short."""
        own = self.kind == "module"
        encoder, decoder = (("...",), ("...",)) if own else (self.encoder_sizes, self.decoder_sizes)
        return "-".join(map(str, (self.n_features, *encoder, self.n_components, *decoder, self.n_features)))

    @property
    def n_weights(self) -> int:
        """Number of multiplications that one row costs; a guess for a user's own network."""
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


class Directions(Protocol):
    """What a network has to know of the training rows to begin as their PCA; all arrays in data units."""

    @property
    def mean(self) -> NDArray: ...

    @property
    def scale(self) -> float: ...

    @property
    def column_scale(self) -> NDArray: ...

    @property
    def column_reach(self) -> NDArray: ...

    @property
    def components(self) -> NDArray: ...

    @property
    def explained_variance(self) -> NDArray: ...

    @property
    def code_reach(self) -> NDArray: ...

    @property
    def share_present(self) -> float: ...


def automatic_sizes(n_features: int, n_components: int) -> tuple[int, int]:
    """Two hidden widths that shrink towards the bottleneck: 256 and 128, more for a wide bottleneck."""
    last = max(128, min(2 * n_components, (n_features + n_components) // 2))
    return max(256, min(2 * last, n_features)), last


class SeededDropout(nn.Module):
    """Drops hidden values while training, by a generator of its own, so that threads cannot disturb each other.

    Parameters
    ----------
    share : float
        Of the values that are dropped; the others grow to make up for it.

    Attributes
    ----------
    generator : torch.Generator or None
        On the device of the values; None is torch's global one.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, some of them zero while training."""
        if not self.training:
            return values
        kept = torch.empty_like(values).bernoulli_(1.0 - self.share, generator=self.generator)
        return values * kept.div_(1.0 - self.share)


def dense_stack(sizes: Sequence[int], architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    """Stack dense layers of the given sizes, their weights unset, with what belongs between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        # An ordinary layer would draw its weights from torch's global generator.
        layers.append(nn.utils.skip_init(nn.Linear, n_in, n_out, dtype=dtype))
        layers += between(n_out, architecture, dtype)
    layers.append(nn.utils.skip_init(nn.Linear, *sizes[-2:], dtype=dtype))
    return nn.Sequential(*layers)


def between(width: int, architecture: Architecture, dtype: torch.dtype, images: bool = False) -> list[nn.Module]:
    """What stands between two layers: normalisation, the activation, dropout."""
    layers: list[nn.Module] = []
    if architecture.normalization == "batch":
        layers.append((nn.BatchNorm2d if images else nn.BatchNorm1d)(width, dtype=dtype))
    elif architecture.normalization == "layer":
        layers.append(nn.GroupNorm(1, width, dtype=dtype) if images else nn.LayerNorm(width, dtype=dtype))
    layers.append(ACTIVATIONS[architecture.activation]())
    if architecture.dropout > 0:
        layers.append(SeededDropout(architecture.dropout))
    return layers


class TiedDecoder(nn.Module):
    """The mirror of a dense encoder: its weights transposed, with biases of its own.

    Parameters
    ----------
    encoder : nn.Sequential
        Whose weights are shared.
    architecture : Architecture
        What stands between the layers.
    dtype : torch.dtype
        Of the biases.
    """

    def __init__(self, encoder: nn.Sequential, architecture: Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        # In a list, lest the encoder's weights count twice.
        self._layers = [[layer for layer in encoder if isinstance(layer, nn.Linear)][::-1]]
        widths = [layer.in_features for layer in self._layers[0]]
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width, dtype=dtype)) for width in widths)
        self.between = nn.ModuleList(nn.Sequential(*between(width, architecture, dtype)) for width in widths[:-1])

    def forward(self, z: Tensor) -> Tensor:
        """Map codes back."""
        for layer, bias, *rest in zip(self._layers[0], self.biases, [*self.between, nn.Identity()], strict=True):
            z = rest[0](nn.functional.linear(z, layer.weight.T, bias))
        return z


def weighty(stack: nn.Module) -> list[nn.Module]:
    """The layers of a stack that have a matrix or filters as weights, in their order."""
    return [layer for layer in stack.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]


def last_layer(stack: nn.Module) -> Any:
    """The layer that makes the output."""
    return weighty(stack)[-1]


@torch.no_grad()
def draw_weights(layers: Iterable[nn.Module], generator: torch.Generator) -> None:
    """Draw uniform weights of variance one over the number of inputs, the same in each precision, and zero biases."""
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            n_inputs: float = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):  # each output sees a share of the filter
                n_inputs = layer.weight[:, 0].numel() / (layer.stride[0] * layer.stride[1])
            bound = (3.0 / n_inputs) ** 0.5
            weight = torch.empty_like(layer.weight, dtype=torch.float32)
            layer.weight.copy_(weight.uniform_(-bound, bound, generator=generator))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def learnt_values(module: nn.Module) -> list[Tensor]:
    """Everything that training changes: the parameters, and the running statistics of normalising layers."""
    running = [
        statistic
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for statistic in (layer.running_mean, layer.running_var)
        if statistic is not None
    ]
    return [*module.parameters(), *running]


def fill_buffers(module: nn.Module, values: dict[str, NDArray]) -> None:
    """Copy arrays into the buffers of these names."""
    for name, value in values.items():
        module.get_buffer(name).copy_(torch.as_tensor(value))
