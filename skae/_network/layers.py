"""Dense, tied and convolutional layers, and the initialization of their weights."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._network.architecture import ACTIVATIONS, Architecture, image_shapes

# Default numbers of channels of two convolutions, and width of the dense layer after them. No measurement of these
# values is recorded.
DEFAULT_SIZES = (32, 64, 256)
# Minimum height and width of images, and length of series. Chosen by reasoning.
SMALLEST_SIDE = 8
# Convolution, transposed convolution and batch normalization, by the number of sides: one of series, two of images.
CONVOLUTIONS: dict[int, tuple[type[nn.Module], type[nn.Module], type[nn.Module]]] = {
    1: (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d),
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d),
}


# Whether dense layers are trained by products of oneDNN in single precision, and from how many multiplications on. With
# 256 samples and 64 x 256 to 784 x 256 weights, they take .45 to .65 of the time of those of MKL on a processor of AMD
# with AVX-512, which MKL does not use there. For smaller ones, the calls of `_Product` take more than they save.
HAS_FAST_PRODUCTS = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
LARGE_PRODUCT = 4_000_000


class Linear(nn.Linear):
    """Dense layer that is trained by the faster one of the products that torch has."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        fast = HAS_FAST_PRODUCTS and self.training and len(x) * self.weight.numel() >= LARGE_PRODUCT
        if fast and x.device.type == "cpu" and x.dtype == self.weight.dtype == torch.float32:
            return cast(Tensor, _Product.apply(x, self.weight, self.bias))
        return super().forward(x)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x @ weight.T + bias`` by oneDNN."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


class _Product(torch.autograd.Function):
    """``x @ weight.T + bias`` and its gradients by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (x, weight), (of_x, of_weight, *of_bias) = gradients, ctx.saved_tensors, ctx.needs_input_grad
        product = _Product.apply if torch.is_grad_enabled() else _product  # the first one has derivatives
        return (
            product(gradient, weight.T) if of_x else None,
            product(gradient.T, x.T) if of_weight else None,
            *(gradient.sum(dim=0) if wanted else None for wanted in of_bias),
        )


class SeededDropout(nn.Module):
    """Dropout with a separate random generator, so that results do not depend on other threads.

    Parameters
    ----------
    fraction : float
        Fraction of the values that are set to zero. The others are divided by one minus this fraction.

    Attributes
    ----------
    generator : torch.Generator or None
        Generator on the device of the values. None is the global generator of torch.
    """

    def __init__(self, fraction: float) -> None:
        super().__init__()
        self.fraction = fraction
        self.generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Apply dropout in training mode; return the values unchanged in evaluation mode."""
        if not self.training:
            return values
        kept = torch.empty_like(values).bernoulli_(1.0 - self.fraction, generator=self.generator)
        return values * kept.div_(1.0 - self.fraction)


