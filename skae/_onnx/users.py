"""A user's own network, traced by torch and translated step by step.

What torch.onnx.export writes has no derivatives, which rows beyond the training rows need, and operators that
onnxruntime lacks in float64. A traced network has both.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from skae._custom import UsersStack
from skae._onnx.flow import (
    Curve,
    Flow,
    added,
    elementwise,
    elu,
    exponential,
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
from skae._onnx.stacks import LAYERS, array, not_translated, through

functional = nn.functional


class _Tracer(fx.Tracer):
    """Follows a network down to the layers that have a translation."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in LAYERS and not isinstance(m, nn.Sequential)


def users_stack(graph: Graph, flow: Flow, stack: UsersStack) -> Flow:
    """Send a flow through one direction of a user's own network.

    Raises
    ------
    NotImplementedError
        If torch cannot trace it, or a step of it has no translation.
    """
    try:
        traced = _Tracer().trace(stack)
    except Exception as error:  # a user's code may raise anything when it is handed what is no tensor
        name = type(stack.module).__name__
        raise not_translated(f"{stack.direction} of the module {name}, which torch.fx cannot trace: {error}") from error
    values: dict[fx.Node, Any] = {}
    for node in traced.nodes:
        arguments = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            values[node] = flow
        elif node.op == "get_attr":
            values[node] = operator.attrgetter(str(node.target))(stack)
        elif node.op == "call_module":
            values[node] = through(graph, _only_flow(node, arguments), stack.get_submodule(str(node.target)))
        elif node.op == "output":
            return arguments[0][0]
        else:
            values[node] = _called(graph, node, *arguments)
    raise not_translated(f"{stack.direction} of the module {type(stack.module).__name__}, which returns nothing")


def _only_flow(node, arguments):
    """The single argument of a layer."""
    positional, named = arguments
    if len(positional) != 1 or named or not isinstance(positional[0], Flow):
        raise not_translated(f"the call {node.format_node()}")
    return positional[0]


def _called(graph, node, positional, named):
    """The result of a function or method."""
    if not any(isinstance(argument, Flow) for argument in positional):
        return _constant(node, positional, named)
    translate = FUNCTIONS.get(node.target)
    if translate is None:
        raise not_translated(f"the step {node.format_node()}")
    try:
        return translate(graph, *positional, **named)
    except TypeError as error:  # an argument that the translation does not have
        raise not_translated(f"the arguments of the step {node.format_node()}") from error


def _constant(node, positional, named):
    """What torch itself makes of weights alone."""
    if node.op == "call_method":
        return getattr(positional[0], str(node.target))(*positional[1:], **named)
    return node.target(*positional, **named)


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


FUNCTIONS: dict[Any, Callable[..., Flow]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add"), _sum),
    **dict.fromkeys((operator.sub, torch.sub, "sub"), _difference),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), _product),
    **dict.fromkeys((operator.truediv, torch.div, "div"), _quotient),
    **dict.fromkeys((operator.neg, torch.neg, "neg"), lambda graph, flow: scaled(graph, flow, -1.0)),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.mm, "matmul", "mm"), _matrix_product),
    **dict.fromkeys((torch.relu, functional.relu, "relu"), _without_place(relu)),
    **dict.fromkeys((torch.tanh, functional.tanh, "tanh"), _curve(tanh)),
    **dict.fromkeys((torch.sigmoid, functional.sigmoid, "sigmoid"), _curve(logistic)),
    **dict.fromkeys((torch.exp, "exp"), _curve(exponential)),
    functional.silu: _without_place(silu),
    functional.gelu: _gelu,
    functional.elu: _elu,
    functional.leaky_relu: _leaky_relu,
    functional.linear: _functional_linear,
    functional.dropout: _same,
    "contiguous": _same,
}
