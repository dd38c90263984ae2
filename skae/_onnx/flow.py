"""Values on their way through a network, with their derivatives where a Jacobian is wanted, as nodes of a graph."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._onnx.graph import Graph, Operand

# Returns a value and, if asked to, its slope.
Curve = Callable[..., tuple[str, str]]
# Coefficients of W. J. Cody, "Rational Chebyshev approximation for the error function", Mathematics of Computation 23
# (1969) 631-637, doi:10.1090/S0025-5718-1969-0247736-4, lowest power first: numerators and denominators of erf(x) / x
# in the square of x up to 15/32, and of exp(x**2) erfc(x) in x from there to 4.
ERF_NEAR = (
    (3.20937758913846947e3, 3.77485237685302021e2, 1.13864154151050156e2, 3.16112374387056560, 0.185777706184603153),
    (2.84423683343917062e3, 1.28261652607737228e3, 2.44024637934444173e2, 2.36012909523441209e1, 1.0),
)
ERFC_BEYOND = (
    (1.23033935479799725e3, 2.05107837782607147e3, 1.71204761263407058e3, 8.81952221241769090e2)
    + (2.98635138197400131e2, 6.61191906371416295e1, 8.88314979438837594e0, 5.64188496988670089e-1)
    + (2.15311535474403846e-8,),
    (1.23033935480374942e3, 3.43936767414372164e3, 4.36261909014324716e3, 3.29079923573345963e3)
    + (1.62138957456669019e3, 5.37181101862009858e2, 1.17693950891312499e2, 1.57449261107098347e1)
    + (1.0,),
)
ERF_NEAR_LIMIT = 0.46875
# From here on the error function is one in float64; the approximation up to 4 still has nine digits of the little rest.
ERF_IS_ONE = 6.0


class Untranslated(Exception):
    """A layer or a step that has no translation; says which."""


@dataclass(frozen=True)
class Flow:
    """A value for each row, and how it moves with each code of its row.

    Attributes
    ----------
    value : str
        Of shape (n, width); of images (n, height * width, channels), channels last as in a dense layer.
    tangents : str or None
        Derivatives by the codes: one more axis, of length n_components, behind the first, which may have length one
        where all rows have the same derivatives. None where nobody asks for them.
    sides : (int, int) or None
        Height and width of images.
    """

    value: str
    tangents: str | None = None
    sides: tuple[int, int] | None = None


def each(flow: Flow, change: Callable[[str], str]) -> Flow:
    """Do the same linear thing, without constants, to a value and to its derivatives."""
    return replace(flow, value=change(flow.value), tangents=None if flow.tangents is None else change(flow.tangents))


def scaled(graph: Graph, flow: Flow, factor: Operand) -> Flow:
    """Multiply by a constant."""
    return each(flow, lambda value: graph.op("Mul", value, factor))


def shifted(graph: Graph, flow: Flow, offset: Operand) -> Flow:
    """Add a constant."""
    return replace(flow, value=graph.op("Add", flow.value, offset))


def added(graph: Graph, first: Flow, second: Flow) -> Flow:
    """Add two flows."""
    value = graph.op("Add", first.value, second.value)
    if first.tangents is None or second.tangents is None:
        return replace(first, value=value)
    return replace(first, value=value, tangents=graph.op("Add", first.tangents, second.tangents))


def joined(graph: Graph, flows: list[Flow]) -> Flow:
    """Put the values, of images the channels, of several flows side by side."""
    first = flows[0]
    if any(flow.sides != first.sides for flow in flows):
        raise Untranslated("putting images side by side that differ in size")
    value = graph.op("Concat", *(flow.value for flow in flows), axis=-1)
    if any(flow.tangents is None for flow in flows):
        return replace(first, value=value)
    # Derivatives that are the same for all rows are given to each.
    widened = []
    for flow in flows:
        beside = graph.op("Unsqueeze", flow.value, [1])
        nothing = graph.op("Where", graph.op("IsNaN", beside), 0.0, 0.0)
        widened.append(graph.op("Add", flow.tangents or "", nothing))
    return replace(first, value=value, tangents=graph.op("Concat", *widened, axis=-1))


def multiplied(graph: Graph, first: Flow, second: Flow) -> Flow:
    """Multiply two flows."""
    value = graph.op("Mul", first.value, second.value)
    if first.tangents is None or second.tangents is None:
        return replace(first, value=value)
    parts = [
        graph.op("Mul", one.tangents or "", graph.op("Unsqueeze", other.value, [1]))
        for one, other in ((first, second), (second, first))
    ]
    return replace(first, value=value, tangents=graph.op("Add", *parts))


def linear(graph: Graph, flow: Flow, weight: NDArray, bias: NDArray | None = None) -> Flow:
    """Multiply by a matrix of shape (width, new width) and add a bias."""
    if flow.sides is None:
        value = graph.op("Gemm", flow.value, weight, *([] if bias is None else [bias]))
    else:
        value = graph.op("MatMul", flow.value, weight)
        value = value if bias is None else graph.op("Add", value, bias)
    tangents = None if flow.tangents is None else graph.op("MatMul", flow.tangents, weight)
    return replace(flow, value=value, tangents=tangents)


def elementwise(graph: Graph, flow: Flow, curve: "Curve", **options: Any) -> Flow:
    """Apply a function to each value."""
    # A constant of another type than the values is an error, and whole numbers are integers to numpy.
    options = {name: float(value) if isinstance(value, int) else value for name, value in options.items()}
    value, slope = curve(graph, flow.value, flow.tangents is not None, **options)
    if flow.tangents is None:
        return replace(flow, value=value)
    return replace(flow, value=value, tangents=graph.op("Mul", flow.tangents, graph.op("Unsqueeze", slope, [1])))


def _where(graph: Graph, kind: str, value: str, limit: Operand) -> str:
    """1 where a comparison holds, 0 elsewhere."""
    return graph.op("CastLike", graph.op(kind, value, limit), value)


def clipped(graph: Graph, flow: Flow, limit: NDArray) -> Flow:
    """Keep values between minus a limit and the limit; each column has its own."""
    value = graph.op("Min", graph.op("Max", flow.value, -limit), limit)
    if flow.tangents is None:
        return replace(flow, value=value)
    inside = _where(graph, "LessOrEqual", graph.op("Abs", flow.value), limit)
    return Flow(value, graph.op("Mul", flow.tangents, graph.op("Unsqueeze", inside, [1])))


def nearness(graph: Graph, flow: Flow, limit: NDArray) -> tuple[Flow, str]:
    """1 for rows within limits, falling to 0 at twice a limit; and the largest share of a limit; of shape (n, 1)."""
    fractions = graph.op("Div", graph.op("Abs", flow.value), limit)
    largest = graph.op("ReduceMax", fractions, [1], keepdims=1)
    value = graph.op("Min", graph.op("Max", graph.op("Sub", 2.0, largest), 0.0), 1.0)
    if flow.tangents is None:
        return Flow(value), largest
    at_largest = _where(graph, "Equal", fractions, largest)
    fading = graph.op("Mul", _where(graph, "GreaterOrEqual", largest, 1.0), _where(graph, "LessOrEqual", largest, 2.0))
    share_of_each = graph.op("Div", fading, graph.op("ReduceSum", at_largest, [1], keepdims=1))
    jacobian_rms = graph.op("Mul", graph.op("Div", graph.op("Sign", flow.value), -limit), at_largest)
    jacobian_rms = graph.op("Unsqueeze", graph.op("Mul", jacobian_rms, share_of_each), [2])
    return Flow(value, graph.op("MatMul", flow.tangents, jacobian_rms)), largest


def relu(graph: Graph, value: str, with_slope: bool, least: Any = 0.0) -> tuple[str, str]:
    """The rectifier; below zero, a line of the least slope."""
    if np.ndim(least) == 0 and least == 0.0:
        return graph.op("Relu", value), _where(graph, "Greater", value, 0.0) if with_slope else ""
    positive = graph.op("Greater", value, 0.0)
    result = graph.op("Where", positive, value, graph.op("Mul", value, least))
    return result, graph.op("Where", positive, 1.0, least) if with_slope else ""


def gelu(graph: Graph, value: str, with_slope: bool) -> tuple[str, str]:
    """The value times the probability that a standard normal variable is below it."""
    erf = error_function(graph, graph.op("Mul", value, math.sqrt(0.5)))
    below = graph.op("Mul", graph.op("Add", erf, 1.0), 0.5)
    result = graph.op("Mul", value, below)
    if not with_slope:
        return result, ""
    bell = graph.op("Exp", graph.op("Mul", graph.op("Mul", value, value), -0.5))
    density = graph.op("Mul", bell, 1.0 / math.sqrt(2.0 * math.pi))
    return result, graph.op("Add", below, graph.op("Mul", value, density))


def silu(graph: Graph, value: str, with_slope: bool) -> tuple[str, str]:
    """The value times its logistic function."""
    share, _ = logistic(graph, value, False)
    result = graph.op("Mul", value, share)
    if not with_slope:
        return result, ""
    rest = graph.op("Sub", 1.0, share)
    return result, graph.op("Mul", share, graph.op("Add", graph.op("Mul", value, rest), 1.0))


def elu(graph: Graph, value: str, with_slope: bool, alpha: float = 1.0) -> tuple[str, str]:
    """The rectifier with an exponential below zero; onnxruntime has none in float64."""
    positive = graph.op("Greater", value, 0.0)
    power = graph.op("Mul", graph.op("Exp", graph.op("Min", value, 0.0)), alpha)
    result = graph.op("Where", positive, value, graph.op("Sub", power, alpha))
    return result, graph.op("Where", positive, 1.0, power) if with_slope else ""


def tanh(graph: Graph, value: str, with_slope: bool) -> tuple[str, str]:
    """The hyperbolic tangent."""
    result = graph.op("Tanh", value)
    return result, graph.op("Sub", 1.0, graph.op("Mul", result, result)) if with_slope else ""


def logistic(graph: Graph, value: str, with_slope: bool) -> tuple[str, str]:
    """The logistic function; onnxruntime's own is less exact near one, where the slope is the little that is left."""
    result = graph.op("Reciprocal", graph.op("Add", graph.op("Exp", graph.op("Neg", value)), 1.0))
    return result, graph.op("Mul", result, graph.op("Sub", 1.0, result)) if with_slope else ""