def dense_stack(sizes: Sequence[int], architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    """Stack dense layers with uninitialized weights, separated by activation blocks."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        # The initialization of a layer would draw its weights from the global generator of torch.
        layers.append(nn.utils.skip_init(Linear, n_in, n_out, dtype=dtype))
        layers += activation_block(n_out, architecture, dtype)
    layers.append(nn.utils.skip_init(Linear, *sizes[-2:], dtype=dtype))
    return nn.Sequential(*layers)


def activation_block(width: int, architecture: Architecture, dtype: torch.dtype, n_sides: int = 0) -> list[nn.Module]:
    """Return the normalization, activation and dropout after a hidden layer, whose output may have sides."""
    layers: list[nn.Module] = []
    if architecture.normalization == "batch":
        layers.append((CONVOLUTIONS[n_sides][2] if n_sides else nn.BatchNorm1d)(width, dtype=dtype))
    elif architecture.normalization == "layer":
        layers.append(nn.GroupNorm(1, width, dtype=dtype) if n_sides else nn.LayerNorm(width, dtype=dtype))
    layers.append(ACTIVATIONS[architecture.activation]())
    if architecture.dropout > 0:
        layers.append(SeededDropout(architecture.dropout))
    return layers


class TiedDecoder(nn.Module):
    """Decoder with the transposed weights of a dense encoder, and separate biases.

    Parameters
    ----------
    encoder : nn.Sequential
        Encoder whose weights are shared.
    architecture : Architecture
        Description of the activation, normalization and dropout between the layers.
    dtype : torch.dtype
        Dtype of the biases.
    """

    def __init__(self, encoder: nn.Sequential, architecture: Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        # A nested list hides the layers from torch, so that the weights of the encoder are not registered twice.
        self._layers = [[layer for layer in encoder if isinstance(layer, nn.Linear)][::-1]]
        widths = [layer.in_features for layer in self._layers[0]]
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(width, dtype=dtype)) for width in widths)
        blocks = (nn.Sequential(*activation_block(width, architecture, dtype)) for width in widths[:-1])
        self.activation_block = nn.ModuleList([*blocks, nn.Identity()])

    def forward(self, z: Tensor) -> Tensor:
        """Map codes to reconstructions."""
        for layer, bias, block in zip(self._layers[0], self.biases, self.activation_block, strict=True):
            z = block(nn.functional.linear(z, layer.weight.T, bias))
        return z


def weight_layers(stack: nn.Module) -> list[Any]:
    """Return the layers of a stack that have a weight matrix or filters, in order."""
    kinds: Any = (nn.Linear, *(kind for one in CONVOLUTIONS.values() for kind in one[:2]))
    return [layer for layer in stack.modules() if isinstance(layer, kinds)]


def last_layer(stack: nn.Module) -> Any:
    """Return the last layer of a stack that has weights."""
    return weight_layers(stack)[-1]


@torch.no_grad()
def draw_weights(layers: Iterable[Any], generator: torch.Generator) -> None:
    """Draw uniform weights with variance 1 / n_inputs, which do not depend on the dtype, and set biases to zero."""
    for layer in layers:
        n_inputs = layer.weight[0].numel()
        if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):  # each output depends on a part of the filter
            n_inputs = layer.weight[:, 0].numel() / math.prod(layer.stride)
        bound = (3.0 / n_inputs) ** 0.5
        weight = torch.empty(layer.weight.shape, dtype=torch.float32, device=generator.device)
        layer.weight.copy_(weight.uniform_(-bound, bound, generator=generator))
        nn.init.zeros_(layer.bias)


def trainable_state(module: nn.Module) -> list[Tensor]:
    """Return the tensors that training changes: the parameters, and the running statistics of batch normalization."""
    running = [
        statistic
        for layer in module.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        for statistic in (layer.running_mean, layer.running_var)
        if statistic is not None
    ]
    return [*module.parameters(), *running]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that require gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def hold_statistics(module: nn.Module) -> None:
    """Set batch normalization to evaluation mode if none of its parameters requires a gradient."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            weights = list(layer.parameters())
            if weights and not trainable(layer):
                layer.eval()


def fill_buffers(module: nn.Module, values: dict[str, NDArray]) -> None:
    """Copy arrays into the buffers of the given names."""
    for name, value in values.items():
        module.get_buffer(name).copy_(torch.as_tensor(value))


def conv_stacks(architecture: Architecture, dtype: torch.dtype) -> tuple[nn.Sequential, nn.Sequential]:
    """Build an encoder of strided convolutions and a dense layer, and a decoder with the layers in reverse order.

    Each convolution halves the sides, rounded up. The output of the decoder has the shape of the input.

    Raises
    ------
    ValueError
        As in `check_images`.
    """
    sizes = architecture.encoder_sizes, architecture.decoder_sizes
    check_images(architecture.input_shape, architecture.n_features, *sizes)
    image = cast(tuple[int, ...], architecture.input_shape)
    return _encoder(image, architecture, dtype), _decoder(image, architecture, dtype)


def _encoder(image: tuple[int, ...], architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    """Build the convolutional encoder."""
    *widths, dense = architecture.encoder_sizes
    shapes, n_sides = image_shapes(image, widths), len(image) - 1
    layers: list[nn.Module] = [nn.Unflatten(1, image)]
    for (n_in, *_), (n_out, *_) in pairwise(shapes):
        layers.append(nn.utils.skip_init(CONVOLUTIONS[n_sides][0], n_in, n_out, 3, stride=2, padding=1, dtype=dtype))
        layers += activation_block(n_out, architecture, dtype, n_sides)
    ends = dense_stack((math.prod(shapes[-1]), dense, architecture.bottleneck), architecture, dtype)
    return nn.Sequential(*layers, nn.Flatten(), *ends)


def _decoder(image: tuple[int, ...], architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    """Build the convolutional decoder."""
    dense, *widths = architecture.decoder_sizes
    shapes = image_shapes(image, widths[::-1])[::-1]
    n_flat, n_sides = math.prod(shapes[0]), len(image) - 1
    layers: list[nn.Module] = [*dense_stack((architecture.bottleneck, dense, n_flat), architecture, dtype)]
    layers += [*activation_block(n_flat, architecture, dtype), nn.Unflatten(1, shapes[0])]
    for small, large in pairwise(shapes):
        missing = [after - (2 * before - 1) for before, after in zip(small[1:], large[1:], strict=True)]
        options: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": missing, "dtype": dtype}
        layers.append(nn.utils.skip_init(CONVOLUTIONS[n_sides][1], small[0], large[0], 3, **options))
        if large != image:
            layers += activation_block(large[0], architecture, dtype, n_sides)
    return nn.Sequential(*layers, nn.Flatten())


def check_images(input_shape: tuple[int, ...] | None, n_features: int, encoder: tuple, decoder: tuple) -> None:
    """Check that samples can be reshaped to images or series, and that these are large enough for the convolutions.

    Parameters
    ----------
    input_shape : tuple of int or None
        Channels, height and width of images, or channels and length of series.
    n_features : int
        Number of features of the samples.
    encoder, decoder : tuple of int
        Numbers of channels of the convolutions, and the width of the dense layer.

    Raises
    ------
    ValueError
        If ``input_shape`` is None, does not have two or three values whose product is the number of features, or is too
        small for the number of convolutions.
    """
    if input_shape is None:
        raise ValueError(
            "architecture='conv' needs input_shape=(channels, height, width), because each sample of X is an image, or "
            f"input_shape=(channels, length) for series. X has n_features={n_features}."
        )
    if len(input_shape) - 1 not in CONVOLUTIONS or min(input_shape) < 1 or math.prod(input_shape) != n_features:
        raise ValueError(
            f"input_shape={input_shape} must be (channels, height, width), or (channels, length) for series, with a "
            f"product of n_features={n_features}."
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
                f"{name}={sizes} must be the channels of 1 to {most} convolutions, each of which halves a side of "
                f"{min(input_shape[1:])}, and the width of a dense layer."
            )
