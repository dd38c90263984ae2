"""Operations of torch and the same in ONNX."""

import operator
from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten


def dtype_of(value: Any) -> torch.dtype:
    """Return the dtype of a tensor or number."""
    return getattr(value, "dtype", torch.float64 if isinstance(value, torch.SymFloat) else torch.int64)


def _plain(kind: str) -> Callable:
    """Translate an operation on tensors of the same dtype."""
    return lambda graph, out, *inputs: graph.op(kind, *inputs)


def _binary(kind: str) -> Callable:
    """Translate an operation on pairs of values."""

    def translate(graph: Any, out: Any, x: Any, y: Any, alpha: float = 1) -> str:
        compares = dtype_of(out) == torch.bool and kind not in ("And", "Or")
        dtype = torch.float64 if compares else dtype_of(out)
        x, y = graph.casts([x, y], dtype)
        return graph.op(kind, x, y if alpha == 1 else graph.op("Mul", y, graph.cast(alpha, dtype)))

    return translate


def _reduction(kind: str) -> Callable:
    """Translate a sum, mean or extreme along some dimensions."""

    def translate(graph: Any, out: Any, x: Any, dims: Any = (), keepdim: bool = False, **options: Any) -> str:
        axes = [] if dims in ((), []) else [graph.shape(dims)]
        return graph.op(kind, graph.cast(x, out.dtype), *axes, keepdims=int(keepdim))

    return translate


def _any(graph: Any, out: Any, x: Any, *options: Any) -> str:
    as_numbers = graph.cast(x, torch.int32)
    largest = _reduction("ReduceMax")(graph, torch.zeros((), dtype=torch.int32), as_numbers, *options)
    return graph.cast(largest, out.dtype)


def _extremes(graph: Any, out: Any, x: Any, k: int, dim: int = -1, largest: bool = True, in_order: bool = True) -> str:
    return graph.op("TopK", x, graph.shape(k), results=2, axis=dim, largest=int(largest), sorted=int(in_order))


def _clamp(graph: Any, out: Any, x: Any, min: Any = None, max: Any = None) -> str:
    for kind, limit in (("Max", min), ("Min", max)):
        x = x if limit is None else graph.op(kind, x, graph.cast(limit, out.dtype))
    return x


def _slice(graph: Any, out: Any, x: Any, dim: int = 0, first: Any = 0, last: Any = None, step: int = 1) -> str:
    last = torch.iinfo(torch.int64).max if last is None else last
    return graph.op("Slice", x, *(graph.shape(value) for value in (first or 0, last, dim, step)))


def _index(graph: Any, out: Any, x: Any, indices: list) -> str:
    """Translate a choice along one dimension."""
    ((axis, index),) = ((dim, index) for dim, index in enumerate(indices) if index is not None)
    if isinstance(index, torch.Tensor) and index.dtype == torch.bool:
        (index,) = index.nonzero(as_tuple=True)
    return _gather(graph, out, x, axis, index)


def _index_put(graph: Any, out: Any, x: Any, indices: list, values: Any, accumulate: bool = False) -> str:
    """Translate what is written to, or added to, places along one dimension."""
    ((axis, index),) = ((dim, index) for dim, index in enumerate(indices) if index is not None)
    sizes = [-1 if dim == axis else 1 for dim in range(out.dim())]
    places = graph.op("Reshape", graph.cast(index, torch.int64), graph.shape(sizes))
    places = graph.op("Expand", places, graph.op("Shape", values))
    return graph.op("ScatterElements", x, places, values, axis=axis, reduction="add" if accumulate else "none")