def exponential(graph: Graph, value: str, with_slope: bool) -> tuple[str, str]:
    """The exponential function."""
    result = graph.op("Exp", value)
    return result, result


def activation_block(
    graph: Graph, value: str, with_slope: bool, lowest: Any = None, highest: Any = None
) -> tuple[str, str]:
    """Cut off below and above limits; None is no limit."""
    result, inside = value, []
    for kind, compare, limit in (("Max", "GreaterOrEqual", lowest), ("Min", "LessOrEqual", highest)):
        if limit is not None:
            result = graph.op(kind, result, limit)
            inside += [_where(graph, compare, value, limit)] if with_slope else []
    if not with_slope:
        return result, ""
    return result, inside[0] if len(inside) == 1 else graph.op("Mul", *inside)


def softplus(graph: Graph, value: str, with_slope: bool, beta: float = 1.0) -> tuple[str, str]:
    """The integral of the logistic function, a smooth rectifier."""
    steep = value if beta == 1.0 else graph.op("Mul", value, beta)
    power = graph.op("Exp", graph.op("Neg", graph.op("Abs", steep)))
    result = graph.op("Add", graph.op("Max", steep, 0.0), graph.op("Log", graph.op("Add", power, 1.0)))
    result = result if beta == 1.0 else graph.op("Div", result, beta)
    return result, logistic(graph, steep, False)[0] if with_slope else ""


