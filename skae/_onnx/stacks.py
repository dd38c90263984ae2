"""Layers of torch as nodes of a graph: each takes a flow and returns one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from skae._network.layers import SeededDropout, TiedDecoder
from skae._onnx.flow import (
    Flow,
    Untranslated,
    activation_block,
    added,
    celu,
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
    softplus,
    tanh,
)
from skae._onnx.graph import Graph, array
from skae._onnx.images import average, convolution, enlarged, flatten, largest, transposed_convolution, unflatten

Layer = Callable[[Graph, Flow, Any], Flow]
# As torch has them.
SELU_ALPHA, SELU_FACTOR = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def through(graph: Graph, flow: Flow, layer: nn.Module) -> Flow:
    """Send a flow through a layer or a stack of them.

    Raises
    ------
    Untranslated
        If there is no such layer in `LAYERS`, or if it has an option that is none of ours.
    """
    if type(layer) not in LAYERS:
        raise Untranslated(f"the layer {layer}")
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise Untranslated(f"the layer {layer} with hooks")
    return LAYERS[type(layer)](graph, flow, layer)


def _sequential(graph, flow, layers):
    for layer in layers:
        flow = through(graph, flow, layer)
    return flow


def _tied(graph, flow, decoder: TiedDecoder):
    layers, n_between = decoder._layers[0], len(decoder.activation_block)
    for index, (layer, bias) in enumerate(zip(layers, decoder.biases, strict=True)):
        flow = linear(graph, flow, array(layer.weight), array(bias))
        flow = through(graph, flow, decoder.activation_block[index]) if index < n_between else flow
    return flow


def _same(graph, flow, layer):
    return flow


def _linear(graph, flow, layer: nn.Linear):
    return linear(graph, flow, array(layer.weight).T, None if layer.bias is None else array(layer.bias))


def _batch_norm(graph, flow, layer):
    """Running statistics stand for the batch, so it is a factor and an offset."""
    if layer.running_mean is None:
        raise Untranslated(f"the layer {layer}, which keeps no running statistics")
    factor = 1.0 / np.sqrt(array(layer.running_var) + layer.eps)
    if layer.weight is not None:
        factor = factor * array(layer.weight)
    offset = -array(layer.running_mean) * factor + (0.0 if layer.bias is None else array(layer.bias))
    return shifted(graph, scaled(graph, flow, factor), offset)


def _layer_norm(graph, flow, layer: nn.LayerNorm):
    if flow.sides is not None or len(layer.normalized_shape) != 1:
        raise Untranslated(f"the layer {layer} over more than one axis")
    return _normalised(graph, flow, [-1], layer)


def _group_norm(graph, flow, layer: nn.GroupNorm):
    if layer.num_groups != 1:
        raise Untranslated(f"the layer {layer} with more than one group")
    return _normalised(graph, flow, [-1] if flow.sides is None else [-2, -1], layer)


def _normalised(graph, flow, axes, layer):
    """Mean zero and variance one over some axes, then a factor and an offset."""

    def centered(value):
        return graph.op("Sub", value, graph.op("ReduceMean", value, axes, keepdims=1))

    flow = each(flow, centered)
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


def _prelu(graph, flow, layer: nn.PReLU):
    return elementwise(graph, flow, relu, least=array(layer.weight))


def _selu(graph, flow, layer: nn.SELU):
    return scaled(graph, elementwise(graph, flow, elu, alpha=SELU_ALPHA), SELU_FACTOR)


def _mish(graph, flow, layer: nn.Mish):
    return multiplied(graph, flow, elementwise(graph, elementwise(graph, flow, softplus), tanh))


def _softmax(graph, flow, layer: nn.Softmax):
    if layer.dim not in (1, -1) or flow.sides is not None:
        raise Untranslated(f"the layer {layer} but over the values of each row")
    value = graph.op("Softmax", flow.value, axis=-1)
    if flow.tangents is None:
        return Flow(value)
    fractions = graph.op("Unsqueeze", value, [1])
    mean = graph.op("ReduceSum", graph.op("Mul", flow.tangents, fractions), [-1], keepdims=1)
    return Flow(value, graph.op("Mul", fractions, graph.op("Sub", flow.tangents, mean)))


LAYERS: dict[type[nn.Module], Layer] = {
    nn.Sequential: _sequential,
    TiedDecoder: _tied,
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, SeededDropout), _same),
    nn.Linear: _linear,
    nn.ReLU: _curve(relu),
    nn.ReLU6: _curve(activation_block, lowest="min_val", highest="max_val"),
    nn.Hardtanh: _curve(activation_block, lowest="min_val", highest="max_val"),
    nn.LeakyReLU: _curve(relu, least="negative_slope"),
    nn.PReLU: _prelu,
    nn.GELU: _gelu,
    nn.SiLU: _curve(silu),
    nn.Mish: _mish,
    nn.ELU: _curve(elu, alpha="alpha"),
    nn.CELU: _curve(celu, alpha="alpha"),
    nn.SELU: _selu,
    nn.Softplus: _curve(softplus, beta="beta"),
    nn.Softmax: _softmax,
    nn.Tanh: _curve(tanh),
    nn.Sigmoid: _curve(logistic),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Unflatten: unflatten,
    nn.Flatten: flatten,
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.MaxPool2d: largest,
    nn.AvgPool2d: average,
    nn.Upsample: enlarged,
}
