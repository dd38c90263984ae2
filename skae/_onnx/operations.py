"""Operations of torch and the same in ONNX."""

import operator
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


def dtype_of(value: Any) -> torch.dtype:
    """Return the dtype of a tensor or number."""
    return getattr(value, "dtype", torch.float64 if isinstance(value, torch.SymFloat) else torch.int64)


def _unary(kind: str) -> Callable:
    """Translate an operation on each value."""
    return lambda graph, out, x: graph.op(kind, x)


def _binary(kind: str, swapped: bool = False) -> Callable:
    """Translate an operation on pairs of values."""

    def translate(graph: Any, out: Any, x: Any, y: Any, alpha: float = 1) -> str:
        dtype = dtype_of(out)
        if kind in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"):
            dtype = graph.common_dtype(x, y)
        x, y = graph.cast(x, dtype), graph.cast(y, dtype)
        y = y if alpha == 1 else graph.op("Mul", y, graph.cast(alpha, dtype))
        return graph.op(kind, *((y, x) if swapped else (x, y)))

    return translate


def _reduction(kind: str) -> Callable:
    """Translate a sum, mean or extreme along some dimensions."""

    def translate(graph: Any, out: Any, x: str, dims: Any = (), keepdim: bool = False, **options: Any) -> str:
        dims = [dims] if isinstance(dims, int) else dims
        axes = [graph.constant(torch.tensor(dims))] if dims else []
        return graph.op(kind, graph.cast(x, out.dtype), *axes, keepdims=int(keepdim))

    return translate


def _any(graph: Any, out: Any, x: str, *options: Any) -> str:
    """Translate by a count, because of no values a maximum is an error."""
    counts = torch.empty((), dtype=torch.int64)
    return graph.cast(
        _reduction("ReduceSum")(graph, counts, graph.cast(graph.cast(x, torch.bool), counts.dtype), *options),
        torch.bool,
    )


def _clamp(graph: Any, out: Any, x: str, lowest: Any = None, highest: Any = None, **limits: Any) -> str:
    for kind, limit in (("Max", limits.get("min", lowest)), ("Min", limits.get("max", highest))):
        x = x if limit is None else graph.op(kind, x, graph.cast(limit, out.dtype))
    return x


def _power(graph: Any, out: Any, x: Any, exponent: Any) -> str:
    if exponent == 2:
        return graph.op("Mul", x, x)
    return _binary("Pow")(graph, out, x, exponent)


def _full(graph: Any, out: Any, sizes: list, value: Any, **options: Any) -> str:
    return graph.op("Expand", graph.cast(value, out.dtype), graph.shape(sizes))


def _full_like(value: Any = None) -> Callable:
    """Translate a tensor of equal values in the shape of another one."""
    return lambda graph, out, x, given=value, **options: graph.op(
        "Expand", graph.cast(given, out.dtype), graph.op("Shape", x)
    )


def _slice(graph: Any, out: Any, x: str, dim: int = 0, first: Any = 0, last: Any = None, step: int = 1) -> str:
    ends = [0 if first is None else first, torch.iinfo(torch.int64).max if last is None else last]
    if ends == [0, torch.iinfo(torch.int64).max] and step == 1:
        return x
    return graph.op("Slice", x, *(graph.shape([value]) for value in (*ends, dim, step)))


def _index(graph: Any, out: Any, x: str, indices: list) -> str:
    """Translate a choice along one dimension."""
    chosen = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(chosen) != 1 or graph.dtypes.get(chosen[0][1]) == torch.bool:
        return NotImplemented
    return graph.op("Gather", x, chosen[0][1], axis=chosen[0][0])


def _index_put(graph: Any, out: Any, x: str, indices: list, value: str, accumulate: bool = False) -> str:
    """Translate a choice of values that become one number."""
    if accumulate or len(indices) != 1 or graph.dtypes.get(indices[0]) != torch.bool:
        return NotImplemented
    return graph.op("Where", indices[0], graph.cast(value, out.dtype), x)


