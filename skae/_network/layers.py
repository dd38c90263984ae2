"""Dense, tied and convolutional layers, and how their weights are initialized."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._network.architecture import ACTIVATIONS, Architecture

# Channels of two convolutions and the width of the dense layer behind them.
DEFAULT_SIZES = (32, 64, 256)
SMALLEST_SIDE = 8


class SeededDropout(nn.Module):
    """Drops hidden values while training, by a generator of its own, so that threads cannot disturb each other.

    Parameters
    ----------
    fraction : float
        Of the values that are dropped; the others grow to make up for it.

    Attributes
    ----------
    generator : torch.Generator or None
        On the device of the values; None is torch's global one.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction
        self.generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, some of them zero while training."""
        if not self.training:
            return values
        kept = torch.empty_like(values).bernoulli_(1.0 - self.fraction, generator=self.generator)
        return values * kept.div_(1.0 - self.fraction)


def dense_stack(sizes: Sequence[int], architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    """Stack dense layers of the given sizes, their weights unset, with what belongs between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        # An ordinary layer would draw its weights from torch's global generator.
        layers.append(nn.utils.skip_init(nn.Linear, n_in, n_out, dtype=dtype))
        layers += activation_block(n_out, architecture, dtype)
    layers.append(nn.utils.skip_init(nn.Linear, *sizes[-2:], dtype=dtype))
    return nn.Sequential(*layers)


def activation_block(
    width: int, architecture: Architecture, dtype: torch.dtype, images: bool = False
) -> list[nn.Module]:
    """Return normalization, activation and dropout, which follow a hidden layer."""
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
        self.activation_block = nn.ModuleList(
            nn.Sequential(*activation_block(width, architecture, dtype)) for width in widths[:-1]
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map codes back."""
        for layer, bias, *rest in zip(
            self._layers[0], self.biases, [*self.activation_block, nn.Identity()], strict=True
        ):
            z = rest[0](nn.functional.linear(z, layer.weight.T, bias))
        return z


def weight_layers(stack: nn.Module) -> list[nn.Module]:
    """Return the layers of a stack that have a weight matrix or filters, in order."""
    return [layer for layer in stack.modules() if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]


def last_layer(stack: nn.Module) -> Any:
    """Return the output layer."""
    return weight_layers(stack)[-1]


@torch.no_grad()
def draw_weights(layers: Iterable[nn.Module], generator: torch.Generator) -> None:
    """Draw uniform weights of variance one over the number of inputs, the same in each precision, and zero biases."""
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            n_inputs: float = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):  # each output sees a fraction of the filter
                n_inputs = layer.weight[:, 0].numel() / (layer.stride[0] * layer.stride[1])
            bound = (3.0 / n_inputs) ** 0.5
            weight = torch.empty_like(layer.weight, dtype=torch.float32)
            layer.weight.copy_(weight.uniform_(-bound, bound, generator=generator))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def trainable_state(module: nn.Module) -> list[Tensor]:
    """Everything that training changes: the parameters, and the running statistics of normalizing layers."""
    running = [
        statistic
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for statistic in (layer.running_mean, layer.running_var)
        if statistic is not None
    ]
    return [*module.parameters(), *running]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def hold_statistics(module: nn.Module) -> None:
    """Keep the running statistics of normalizing layers whose weights are frozen, as in evaluation mode."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            weights = list(layer.parameters())
            if weights and not trainable(layer):
                layer.eval()


def fill_buffers(module: nn.Module, values: dict[str, NDArray]) -> None:
    """Copy arrays into the buffers of these names."""
    for name, value in values.items():
        module.get_buffer(name).copy_(torch.as_tensor(value))


def conv_stacks(architecture: Architecture, dtype: torch.dtype) -> tuple[nn.Sequential, nn.Sequential]:
    """Build an encoder of strided convolutions and a dense layer, and a decoder the other way round.

    Each convolution halves height and width, rounded up; the decoder returns to exactly the sides of the input.
    """
    return _encoder(architecture, dtype), _decoder(architecture, dtype)


def _encoder(architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    channels, height, width = cast(tuple[int, int, int], architecture.input_shape)
    *widths, dense = architecture.encoder_sizes
    layers: list[nn.Module] = [nn.Unflatten(1, (channels, height, width))]
    for n_out in widths:
        layers.append(nn.utils.skip_init(nn.Conv2d, channels, n_out, 3, stride=2, padding=1, dtype=dtype))
        layers += activation_block(n_out, architecture, dtype, images=True)
        channels, height, width = n_out, math.ceil(height / 2), math.ceil(width / 2)
    layers += [nn.Flatten(), nn.utils.skip_init(nn.Linear, channels * height * width, dense, dtype=dtype)]
    layers += activation_block(dense, architecture, dtype)
    return nn.Sequential(*layers, nn.utils.skip_init(nn.Linear, dense, architecture.n_components, dtype=dtype))


def _decoder(architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    channels, *sides = cast(tuple[int, int, int], architecture.input_shape)
    dense, *widths = architecture.decoder_sizes
    shapes = [tuple(sides)]
    for _ in widths:
        shapes.append(tuple(math.ceil(side / 2) for side in shapes[-1]))
    small = math.prod(shapes[-1]) * widths[0]
    layers: list[nn.Module] = [nn.utils.skip_init(nn.Linear, architecture.n_components, dense, dtype=dtype)]
    layers += [*activation_block(dense, architecture, dtype), nn.utils.skip_init(nn.Linear, dense, small, dtype=dtype)]
    layers += [*activation_block(small, architecture, dtype), nn.Unflatten(1, (widths[0], *shapes[-1]))]
    for index, n_in in enumerate(widths):
        before, after = shapes[-1 - index], shapes[-2 - index]
        last = index == len(widths) - 1
        n_out = channels if last else widths[index + 1]
        missing = tuple(large - (2 * small - 1) for small, large in zip(before, after, strict=True))
        options: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": missing, "dtype": dtype}
        layers.append(nn.utils.skip_init(nn.ConvTranspose2d, n_in, n_out, 3, **options))
        layers += [] if last else activation_block(n_out, architecture, dtype, images=True)
    return nn.Sequential(*layers, nn.Flatten())


def check_images(input_shape: tuple[int, ...] | None, n_features: int, encoder: tuple, decoder: tuple) -> None:
    """Refuse samples and layers of which no images and convolutions can be made.

    Raises
    ------
    ValueError
        If the shape is missing, does not hold three sides, does not multiply to the number of features, or has too
        small a side for the number of convolutions.
    """
    if input_shape is None:
        raise ValueError(
            "architecture='conv' needs input_shape=(channels, height, width), because X has one sample an image. "
            f"X has n_features={n_features}."
        )
    if len(input_shape) != 3 or min(input_shape) < 1 or math.prod(input_shape) != n_features:
        raise ValueError(
            f"input_shape={input_shape} must be (channels, height, width) with a product of n_features={n_features}."
        )
    if min(input_shape[1:]) < SMALLEST_SIDE:
        raise ValueError(
            f"input_shape={input_shape} has a side below {SMALLEST_SIDE}, too small for convolutions. "
            "Use architecture='dense'."
        )
    for name, sizes in (("hidden_layer_sizes", encoder), ("decoder_layer_sizes", decoder)):
        most = int(math.log2(min(input_shape[1:])))
        if not 2 <= len(sizes) <= most + 1:
            raise ValueError(
                f"{name}={sizes} must hold the channels of 1 to {most} convolutions, which halve a side of "
                f"{min(input_shape[1:])} each, and the width of a dense layer."
            )