def celu(graph: Graph, value: str, with_slope: bool, alpha: float = 1.0) -> tuple[str, str]:
    """The rectifier with an exponential below zero, of slope one at zero."""
    positive = graph.op("Greater", value, 0.0)
    power = graph.op("Exp", graph.op("Div", graph.op("Min", value, 0.0), alpha))
    result = graph.op("Where", positive, value, graph.op("Mul", graph.op("Sub", power, 1.0), alpha))
    return result, graph.op("Where", positive, 1.0, power) if with_slope else ""


def sine(graph: Graph, value: str, with_slope: bool, phase: float = 0.0) -> tuple[str, str]:
    """The sine, of a phase later; onnxruntime has no cosine in float64."""
    result, slope = (
        graph.op("Sin", graph.op("Add", value, shift) if shift else value) for shift in (phase, phase + math.pi / 2)
    )
    return result, slope if with_slope else ""


def size(graph: Graph, value: str, with_slope: bool) -> tuple[str, str]:
    """The absolute value."""
    return graph.op("Abs", value), graph.op("Sign", value) if with_slope else ""


def error_function(graph: Graph, value: str) -> str:
    """The error function, in float64 by Cody's approximations, for which onnxruntime has no kernel."""
    if np.dtype(graph.dtype) == np.float32:
        return graph.op("Erf", value)
    size = graph.op("Min", graph.op("Abs", value), ERF_IS_ONE)
    square = graph.op("Mul", size, size)
    near = graph.op("Mul", size, _ratio(graph, graph.op("Min", square, ERF_NEAR_LIMIT**2), ERF_NEAR))
    rest = graph.op("Mul", graph.op("Exp", graph.op("Neg", square)), _ratio(graph, size, ERFC_BEYOND))
    positive = graph.op("Where", graph.op("LessOrEqual", size, ERF_NEAR_LIMIT), near, graph.op("Sub", 1.0, rest))
    return graph.op("Mul", graph.op("Sign", value), positive)


def _ratio(graph, value, polynomials):
    """The ratio of two polynomials."""
    return graph.op("Div", *(_polynomial(graph, value, coefficients) for coefficients in polynomials))


def _polynomial(graph, value, coefficients):
    """A polynomial by Horner's rule."""
    *lower, highest = coefficients
    result: Operand = highest
    for coefficient in reversed(lower):
        result = graph.op("Add", graph.op("Mul", result, value), coefficient)
    return result
