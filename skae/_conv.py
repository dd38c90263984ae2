"""Convolutional stacks for rows that are images."""

import math
from typing import Any, cast

import torch
from torch import nn

from skae._layers import Architecture, between

# Channels of two convolutions and the width of the dense layer behind them.
DEFAULT_SIZES = (32, 64, 256)
SMALLEST_SIDE = 8


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
        layers += between(n_out, architecture, dtype, images=True)
        channels, height, width = n_out, math.ceil(height / 2), math.ceil(width / 2)
    layers += [nn.Flatten(), nn.utils.skip_init(nn.Linear, channels * height * width, dense, dtype=dtype)]
    layers += between(dense, architecture, dtype)
    return nn.Sequential(*layers, nn.utils.skip_init(nn.Linear, dense, architecture.n_components, dtype=dtype))


def _decoder(architecture: Architecture, dtype: torch.dtype) -> nn.Sequential:
    channels, *sides = cast(tuple[int, int, int], architecture.input_shape)
    dense, *widths = architecture.decoder_sizes
    shapes = [tuple(sides)]
    for _ in widths:
        shapes.append(tuple(math.ceil(side / 2) for side in shapes[-1]))
    small = math.prod(shapes[-1]) * widths[0]
    layers: list[nn.Module] = [nn.utils.skip_init(nn.Linear, architecture.n_components, dense, dtype=dtype)]
    layers += [*between(dense, architecture, dtype), nn.utils.skip_init(nn.Linear, dense, small, dtype=dtype)]
    layers += [*between(small, architecture, dtype), nn.Unflatten(1, (widths[0], *shapes[-1]))]
    for index, n_in in enumerate(widths):
        before, after = shapes[-1 - index], shapes[-2 - index]
        last = index == len(widths) - 1
        n_out = channels if last else widths[index + 1]
        missing = tuple(large - (2 * small - 1) for small, large in zip(before, after, strict=True))
        options: dict[str, Any] = {"stride": 2, "padding": 1, "output_padding": missing, "dtype": dtype}
        layers.append(nn.utils.skip_init(nn.ConvTranspose2d, n_in, n_out, 3, **options))
        layers += [] if last else between(n_out, architecture, dtype, images=True)
    return nn.Sequential(*layers, nn.Flatten())


def check_images(input_shape: tuple[int, ...] | None, n_features: int, encoder: tuple, decoder: tuple) -> None:
    """Refuse rows and layers of which no images and convolutions can be made.

    Raises
    ------
    ValueError
        If the shape is missing, does not hold three sides, does not multiply to the number of features, or has too
        small a side for the number of convolutions.
    """
    if input_shape is None:
        raise ValueError(
            "architecture='conv' needs input_shape=(channels, height, width), because X has one row an image. "
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
