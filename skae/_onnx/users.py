"""A user's own network, traced by torch and translated step by step.

What torch.onnx.export writes has no derivatives, which rows beyond the training rows need, and operators that
onnxruntime lacks in float64. A traced network has both.
"""

import math
import operator
from collections.abc import Callable
from functools import partialmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from skae._network.custom import CustomModuleHalf
from skae._onnx.flow import (
    Curve,
    Flow,
    Untranslated,
    activation_block,
    added,
    each,
    elementwise,
    elu,
    exponential,
    joined,
    linear,
    logistic,
    multiplied,
    relu,
    scaled,
    shifted,
    silu,
    sine,
    size,
    softplus,
    tanh,
)
from skae._onnx.graph import Graph, Port, array, evaluated, numbered
from skae._onnx.stacks import LAYERS, through

functional = nn.functional
# Largest share of the largest value by which a translation may differ.
SAME = {np.dtype(np.float32): 1e-4, np.dtype(np.float64): 1e-11}
# Stands for the number of rows, with which nothing can be computed.
N_ROWS = object()
_SHAPE = (N_ROWS,)
LAST = 2**63 - 1
IN_PLACE = {operator.iadd, operator.isub, operator.imul, operator.itruediv, "add_"}


class _Value(fx.Proxy):
    """A value on its way; what is done to it in place, as by ``+=``, is noted as that."""

    def _in_place(self, function, other):
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    __iadd__ = partialmethod(_in_place, operator.iadd)
    __isub__ = partialmethod(_in_place, operator.isub)
    __imul__ = partialmethod(_in_place, operator.imul)
    __itruediv__ = partialmethod(_in_place, operator.itruediv)


