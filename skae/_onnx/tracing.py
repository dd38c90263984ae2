"""Trace functions of samples, with their derivatives, into graphs of torch's operations."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import scipy.special
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from torch import Tensor
from torch._decomp import core_aten_decompositions, decomposition_table, get_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from skae._onnx.operations import OPERATIONS

# The error function is one in double precision from here on.
ERF_IS_ONE = 6.0
# Bends the range of the error function such that a polynomial of this degree is exact to 3e-15.
ERF_BEND, ERF_DEGREE = 2.0, 18
ERF_LAST = (ERF_IS_ONE - ERF_BEND) / (ERF_IS_ONE + ERF_BEND)


def traced(function: Callable, examples: Sequence[Tensor]) -> torch.fx.Graph:
    """Trace a function of samples.

    Parameters
    ----------
    function : callable
        Maps tensors to a tuple of tensors. The first dimension of each is the number of samples.
    examples : sequence of Tensor
        Arguments, of at least two samples.

    Returns
    -------
    torch.fx.Graph
        Operations on any number of samples.

    Raises
    ------
    NotImplementedError
        If what is computed depends on values, or cannot be repeated.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(duck_shape=False))
    fakes = []
    for example in examples:
        sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (example.dim() - 1)
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        fakes.append(mode.from_tensor(example.detach().clone(), symbolic_context=context))
    try:
        with torch.no_grad():
            with mode, enable_python_dispatcher():
                module = make_fx(function, _decompositions())(*fakes)
                if any(_changes_in_place(node) for node in module.graph.nodes):
                    module = make_fx(torch.func.functionalize(module), _decompositions())(*fakes)
            fewer = [example[:-1] for example in examples]
            same = all(map(_close, module(*fewer), function(*fewer)))
    except Exception as error:  # what is traced may be a user's code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise untranslated(f"cannot be traced: {reason}") from error
    if not same:
        raise untranslated(
            "computes something else when it is called again, by simpler operations, or with another number of samples"
        )
    module.graph.eliminate_dead_code()
    return module.graph


def _changes_in_place(node: torch.fx.Node) -> bool:
    """Return whether a node overwrites a value."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _close(values: Tensor, expected: Tensor) -> bool:
    """Return whether values agree up to rounding."""
    return torch.allclose(values.double(), expected.double(), rtol=1e-6, atol=1e-6, equal_nan=True)


def untranslated(reason: str) -> NotImplementedError:
    """Return the error for a function without translation."""
    return NotImplementedError(
        f"The network cannot be converted to ONNX: it {reason}. Build a custom module from other torch operations, "
        "whose choice does not depend on values; with projection_steps=0, only its encoder is converted."
    )


@cache
def erf_coefficients() -> NDArray:
    """Return a polynomial for exp(x^2) erfc(x), lowest power first."""
    t = chebyshev.chebpts1(ERF_DEGREE + 1)
    bent = (t + 1.0) / 2.0 * (ERF_LAST + 1.0) - 1.0
    values = scipy.special.erfcx(ERF_BEND * (1.0 + bent) / (1.0 - bent))
    return chebyshev.cheb2poly(chebyshev.chebfit(t, values, ERF_DEGREE))


def erf(x: Tensor) -> Tensor:
    """Compute the error function, which onnxruntime does not have in double precision."""
    size = x.abs().clamp(max=ERF_IS_ONE)
    t = ((size - ERF_BEND) / (size + ERF_BEND) + 1.0) * (2.0 / (ERF_LAST + 1.0)) - 1.0
    coefficients = erf_coefficients().tolist()
    value = t * coefficients[-1] + coefficients[-2]
    for coefficient in coefficients[-3::-1]:
        value = value * t + coefficient
    return torch.sign(x) * (1.0 - torch.exp(-size * size) * value)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Compute GELU."""
    inner = (
        torch.tanh((2.0 / np.pi) ** 0.5 * (x + 0.044715 * x * x * x)) if approximate == "tanh" else erf(x * 0.5**0.5)
    )
    return 0.5 * x * (1.0 + inner)


def sigmoid(x: Tensor) -> Tensor:
    """Compute the logistic function, which onnxruntime approximates near one."""
    return 1.0 / (1.0 + torch.exp(-x))


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize by running statistics."""
    if training:
        return NotImplemented
    shape = [-1] + [1] * (x.dim() - 2)
    result = (x - mean.view(shape)) / torch.sqrt(variance + eps).view(shape)
    result = result if weight is None else result * weight.view(shape)
    return result if bias is None else result + bias.view(shape), mean[:0], mean[:0]


def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """Compute Euclidean norms."""
    return x.square().sum(dim, keepdim=keepdim).sqrt() if ord == 2 else NotImplemented


def _normalized(x: Tensor, n_last: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return values less their mean over the last dimensions and divided by their spread, the mean, and the divisor."""
    dims = list(range(x.dim() - n_last, x.dim()))
    mean = x.mean(dims, keepdim=True)
    factor = 1.0 / torch.sqrt((x - mean).square().mean(dims, keepdim=True) + eps)
    return (x - mean) * factor, mean, factor