def _pad(graph: Any, out: Any, x: str, pads: list, value: float = 0.0) -> str:
    n_dims = out.dim()
    before, after = [0] * n_dims, [0] * n_dims
    for i in range(len(pads) // 2):
        before[n_dims - 1 - i], after[n_dims - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return graph.op("Pad", x, graph.shape([*before, *after]), graph.cast(value, out.dtype))


def _same(graph: Any, out: Any, x: str, *options: Any, **others: Any) -> str:
    return graph.cast(x, out.dtype)


def _expand(graph: Any, out: Any, x: str, sizes: list) -> str:
    result = graph.op("Expand", x, graph.shape([1 if size == -1 else size for size in sizes]))
    if all(size == -1 for size in sizes[1:]):
        graph.expanded[result] = x
    return result


def _bmm(graph: Any, out: Any, x: str, y: str) -> str:
    """Translate products of matrices, without copies of one that is the same for each sample."""
    return graph.op("MatMul", graph.expanded.get(x, x), graph.expanded.get(y, y))


def _reshape(graph: Any, out: Any, x: str, sizes: list) -> str:
    sizes = [known if isinstance(known, int) else size for size, known in zip(sizes, out.shape, strict=True)]
    # A size of zero is that of no samples, not that of the dimension before, unless another size is unknown.
    return graph.op("Reshape", x, graph.shape(sizes), allowzero=int(-1 not in sizes))


def _transpose(graph: Any, out: Any, x: str, first: int = 0, second: int = 1) -> str:
    order = list(range(out.dim()))
    order[first], order[second] = order[second], order[first]
    return graph.op("Transpose", x, perm=order)


# By what they are called in ONNX: operations on each value, and on pairs of values.
UNARY = {
    **{name.capitalize(): [name] for name in ("abs", "ceil", "cos", "exp", "floor", "log", "neg", "reciprocal")},
    **{name.capitalize(): [name] for name in ("relu", "round", "sin", "sqrt", "tanh")},
    "IsInf": ["isinf"],
    "IsNaN": ["isnan"],
    "Not": ["bitwise_not", "logical_not"],
    "Sign": ["sgn", "sign"],
}
BINARY: dict[str, list[Any]] = {
    "Add": [aten.add, operator.add],
    "And": [aten.bitwise_and, aten.logical_and],
    "Div": [aten.div, operator.floordiv, operator.truediv],
    "Equal": [aten.eq],
    "Greater": [aten.gt],
    "GreaterOrEqual": [aten.ge],
    "Less": [aten.lt],
    "LessOrEqual": [aten.le],
    "Max": [aten.maximum, aten.clamp_min],
    "Min": [aten.minimum, aten.clamp_max],
    "Mul": [aten.mul, operator.mul],
    "Or": [aten.bitwise_or, aten.logical_or],
    "Sub": [aten.sub, operator.sub],
}
# Called with the graph, what results in the example, and the arguments, of which tensors are names.
OPERATIONS: dict[Any, Callable] = {
    **{getattr(aten, name): _unary(kind) for kind, names in UNARY.items() for name in names},
    **{operation: _binary(kind) for kind, operations in BINARY.items() for operation in operations},
    **dict.fromkeys((aten._to_copy, aten.alias, aten.clone, aten.detach, aten.lift_fresh_copy), _same),
    **dict.fromkeys((aten.view, aten._unsafe_view), _reshape),
    **dict.fromkeys((aten.t, aten.transpose), _transpose),
    torch.sym_float: lambda graph, out, x: graph.cast(x, torch.float64),
    aten.rsub: _binary("Sub", swapped=True),
    aten.ne: lambda graph, out, x, y: graph.op("Not", _binary("Equal")(graph, out, x, y)),
    aten.pow: _power,
    aten.expm1: lambda graph, out, x: graph.op("Sub", graph.op("Exp", x), graph.cast(1.0, out.dtype)),
    aten.log1p: lambda graph, out, x: graph.op("Log", graph.op("Add", x, graph.cast(1.0, out.dtype))),
    aten.rsqrt: lambda graph, out, x: graph.op("Reciprocal", graph.op("Sqrt", x)),
    aten.clamp: _clamp,
    aten.hardtanh: lambda graph, out, x, lowest=-1.0, highest=1.0: _clamp(graph, out, x, lowest, highest),
    aten.where: lambda graph, out, condition, *values: graph.op(
        "Where", condition, *(graph.cast(value, out.dtype) for value in values)
    ),
    aten.sum: _reduction("ReduceSum"),
    aten.mean: _reduction("ReduceMean"),
    aten.amax: _reduction("ReduceMax"),
    aten.amin: _reduction("ReduceMin"),
    aten.any: _any,
    aten.cumsum: lambda graph, out, x, dim: graph.op("CumSum", x, graph.constant(torch.tensor(dim))),
    aten.mm: lambda graph, out, x, y: graph.op("MatMul", x, y),
    aten.bmm: _bmm,
    aten.cat: lambda graph, out, parts, dim=0: graph.op(
        "Concat", *(graph.cast(part, out.dtype) for part in parts), axis=dim
    ),
    aten.full: _full,
    aten.full_like: _full_like(),
    aten.ones_like: _full_like(1),
    aten.zeros_like: _full_like(0),
    aten.scalar_tensor: lambda graph, out, value, **options: graph.cast(value, out.dtype),
    aten.sym_size: lambda graph, out, x, dim: graph.op("Shape", x, start=dim, end=dim + 1),
    aten.expand: _expand,
    aten.unsqueeze: lambda graph, out, x, dim: graph.op("Unsqueeze", x, graph.shape([dim])),
    aten.squeeze: lambda graph, out, x, dims: graph.op(
        "Squeeze", x, graph.shape([dims] if isinstance(dims, int) else dims)
    ),
    aten.permute: lambda graph, out, x, order: graph.op("Transpose", x, perm=[dim % out.dim() for dim in order]),
    aten.slice: _slice,
    aten.select: lambda graph, out, x, dim, index: graph.op("Gather", x, graph.constant(torch.tensor(index)), axis=dim),
    aten.index_select: lambda graph, out, x, dim, index: graph.op("Gather", x, index, axis=dim),
    aten.index: _index,
    aten.index_put: _index_put,
    aten.copy: lambda graph, out, x, value: graph.op("Expand", graph.cast(value, out.dtype), graph.op("Shape", x)),
    aten.constant_pad_nd: _pad,
}