class _Tracer(fx.Tracer):
    """Follows a network down to the layers that have a translation."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Value(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS and not isinstance(m, nn.Sequential)


def users_stack(graph: Graph, flow: Flow, stack: CustomModuleHalf, width: int) -> Flow:
    """Send a flow of some width through one direction of a user's own network.

    Raises
    ------
    NotImplementedError
        If torch cannot trace it, if a step of it has no translation, or if the translation gives other values.
    """
    try:
        traced = _traced(stack)
        _compare(graph, stack, traced, width)
        return _translated(graph, flow, stack, traced)
    except Untranslated as error:
        raise NotImplementedError(
            f"skae.onnx cannot translate {error}. It knows {', '.join(sorted(kind.__name__ for kind in LAYERS))}, "
            "arithmetic, matrix products, simple functions, torch.cat, slices of columns, and changes of shape between "
            "rows and images. Build the module of these."
        ) from error


def _traced(stack):
    """The steps of one direction."""
    try:
        return _Tracer().trace(stack)
    except Exception as error:  # a user's code may raise anything when it is handed what is no tensor
        name = type(stack.module).__name__
        raise Untranslated(f"{stack.direction} of the module {name}, which torch.fx cannot trace: {error}") from error


def _compare(graph, stack, traced, width):
    """Send some rows through translation and network: torch does not trace everything that Python does."""
    rows = np.sin(np.arange(5 * width)).reshape(5, width).astype(graph.dtype)
    alone = Graph(graph.dtype, numbered("value"))
    flow = Flow(alone.input(Port("rows", graph.dtype, (None, width))))
    alone.output(_translated(alone, flow, stack, traced).value, Port("values", graph.dtype, (None, None)))
    (found,) = evaluated(alone, {"rows": rows})
    with torch.no_grad():
        expected = stack(torch.from_numpy(rows.copy())).numpy()
    difference = np.abs(found - expected).max() / max(np.abs(expected).max(), np.finfo(graph.dtype).tiny)
    if not difference < SAME[np.dtype(graph.dtype)]:
        name = type(stack.module).__name__
        raise Untranslated(
            f"{stack.direction} of the module {name}: the translation differs by {difference:.1e} of the largest value"
        )


def _translated(graph, flow, stack, traced):
    """Each step in turn, and what the last one returns."""
    values: dict[fx.Node, Any] = {}
    for node in traced.nodes:
        arguments = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            values[node] = flow
        elif node.op == "get_attr":
            values[node] = operator.attrgetter(str(node.target))(stack)
        elif node.op == "call_module":
            layer = stack.get_submodule(str(node.target))
            values[node] = through(graph, _only_flow(node, arguments), layer)
            _overwrite(values, node, getattr(layer, "inplace", False))
        elif node.op == "output":
            return arguments[0][0]
        else:
            values[node] = _called(graph, node, *arguments)
            _overwrite(values, node, node.target in IN_PLACE or node.kwargs.get("inplace", False))
    raise Untranslated(f"{stack.direction} of the module {type(stack.module).__name__}, which returns nothing")


def _overwrite(values, node, in_place):
    """Let a step that works in place change its operand too, under every name that it has."""
    if in_place:
        before = values[node.args[0]]
        values.update({name: values[node] for name, value in values.items() if value is before})


def _only_flow(node, arguments):
    """The single argument of a layer."""
    positional, named = arguments
    if len(positional) != 1 or named or not isinstance(positional[0], Flow):
        raise Untranslated(f"the call {node.format_node()}")
    return positional[0]


def _called(graph, node, positional, named):
    """The result of a function or method."""
    if not any(isinstance(one, Flow) for one in pytree.tree_leaves((positional, named))):
        return _constant(node, positional, named)
    if node.target is getattr and positional[1] == "shape":
        return _SHAPE
    translate = FUNCTIONS.get(node.target)
    if translate is None:
        raise Untranslated(f"the step {node.format_node()}")
    try:
        return translate(graph, *positional, **named)
    except (TypeError, IndexError) as error:  # an argument that the translation does not have
        raise Untranslated(f"the arguments of the step {node.format_node()}") from error


def _constant(node, positional, named):
    """What Python and torch make of weights alone."""
    try:
        if node.op == "call_method":
            return getattr(positional[0], str(node.target))(*positional[1:], **named)
        return node.target(*positional, **named)
    except (TypeError, IndexError) as error:  # the number of rows was computed with
        raise Untranslated(f"the step {node.format_node()}") from error


def _curve(curve: Curve) -> Callable[..., Flow]:
    return lambda graph, flow: elementwise(graph, flow, curve)


def _same(graph, flow, *ignored, training=False, **named):
    if training:
        raise TypeError
    return flow


def _sum(graph, first, second):
    if isinstance(first, Flow) and isinstance(second, Flow):
        return added(graph, first, second)
    flow, constant = (first, second) if isinstance(first, Flow) else (second, first)
    return shifted(graph, flow, _value(flow, constant))


def _product(graph, first, second):
    if isinstance(first, Flow) and isinstance(second, Flow):
        return multiplied(graph, first, second)
    flow, constant = (first, second) if isinstance(first, Flow) else (second, first)
    return scaled(graph, flow, _value(flow, constant))


def _difference(graph, first, second):
    return _sum(graph, first, _product(graph, second, -1.0) if isinstance(second, Flow) else -second)


def _quotient(graph, first, second):
    if isinstance(second, Flow):
        raise TypeError
    return _product(graph, first, 1.0 / second)


def _value(flow, constant):
    """A constant operand for each value of a row; channels of images lie elsewhere here than in torch."""
    if isinstance(constant, Tensor):
        constant = constant.detach()
        if constant.ndim > 1 or (flow.sides is not None and constant.ndim > 0):
            raise TypeError
        return array(constant)
    return float(constant)


def _matrix_product(graph, first, second):
    if not isinstance(first, Flow) or not isinstance(second, Tensor) or second.ndim != 2 or first.sides is not None:
        raise TypeError
    return linear(graph, first, array(second))


def _functional_linear(graph, flow, weight, bias=None):
    return linear(graph, flow, array(weight).T, None if bias is None else array(bias))


def _gelu(graph, flow, approximate="none"):
    return through(graph, flow, nn.GELU(approximate))


def _leaky_relu(graph, flow, negative_slope=0.01, inplace=False):
    return elementwise(graph, flow, relu, least=negative_slope)


def _elu(graph, flow, alpha=1.0, inplace=False):
    return elementwise(graph, flow, elu, alpha=alpha)


def _without_place(curve):
    return lambda graph, flow, inplace=False: elementwise(graph, flow, curve)


def _clamp(graph, flow, min=None, max=None):
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise TypeError
    return elementwise(graph, flow, activation_block, lowest=min, highest=max)


def _power(graph, flow, exponent):
    if exponent not in (2, 3):
        raise TypeError
    square = multiplied(graph, flow, flow)
    return square if exponent == 2 else multiplied(graph, square, flow)


def _softmax(graph, flow, dim):
    return through(graph, flow, nn.Softmax(dim))


def _joined(graph, flows, dim=0):
    if not all(isinstance(flow, Flow) for flow in flows) or dim not in ((1,) if flows[0].sides else (1, -1)):
        raise TypeError
    return joined(graph, list(flows))


def _columns(graph, flow, chosen):
    """Some columns of each row."""
    rows, columns = chosen
    if rows != slice(None) or not isinstance(columns, slice) or flow.sides is not None:
        raise TypeError
    start, step = columns.start or 0, columns.step or 1
    stop = LAST if columns.stop is None else columns.stop
    return each(flow, lambda value: graph.op("Slice", value, [start], [stop], [-1], [step]))


def _reshaped(graph, flow, *shape):
    """Samples made images or the other way round; the number of rows stays."""
    shape = tuple(shape[0]) if isinstance(shape[0], tuple | list) else shape
    n_samples, *rest = shape
    if n_samples is not N_ROWS and n_samples != -1:
        raise TypeError
    if flow.sides is None and rest == [-1]:
        return flow
    if flow.sides is None and len(rest) == 3 and -1 not in rest:
        return through(graph, flow, nn.Unflatten(1, tuple(rest)))
    if flow.sides is not None and len(rest) == 1:
        return through(graph, flow, nn.Flatten())
    raise TypeError


def _flattened(graph, flow, start_dim=0, end_dim=-1):
    return through(graph, flow, nn.Flatten(start_dim, end_dim))


def _size(graph, flow, dim=None):
    return _SHAPE if dim is None else _SHAPE[dim]


def _functional(kind: type[nn.Module], *names: str) -> Callable[..., Flow]:
    """A function that does what a layer does, its options by these names and in this order."""

    def function(graph, flow, *options, inplace=False, **named):
        return through(graph, flow, kind(**dict(zip(names, options, strict=False)), **named))

    return function


FUNCTIONS: dict[Any, Callable[..., Flow]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _sum),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub"), _difference),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul"), _product),
    **dict.fromkeys((operator.truediv, operator.itruediv, torch.div, "div"), _quotient),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), lambda graph, flow: scaled(graph, flow, -1.0)),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.mm, "matmul", "mm"), _matrix_product),
    **dict.fromkeys((torch.relu, functional.relu, "relu"), _without_place(relu)),
    **dict.fromkeys((torch.tanh, functional.tanh, "tanh"), _curve(tanh)),
    **dict.fromkeys((torch.sigmoid, functional.sigmoid, "sigmoid"), _curve(logistic)),
    **dict.fromkeys((torch.exp, "exp"), _curve(exponential)),
    **dict.fromkeys((torch.sin, "sin"), _curve(sine)),
    **dict.fromkeys((torch.cos, "cos"), lambda graph, flow: elementwise(graph, flow, sine, phase=math.pi / 2)),
    **dict.fromkeys((torch.abs, operator.abs, abs, "abs"), _curve(size)),
    **dict.fromkeys((torch.square, "square"), lambda graph, flow: multiplied(graph, flow, flow)),
    **dict.fromkeys((operator.pow, torch.pow, "pow"), _power),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clip"), _clamp),
    **dict.fromkeys((torch.cat, torch.concat), _joined),
    **dict.fromkeys(("view", "reshape", torch.reshape), _reshaped),
    **dict.fromkeys(("flatten", torch.flatten), _flattened),
    **dict.fromkeys(("size", len), _size),
    **dict.fromkeys((torch.softmax, functional.softmax, "softmax"), _softmax),
    operator.getitem: _columns,
    functional.softplus: lambda graph, flow, beta=1.0: elementwise(graph, flow, softplus, beta=beta),
    functional.mish: _functional(nn.Mish),
    functional.selu: _functional(nn.SELU),
    functional.hardtanh: _functional(nn.Hardtanh, "min_val", "max_val"),
    functional.max_pool2d: _functional(nn.MaxPool2d, "kernel_size", "stride", "padding"),
    functional.avg_pool2d: _functional(nn.AvgPool2d, "kernel_size", "stride", "padding"),
    functional.interpolate: _functional(nn.Upsample, "size", "scale_factor", "mode"),
    functional.silu: _without_place(silu),
    functional.gelu: _gelu,
    functional.elu: _elu,
    functional.leaky_relu: _leaky_relu,
    functional.linear: _functional_linear,
    functional.dropout: _same,
    "contiguous": _same,
}