def layer_norm(
    x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize over the last dimensions."""
    result, mean, factor = _normalized(x, len(shape), eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias, mean, factor


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, channels: int, size: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize over groups of channels."""
    result, mean, factor = _normalized(x.reshape(-1, groups, channels // groups * size), 1, eps)
    result, shape = result.reshape(-1, *x.shape[1:]), [channels] + [1] * (x.dim() - 2)
    result = result if weight is None else result * weight.reshape(shape)
    return result if bias is None else result + bias.reshape(shape), mean[:, :, 0], factor[:, :, 0]


def solve(A: Tensor, b: Tensor) -> Tensor:
    """Solve systems of positive definite matrices A, of shape (n, k, k), by Gaussian elimination without pivoting."""
    identity = torch.eye(b.shape[1], dtype=b.dtype)
    system = torch.cat([A, b[:, :, None]], dim=2)
    for i in range(b.shape[1]):
        row = system[:, i : i + 1] / system[:, i : i + 1, i : i + 1]
        # Less one at the pivot: its own row becomes the divided one.
        system = system - (system[:, :, i : i + 1] - identity[:, i : i + 1]) * row
    return system[:, :, -1]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Tensor:
    """Compute a convolution by a matrix product; onnxruntime has none in double precision."""
    kernel, widths = list(weight.shape[2:]), list(x.shape[2:])
    weight = weight.reshape(groups, -1, *weight.shape[1:])
    positions = np.arange(1, np.prod(widths) + 1).reshape(widths)  # 0 is a place without a value
    pads = [(pad, pad) for pad in padding]
    if transposed:  # the convolution of images with zeros between their values
        spread = np.zeros([(width - 1) * step + 1 for width, step in zip(widths, stride, strict=True)], dtype=int)
        spread[tuple(slice(None, None, step) for step in stride)] = positions
        positions, stride = spread, [1] * len(stride)
        ends = zip(dilation, kernel, padding, output_padding, strict=True)
        pads = [(wide * (size - 1) - pad, wide * (size - 1) - pad + more) for wide, size, pad, more in ends]
        weight = weight.flip(*range(3, weight.dim())).transpose(1, 2)
    positions = np.pad(positions, [(max(low, 0), max(high, 0)) for low, high in pads])
    positions = positions[tuple(slice(max(-low, 0), min(high, 0) or None) for low, high in pads)]
    extents = [wide * (size - 1) + 1 for wide, size in zip(dilation, kernel, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(positions, extents)
    windows = windows[tuple(slice(None, None, step) for step in [*stride, *dilation])]
    sides, n_places = windows.shape[: len(kernel)], int(np.prod(kernel))
    index = torch.from_numpy(windows.reshape(-1, n_places).T.reshape(-1).copy())
    values = torch.nn.functional.pad(x.flatten(2), (1, 0)).index_select(2, index)
    values = values.reshape(-1, groups, weight.shape[2] * n_places, int(np.prod(sides)))
    filters = weight.reshape(groups, weight.shape[1], -1)
    parts = [torch.bmm(filters[i].expand(x.shape[0], -1, -1), values[:, i]) for i in range(groups)]
    result = parts[0] if groups == 1 else torch.cat(parts, dim=1)
    result = result if bias is None else result + bias[:, None]
    return result.reshape(-1, result.shape[1], *sides)


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Any, *options: Any
) -> tuple[Tensor, None, None]:
    """Compute the gradient of a convolution by its input: a transposed convolution, or the other way round."""
    stride, padding, dilation, transposed, more, groups, _ = options
    if not transposed:
        ends = zip(x.shape[2:], gradient.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True)
        more = [
            size - ((out - 1) * step - 2 * pad + wide * (kernel - 1) + 1) for size, out, step, pad, wide, kernel in ends
        ]
    return convolution(gradient, weight, None, stride, padding, dilation, not transposed, more, groups), None, None


@cache
def _decompositions() -> dict:
    """Return how operations are computed by simpler ones, by those that onnxruntime has in double precision."""
    aten = torch.ops.aten
    own = {
        aten.erf.default: erf,
        aten.gelu.default: gelu,
        aten.sigmoid.default: sigmoid,
        aten.linalg_vector_norm.default: vector_norm,
        aten._native_batch_norm_legit.default: batch_norm,
        aten.native_layer_norm.default: layer_norm,
        aten.native_group_norm.default: group_norm,
        aten.convolution.default: convolution,
        aten.convolution_backward.default: convolution_backward,
    }
    more = [aten.elu, aten.huber_loss, aten.leaky_relu, aten.softplus, aten.split_with_sizes, aten._softmax]
    simpler = {**core_aten_decompositions(), **get_decompositions(more)}
    # Other decompositions of torch go down to operations below those of the table.
    for operation, function in decomposition_table.items():
        if function.__module__ == "torch._decomp.decompositions":
            simpler[operation] = function
    return {one: simpler[one] for one in simpler if getattr(one, "overloadpacket", None) not in OPERATIONS} | own
