"""Layers for images as nodes of a graph, made of gathering and matrix products: those have kernels in float64 too."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from skae._onnx.flow import Flow, Untranslated, linear
from skae._onnx.graph import Graph, array


def unflatten(graph: Graph, flow: Flow, layer: nn.Unflatten) -> Flow:
    """Make images of rows."""
    if layer.dim not in (1, -1) or flow.sides is not None or len(layer.unflattened_size) != 3:
        raise Untranslated(f"the layer {layer}, which makes no images of rows")
    channels, *sides = layer.unflattened_size
    folded = _reshaped(graph, (flow.value, flow.tangents), (channels, math.prod(sides)))
    value, tangents = _swapped(graph, folded)
    return Flow(value, tangents, (sides[0], sides[1]))


def flatten(graph: Graph, flow: Flow, layer: nn.Flatten) -> Flow:
    """Make rows of images."""
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise Untranslated(f"the layer {layer}")
    if flow.sides is None:
        return flow
    value, tangents = _reshaped(graph, _swapped(graph, (flow.value, flow.tangents)), (-1,))
    return Flow(value, tangents)


def _reshaped(graph, pair, shape):
    """Value and derivatives, the axes behind the rows, or behind the codes, changed."""
    value, tangents = pair
    return graph.op("Reshape", value, [0, *shape]), tangents and graph.op("Reshape", tangents, [0, 0, *shape])


def _swapped(graph, pair):
    """Value and derivatives, channels and places exchanged."""
    value, tangents = pair
    return graph.op("Transpose", value, perm=[0, 2, 1]), tangents and graph.op("Transpose", tangents, perm=[0, 1, 3, 2])


def convolution(graph: Graph, flow: Flow, layer: nn.Conv2d) -> Flow:
    """Gather what the filter sees at each place, then multiply by the filter."""
    _check_convolution(flow, layer)
    new_sides, seen = _seen_by_window(flow, layer)
    return _filtered(graph, flow, seen, new_sides, array(layer.weight).transpose(2, 3, 1, 0), layer.bias)


def transposed_convolution(graph: Graph, flow: Flow, layer: nn.ConvTranspose2d) -> Flow:
    """The same: each place sees those that would have seen it."""
    _check_convolution(flow, layer)
    options = zip(flow.sides or (), layer.output_padding, *_options(layer), strict=True)
    new_sides = tuple(
        (side - 1) * stride - 2 * padding + dilation * (kernel - 1) + more + 1
        for side, more, padding, dilation, kernel, stride in options
    )
    seen = _seen(flow.sides, new_sides, layer, lambda place, tap, stride: (place - tap, stride))
    return _filtered(graph, flow, seen, new_sides, array(layer.weight).transpose(2, 3, 0, 1), layer.bias)


def _options(layer):
    """Padding, dilation, size and stride of a filter, each for both sides."""
    return layer.padding, layer.dilation, layer.kernel_size, layer.stride


def _check_convolution(flow, layer):
    if flow.sides is None or layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise Untranslated(f"the layer {layer}: images, zeros around them and a single group are needed")


def _seen(sides, new_sides, layer, where):
    """Number of the old place that each tap of the filter sees from each new place; one past the last if none."""
    axes = []
    for side, new_side, padding, dilation, kernel, stride in zip(sides, new_sides, *_options(layer), strict=True):
        place, tap = np.arange(new_side)[:, np.newaxis], np.arange(kernel) * dilation
        # A convolution is shifted by the padding against the old places, its transpose against the new ones.
        steps, unit = where(place, tap - padding, stride)
        inside = (steps % unit == 0) & (steps >= 0) & (steps // unit < side)
        axes.append(np.where(inside, steps // unit, -1))
    rows, columns = axes[0][:, np.newaxis, :, np.newaxis], axes[1][np.newaxis, :, np.newaxis, :]
    numbers = np.where((rows >= 0) & (columns >= 0), rows * sides[1] + columns, math.prod(sides))
    return numbers.reshape(math.prod(new_sides), -1)


def _seen_by_window(flow, layer):
    """Sides of what a window that moves over images makes of them, and what it sees."""
    new_sides = tuple(
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, padding, dilation, kernel, stride in zip(flow.sides, *_options(layer), strict=True)
    )
    return new_sides, _seen(flow.sides, new_sides, layer, lambda place, tap, stride: (place * stride + tap, 1))


def _filtered(graph, flow, seen, new_sides, weight, bias):
    """Images of what each new place sees, times a filter of shape (height, width, old channels, new channels)."""
    width = seen.shape[1] * weight.shape[2]
    value, tangents = _gathered(graph, flow, seen, [len(seen), width])
    flow = Flow(value, tangents, new_sides)
    return linear(graph, flow, weight.reshape(width, -1), None if bias is None else array(bias))


def _gathered(graph, flow, seen, shape, outside=0.0):
    """What each new place sees, value and derivatives; one more place is what lies outside."""

    def gathered(value, n_axes):
        wider = graph.op("Pad", value, [0] * (2 * n_axes - 2) + [1, 0], np.array(outside))
        return graph.op("Reshape", graph.op("Gather", wider, seen, axis=-2), [0] * (n_axes - 2) + shape)

    return gathered(flow.value, 3), flow.tangents and gathered(flow.tangents, 4)


def largest(graph: Graph, flow: Flow, layer: nn.MaxPool2d) -> Flow:
    """The largest value that a window sees; of derivatives it would have to follow one of equal values."""
    if flow.sides is None or layer.ceil_mode or layer.return_indices or flow.tangents is not None:
        raise Untranslated(f"the layer {layer} but in encode, for images and with whole windows")
    new_sides, seen = _seen_by_window(flow, _window(layer))
    value, _ = _gathered(graph, flow, seen, [*seen.shape, -1], -np.inf)
    return Flow(graph.op("ReduceMax", value, [2], keepdims=0), None, new_sides)


def average(graph: Graph, flow: Flow, layer: nn.AvgPool2d) -> Flow:
    """The mean of what a window sees."""
    counted = layer.count_include_pad or _pair(layer.padding) == (0, 0)
    if flow.sides is None or layer.ceil_mode or layer.divisor_override or not counted:
        raise Untranslated(f"the layer {layer} but for images and with whole windows")
    new_sides, seen = _seen_by_window(flow, _window(layer))
    value, tangents = _gathered(graph, flow, seen, [*seen.shape, -1])
    mean = graph.op("ReduceMean", value, [-2], keepdims=0)
    return Flow(mean, tangents and graph.op("ReduceMean", tangents, [-2], keepdims=0), new_sides)


def _window(layer: Any) -> Any:
    """The options of a window, each for both sides."""
    options = {name: _pair(getattr(layer, name)) for name in ("padding", "kernel_size", "stride")}
    return SimpleNamespace(**options, dilation=_pair(getattr(layer, "dilation", 1)))


def _pair(option):
    return (option, option) if isinstance(option, int) else tuple(option)


def enlarged(graph: Graph, flow: Flow, layer: nn.Upsample) -> Flow:
    """Each place several times."""
    factors: Any = layer.scale_factor if isinstance(layer.scale_factor, tuple) else (layer.scale_factor,) * 2
    known = layer.mode == "nearest" and all(factor and factor == int(factor) for factor in factors)
    if flow.sides is None or not known:
        raise Untranslated(f"the layer {layer} but for images, with mode nearest and whole factors")
    rows, columns = (np.arange(side).repeat(int(one)) for side, one in zip(flow.sides, factors, strict=True))
    seen = (rows[:, np.newaxis] * flow.sides[1] + columns).ravel()
    tangents = flow.tangents and graph.op("Gather", flow.tangents, seen, axis=-2)
    return Flow(graph.op("Gather", flow.value, seen, axis=-2), tangents, (len(rows), len(columns)))
