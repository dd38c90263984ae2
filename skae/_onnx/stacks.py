"""Layers of torch as nodes of a graph: each takes a flow and returns one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._layers import SeededDropout, TiedDecoder
from skae._onnx.flow import (
    Flow,
    added,
    each,
    elementwise,
    elu,
    gelu,
    linear,
    logistic,
    multiplied,
    relu,
    scaled,
    shifted,
    silu,
    tanh,
)
from skae._onnx.graph import Graph

Layer = Callable[[Graph, Flow, Any], Flow]


def through(graph: Graph, flow: Flow, layer: nn.Module) -> Flow:
    """Send a flow through a layer or a stack of them.

    Raises
    ------
    NotImplementedError
        If there is no such layer in `LAYERS`, or if it has an option that is none of ours.
    """
    if type(layer) not in LAYERS:
        raise not_translated(f"the layer {layer}")
    return LAYERS[type(layer)](graph, flow, layer)


def not_translated(what: str) -> NotImplementedError:
    """The error for what has no translation."""
    return NotImplementedError(
        f"skae.onnx cannot translate {what}. It knows {', '.join(sorted(kind.__name__ for kind in LAYERS))}, sums, "
        "products and matrix products. Build the module of these, or export it with torch.onnx.export."
    )


def array(tensor: Tensor) -> NDArray:
    """A copy of a tensor in memory of its own."""
    return tensor.detach().cpu().numpy().copy()


def _sequential(graph, flow, layers):
    for layer in layers:
        flow = through(graph, flow, layer)
    return flow


def _tied(graph, flow, decoder: TiedDecoder):
    layers, n_between = decoder._layers[0], len(decoder.between)
    for index, (layer, bias) in enumerate(zip(layers, decoder.biases, strict=True)):
        flow = linear(graph, flow, array(layer.weight), array(bias))
        flow = through(graph, flow, decoder.between[index]) if index < n_between else flow
    return flow


def _same(graph, flow, layer):
    return flow


def _linear(graph, flow, layer: nn.Linear):
    return linear(graph, flow, array(layer.weight).T, None if layer.bias is None else array(layer.bias))


def _batch_norm(graph, flow, layer):
    """Running statistics stand for the batch, so it is a factor and an offset."""
    if layer.running_mean is None:
        raise not_translated(f"the layer {layer}, which keeps no running statistics")
    factor = 1.0 / np.sqrt(array(layer.running_var) + layer.eps)
    if layer.weight is not None:
        factor = factor * array(layer.weight)
    offset = -array(layer.running_mean) * factor + (0.0 if layer.bias is None else array(layer.bias))
    return shifted(graph, scaled(graph, flow, factor), offset)


def _layer_norm(graph, flow, layer: nn.LayerNorm):
    if flow.sides is not None or len(layer.normalized_shape) != 1:
        raise not_translated(f"the layer {layer} over more than one axis")
    return _normalised(graph, flow, [-1], layer)


def _group_norm(graph, flow, layer: nn.GroupNorm):
    if layer.num_groups != 1:
        raise not_translated(f"the layer {layer} with more than one group")
    return _normalised(graph, flow, [-1] if flow.sides is None else [-2, -1], layer)


def _normalised(graph, flow, axes, layer):
    """Mean zero and variance one over some axes, then a factor and an offset."""

    def centred(value):
        return graph.op("Sub", value, graph.op("ReduceMean", value, axes, keepdims=1))

    flow = each(flow, centred)
    variance = graph.op("ReduceMean", graph.op("Mul", flow.value, flow.value), axes, keepdims=1)
    spread = graph.op("Sqrt", graph.op("Add", variance, layer.eps))
    value, tangents = graph.op("Div", flow.value, spread), flow.tangents
    if tangents is not None:
        along = graph.op("Unsqueeze", value, [1])
        share = graph.op("ReduceMean", graph.op("Mul", tangents, along), axes, keepdims=1)
        across = graph.op("Sub", tangents, graph.op("Mul", along, share))
        tangents = graph.op("Div", across, graph.op("Unsqueeze", spread, [1]))
    flow = Flow(value, tangents, flow.sides)
    flow = flow if layer.weight is None else scaled(graph, flow, array(layer.weight))
    return flow if layer.bias is None else shifted(graph, flow, array(layer.bias))


def _unflatten(graph, flow, layer: nn.Unflatten):
    if layer.dim not in (1, -1) or flow.sides is not None or len(layer.unflattened_size) != 3:
        raise not_translated(f"the layer {layer}, which makes no images of rows")
    channels, *sides = layer.unflattened_size
    folded = _reshaped(graph, (flow.value, flow.tangents), (channels, math.prod(sides)))
    value, tangents = _swapped(graph, folded)
    return Flow(value, tangents, (sides[0], sides[1]))


def _flatten(graph, flow, layer: nn.Flatten):
    if (layer.start_dim, layer.end_dim) != (1, -1):
        raise not_translated(f"the layer {layer}")
    if flow.sides is None:
        return flow
    return Flow(*_reshaped(graph, _swapped(graph, (flow.value, flow.tangents)), (-1,)))


def _reshaped(graph, pair, shape):
    """Value and derivatives, the axes behind the rows, or behind the codes, changed."""
    value, tangents = pair
    return graph.op("Reshape", value, [0, *shape]), tangents and graph.op("Reshape", tangents, [0, 0, *shape])


def _swapped(graph, pair):
    """Value and derivatives, channels and places exchanged."""
    value, tangents = pair
    return graph.op("Transpose", value, perm=[0, 2, 1]), tangents and graph.op("Transpose", tangents, perm=[0, 1, 3, 2])


def _convolution(graph, flow, layer: nn.Conv2d):
    """Gather what the filter sees at each place, then multiply by the filter; float64 has no kernel of its own."""
    _check_convolution(flow, layer)
    new_sides = tuple(
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, padding, dilation, kernel, stride in zip(flow.sides, *_options(layer), strict=True)
    )
    seen = _seen(flow.sides, new_sides, layer, lambda place, tap, stride: (place * stride + tap, 1))
    return _gathered(graph, flow, seen, new_sides, array(layer.weight).transpose(2, 3, 1, 0), layer.bias)


def _transposed_convolution(graph, flow, layer: nn.ConvTranspose2d):
    """The same: each place sees those that would have seen it."""
    _check_convolution(flow, layer)
    new_sides = tuple(
        (side - 1) * stride - 2 * padding + dilation * (kernel - 1) + more + 1
        for side, more, padding, dilation, kernel, stride in zip(
            flow.sides, layer.output_padding, *_options(layer), strict=True
        )
    )
    seen = _seen(flow.sides, new_sides, layer, lambda place, tap, stride: (place - tap, stride))
    return _gathered(graph, flow, seen, new_sides, array(layer.weight).transpose(2, 3, 0, 1), layer.bias)


def _options(layer):
    """Padding, dilation, size and stride of a filter, each for both sides."""
    return layer.padding, layer.dilation, layer.kernel_size, layer.stride


def _check_convolution(flow, layer):
    if flow.sides is None or layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise not_translated(f"the layer {layer}: images, zeros around them and a single group are needed")


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


def _gathered(graph, flow, seen, new_sides, weight, bias):
    """Images of what each new place sees, times a filter of shape (height, width, old channels, new channels)."""
    width = seen.shape[1] * weight.shape[2]

    def patches(value, n_axes):
        # One more place, of zeros, for what lies outside.
        wider = graph.op("Pad", value, [0] * (2 * n_axes - 2) + [1, 0])
        return graph.op("Reshape", graph.op("Gather", wider, seen, axis=-2), [0] * (n_axes - 2) + [len(seen), width])

    tangents = flow.tangents and patches(flow.tangents, 4)
    flow = Flow(patches(flow.value, 3), tangents, new_sides)
    return linear(graph, flow, weight.reshape(width, -1), None if bias is None else array(bias))


def _curve(curve, **names) -> Layer:
    """A layer that applies a function to each value, its options taken from attributes of torch's layer."""

    def layer_of(graph, flow, layer):
        return elementwise(graph, flow, curve, **{name: getattr(layer, attribute) for name, attribute in names.items()})

    return layer_of


def _gelu(graph, flow, layer: nn.GELU):
    if layer.approximate == "none":
        return elementwise(graph, flow, gelu)
    cube = multiplied(graph, flow, multiplied(graph, flow, flow))
    inner = scaled(graph, added(graph, flow, scaled(graph, cube, 0.044715)), math.sqrt(2.0 / math.pi))
    return multiplied(graph, flow, scaled(graph, shifted(graph, elementwise(graph, inner, tanh), 1.0), 0.5))


LAYERS: dict[type[nn.Module], Layer] = {
    nn.Sequential: _sequential,
    TiedDecoder: _tied,
    nn.Identity: _same,
    nn.Dropout: _same,
    SeededDropout: _same,
    nn.Linear: _linear,
    nn.ReLU: _curve(relu),
    nn.LeakyReLU: _curve(relu, least="negative_slope"),
    nn.GELU: _gelu,
    nn.SiLU: _curve(silu),
    nn.ELU: _curve(elu, alpha="alpha"),
    nn.Tanh: _curve(tanh),
    nn.Sigmoid: _curve(logistic),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Unflatten: _unflatten,
    nn.Flatten: _flatten,
    nn.Conv2d: _convolution,
    nn.ConvTranspose2d: _transposed_convolution,
}
