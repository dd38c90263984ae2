"""Trace functions of samples, with their derivatives, into graphs of torch's operations."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import scipy.special
import torch
from numpy.polynomial import chebyshev, polynomial
from torch import Tensor
from torch._decomp import core_aten_decompositions, decomposition_table, get_decompositions
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.testing import assert_close
from torch.utils._python_dispatch import _disable_current_modes

from skae._onnx.operations import OPERATIONS, aten

# The error function is one in double precision from here on.
ERF_IS_ONE = 6.0
# Bends the range of the error function such that a polynomial of this degree is exact to 3e-15.
ERF_BEND, ERF_DEGREE = 2.0, 18


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
                # Operations in place become others that return their result.
                module = make_fx(torch.func.functionalize(module), _decompositions())(*fakes)
            for n_samples in (1, len(examples[0]) - 1):
                some = [example[:n_samples] for example in examples]
                assert_close(module(*some), function(*some), rtol=1e-6, atol=1e-6, equal_nan=True)
    except AssertionError as error:
        raise untranslated(
            "computes something else when it is called again, by simpler operations, or with another number of samples"
        ) from error
    except Exception as error:  # what is traced may be a user's code
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise untranslated(f"cannot be traced: {reason}") from error
    module.graph.eliminate_dead_code()
    return module.graph


def untranslated(reason: str) -> NotImplementedError:
    """Return the error for a function without translation."""
    return NotImplementedError(
        f"The network cannot be converted to ONNX: it {reason}. Build a custom module from other torch operations, "
        "whose choice does not depend on values; with projection_steps=0, only its encoder is converted."
    )


def erf(x: Tensor) -> Tensor:
    """Compute the error function, which onnxruntime does not have in double precision.

    It is one minus exp(-x^2) times a polynomial in a variable that maps zero to infinity to a finite interval.
    """
    last = ERF_IS_ONE / (ERF_IS_ONE + ERF_BEND)

    def scaled_complement(t: Any) -> Any:
        ratio = last * (t + 1.0) / 2.0
        return scipy.special.erfcx(ERF_BEND * ratio / (1.0 - ratio))

    coefficients = chebyshev.cheb2poly(chebyshev.chebinterpolate(scaled_complement, ERF_DEGREE))
    size = x.abs().clamp(max=ERF_IS_ONE)
    t: Any = size / (size + ERF_BEND) * (2.0 / last) - 1.0
    return torch.sign(x) * (1.0 - torch.exp(-size * size) * polynomial.polyval(t, coefficients))


def var_mean(x: Tensor, dim: Any = None, *, correction: float = 1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """Compute the variance and the mean along some dimensions."""
    if correction != 0:
        return NotImplemented
    mean = x.mean(dim, keepdim=True)
    return (x - mean).square().mean(dim, keepdim=keepdim), x.mean(dim, keepdim=keepdim)


def index_put(x: Tensor, indices: list[Tensor], value: Tensor, accumulate: bool = False) -> Tensor:
    """Replace values that a mask of the first dimensions marks by one number."""
    mask = indices[0]
    if accumulate or len(indices) != 1 or mask.dtype != torch.bool or value.dim() > 0:
        return NotImplemented
    return torch.where(mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim())), value, x)


def as_strided(x: Tensor, sizes: list[int], strides: list[int], offset: int | None = None) -> Tensor:
    """Reshape, for which torch uses strides in a group normalization."""
    same_order = x.is_contiguous() and tuple(strides) == x.new_empty(sizes).stride()
    return x.reshape(sizes) if same_order and not offset else NotImplemented


def solve(A: Tensor, b: Tensor) -> Tensor:
    """Solve systems of positive definite matrices A, of shape (n, k, k), by Gaussian elimination without pivoting."""
    identity = torch.eye(b.shape[1], dtype=b.dtype)
    system = torch.cat([A, b[:, :, None]], dim=2)
    for i in range(b.shape[1]):
        row = system[:, i : i + 1] / system[:, i : i + 1, i : i + 1]
        # Less one at the pivot: its own row becomes the divided one.
        system = system - (system[:, :, i : i + 1] - identity[:, i : i + 1]) * row
    return system[:, :, -1]


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *options: Any) -> Tensor:
    """Compute a convolution by a matrix product; onnxruntime has none in double precision."""
    *places, groups = options
    n_taps, transposed = weight[0, 0].numel(), options[3]
    with _disable_current_modes():
        # Which value each tap of a filter meets, or 0 for none: a filter that has only this tap returns its number.
        numbers = torch.arange(1.0, x[0, 0].numel() + 1.0, dtype=torch.float64).reshape(1, 1, *x.shape[2:])
        taps = torch.eye(n_taps, dtype=torch.float64).reshape(n_taps, 1, *weight.shape[2:])
        met = aten.convolution(numbers, taps.transpose(0, 1) if transposed else taps, None, *places, 1)
        sides, index = met.shape[2:], met.flatten(2)[0].T.flatten().round().long()
    values = torch.nn.functional.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0)).index_select(1, index)
    values = values.reshape(-1, n_taps, groups, x.shape[1] // groups).permute(2, 0, 1, 3)
    filters = weight.reshape(groups, -1, weight.shape[1], n_taps)
    filters = filters.permute(0, 3, 1, 2) if transposed else filters.permute(0, 3, 2, 1)
    result = torch.bmm(values.flatten(2), filters.flatten(1, 2))
    result = result.permute(1, 0, 2).reshape(x.shape[0], -1, groups * result.shape[2])
    result = result if bias is None else result + bias
    return result.transpose(1, 2).reshape(x.shape[0], -1, *sides)


def convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Any, *options: Any
) -> tuple[Tensor, None, None]:
    """Compute the gradient of a convolution by its input: a transposed convolution, or the other way round."""
    stride, padding, dilation, transposed, _, groups, _ = options
    sides = zip(x.shape[2:], padding, dilation, weight.shape[2:], stride, strict=True)
    rest = [(size + 2 * pad - wide * (kernel - 1) - 1) % step for size, pad, wide, kernel, step in sides]
    options = (stride, padding, dilation, not transposed, rest, groups)
    return convolution(gradient, weight, None, *options), None, None


@cache
def _decompositions() -> dict:
    """Return how operations are computed by simpler ones, by those that onnxruntime has in double precision."""
    more = [aten._softmax, aten.elu, aten.gelu, aten.hardtanh, aten.huber_loss, aten.leaky_relu, aten.softplus]
    more += [aten.linalg_vector_norm, aten.native_group_norm, aten.native_layer_norm, aten.split_with_sizes]
    simpler = {**core_aten_decompositions(), **get_decompositions(more)}
    # Other decompositions of torch go down to operations below those of the table.
    module = "torch._decomp.decompositions"
    simpler |= {one: how for one, how in decomposition_table.items() if how.__module__ == module}
    own = {
        aten.as_strided.default: as_strided,
        aten.convolution.default: convolution,
        aten.convolution_backward.default: convolution_backward,
        aten.cos.default: lambda x: (x + 0.5 * torch.pi).sin(),
        aten.erf.default: erf,
        aten.expm1.default: lambda x: x.exp() - 1.0,
        aten.index_put.default: index_put,
        aten.log1p.default: lambda x: (1.0 + x).log(),
        aten.rsqrt.default: lambda x: 1.0 / x.sqrt(),
        aten.sigmoid.default: lambda x: 1.0 / (1.0 + (-x).exp()),
        aten.var_mean.correction: var_mean,
    }
    return {one: simpler[one] for one in simpler if getattr(one, "overloadpacket", None) not in OPERATIONS} | own