def _pad(graph: Any, out: Any, x: Any, pads: list, value: float = 0.0) -> str:
    rest = [0] * (out.dim() - len(pads) // 2)
    before, after = [*rest, *pads[-2::-2]], [*rest, *pads[::-2]]
    return graph.op("Pad", x, graph.shape([*before, *after]), graph.cast(value, out.dtype))


def _gather(graph: Any, out: Any, x: Any, dim: int, index: Any) -> str:
    return graph.op("Gather", x, graph.cast(index, torch.int64), axis=dim)


def _same(graph: Any, out: Any, x: Any, **options: Any) -> str:
    return graph.cast(x, dtype_of(out))


def _expand(graph: Any, out: Any, x: Any, sizes: list, **options: Any) -> str:
    return graph.op("Expand", graph.cast(x, out.dtype), graph.shape([1 if size == -1 else size for size in sizes]))


def _like(graph: Any, out: Any, x: Any, value: Any, **options: Any) -> str:
    return graph.op("Expand", graph.cast(value, out.dtype), graph.op("Shape", x))


def _reshape(graph: Any, out: Any, x: Any, sizes: list) -> str:
    sizes = [known if isinstance(known, int) else size for size, known in zip(sizes, out.shape, strict=True)]
    # A size of zero is that of no samples, not that of the dimension before, unless another size is unknown.
    return graph.op("Reshape", x, graph.shape(sizes), allowzero=int(-1 not in sizes))


# By what they are called in ONNX.
PLAIN = {
    **{name.capitalize(): [getattr(aten, name)] for name in ("abs", "exp", "log", "neg", "reciprocal", "relu")},
    **{name.capitalize(): [getattr(aten, name)] for name in ("sign", "sin", "sqrt", "tanh")},
    "IsInf": [aten.isinf],
    "IsNaN": [aten.isnan],
    "MatMul": [aten.mm, aten.bmm],
    "Not": [aten.bitwise_not, aten.logical_not],
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
    "Max": [aten.maximum],
    "Min": [aten.minimum],
    "Mul": [aten.mul, operator.mul],
    "Or": [aten.bitwise_or, aten.logical_or],
    "Pow": [aten.pow],
    "Sub": [aten.sub, operator.sub],
}
REDUCTIONS = {"ReduceMax": [aten.amax], "ReduceMean": [aten.mean], "ReduceMin": [aten.amin], "ReduceSum": [aten.sum]}
# Called with the graph, the result of the example, and the arguments, of which tensors are names or constants.
OPERATIONS: dict[Any, Callable] = {
    **dict.fromkeys((aten._to_copy, aten.alias, aten.clone, aten.detach, aten.lift_fresh_copy, torch.sym_float), _same),
    **dict.fromkeys((aten.copy, aten.full_like), _like),
    **dict.fromkeys((aten.index_select, aten.select), _gather),
    aten.sym_size: lambda graph, out, x, dim: graph.op("Shape", x, start=dim, end=dim + 1),
    aten.any: _any,
    aten.argmin: lambda graph, out, x, dim: graph.op("ArgMin", x, axis=dim, keepdims=0),
    aten.clamp: _clamp,
    aten.topk: _extremes,
    operator.getitem: lambda graph, out, values, index: {0: values}[index],  # without the indices of extremes
    aten.where: lambda graph, out, condition, *values: graph.op("Where", condition, *graph.casts(values, out.dtype)),
    aten.cat: lambda graph, out, parts, dim=0: graph.op("Concat", *graph.casts(parts, out.dtype), axis=dim),
    aten.full: lambda graph, out, sizes, value, **options: _expand(graph, out, value, sizes),
    aten.expand: _expand,
    aten.view: _reshape,
    aten.unsqueeze: lambda graph, out, x, dim: graph.op("Unsqueeze", x, graph.shape(dim)),
    aten.squeeze: lambda graph, out, x, dims: graph.op("Squeeze", x, graph.shape(dims)),
    aten.permute: lambda graph, out, x, order: graph.op("Transpose", x, perm=[dim % out.dim() for dim in order]),
    aten.slice: _slice,
    aten.index: _index,
    aten.index_put: _index_put,
    aten.constant_pad_nd: _pad,
}
for translation, kinds in ((_plain, PLAIN), (_binary, BINARY), (_reduction, REDUCTIONS)):
    for kind, operations in kinds.items():
        OPERATIONS |= dict.fromkeys(operations, translation(kind))
