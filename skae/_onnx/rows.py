"""What is done for some rows alone: better codes for those beyond the limits, values for those that lack some."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from skae._network.projection import JACOBIAN_VALUES, REFINEMENT_STEPS
from skae._onnx.flow import Flow
from skae._onnx.graph import Graph, Port, tensor_type
from skae._pca.missing import PPCAImputer


def for_samples(
    graph: Graph,
    chosen: str,
    rows: str,
    complement: Sequence[str],
    change: Callable[..., str],
    n_values: int,
    dtype: Any,
) -> str:
    """Replace some rows by what is made of them, a bounded number of rows at a time.

    Parameters
    ----------
    graph : Graph
        Gets a loop, which takes no turn where no row is chosen.
    chosen : str
        Whether each row is, of shape (n, 1).
    rows : str
        Of shape (n, width).
    others : sequence of str
        Further values of each row.
    change : callable
        Called with the graph of the loop, rows and further values of some rows; returns new rows.
    n_values : int
        Values that one row asks memory for.
    dtype : numpy dtype
        In which the change is made.

    Returns
    -------
    str
        All rows, the chosen ones changed.
    """
    n_samples = max(JACOBIAN_VALUES // n_values, 1)
    where = graph.op("Reshape", graph.op("NonZero", graph.op("Reshape", chosen, [-1])), [-1])
    n_chosen = graph.op("Shape", where)
    n_turns = graph.op(
        "Reshape", graph.op("Div", graph.op("Add", n_chosen, [n_samples - 1]), [n_samples]), np.array([], int)
    )

    def turn(body, number, where, rows, *complement):
        start = body.op("Mul", body.op("Reshape", number, [1]), [n_samples])
        some = body.op("Slice", where, start, body.op("Add", start, [n_samples]))
        changed = change(body, *(body.op("Gather", values, some) for values in (rows, *complement)))
        return where, body.op("ScatterND", rows, body.op("Unsqueeze", some, [1]), changed), *complement

    cast = [graph.op("Cast", values, to=tensor_type(dtype)) for values in (rows, *complement)]
    carried = [Port(where, np.int64, (None,)), *(Port(name, dtype, (None, None)) for name in cast)]
    changed = graph.loop(n_turns, carried, turn, alone=True, dtype=dtype)[1]
    return graph.op("Cast", changed, to=tensor_type(graph.dtype))


def refined(graph: Graph, z: str, x: str, other: str, decoder: Callable[..., Flow], n_components: int) -> str:
    """Take Levenberg-Marquardt steps from the better of two codes of each row, as `skae._codes.refined_codes` does."""

    def errors_of(graph, codes):
        return squared_norm(graph, graph.op("Sub", x, decoder(graph, z=Flow(codes)).value))

    errors, other_errors = errors_of(graph, z), errors_of(graph, other)
    z = graph.op("Where", graph.op("Less", other_errors, errors), other, z)
    errors = graph.op("Min", errors, other_errors)
    damping = graph.op("Where", graph.op("IsNaN", errors), 1.0, 1.0)
    identity = np.eye(n_components)

    def turn(graph, number, z, errors, damping):
        at = decoder(graph, z=Flow(z, graph.constant(identity[np.newaxis])))
        offset = graph.op("Unsqueeze", graph.op("Sub", x, at.value), [2])
        gradient = graph.op("MatMul", at.tangents, offset)
        curvature = graph.op("MatMul", at.tangents, graph.op("Transpose", at.tangents, perm=[0, 2, 1]))
        diagonal = graph.op("ReduceSum", graph.op("Mul", curvature, identity), [2], keepdims=0)
        floor = graph.op("Mul", graph.op("ReduceMax", diagonal, [1], keepdims=1), float(np.finfo(graph.dtype).eps))
        ridge = graph.op("Add", graph.op("Mul", damping, diagonal), floor)
        damped = graph.op("Add", curvature, graph.op("Mul", graph.op("Unsqueeze", ridge, [2]), identity))
        moved = graph.op("Add", z, solution(graph, damped, gradient, n_components))
        moved_errors = errors_of(graph, moved)
        better = graph.op("Less", moved_errors, graph.op("Mul", errors, 1.0 - 1e-4))
        less, more = graph.op("Mul", damping, 0.3), graph.op("Mul", damping, 4.0)
        pairs = (moved, z), (moved_errors, errors), (less, more)
        return [graph.op("Where", better, *pair) for pair in pairs]

    carried = [Port(name, graph.dtype, (None, None)) for name in (z, errors, damping)]
    return graph.loop(np.array(REFINEMENT_STEPS), carried, turn)[0]


def squared_norm(graph: Graph, rows: str) -> str:
    """Sum of squares of each row, of shape (n, 1)."""
    return graph.op("ReduceSum", graph.op("Mul", rows, rows), [1], keepdims=1)


def solution(graph: Graph, matrices: str, vectors: str, size: int) -> str:
    """Solve positive definite systems, of shapes (n, size, size) and (n, size, 1), by Gauss-Jordan elimination.

    Such matrices need no exchange of rows. The result has shape (n, size).
    """

    def turn(graph, number, system):
        row = graph.op("Gather", system, number, axis=1)
        row = graph.op("Div", row, graph.op("Unsqueeze", graph.op("Gather", row, number, axis=1), [1]))
        # Less one at the pivot, so that its row becomes the divided one and all other rows lose their share of it.
        column = graph.op("Sub", graph.op("Gather", system, number, axis=2), graph.op("Gather", np.eye(size), number))
        product = graph.op("Mul", graph.op("Unsqueeze", column, [2]), graph.op("Unsqueeze", row, [1]))
        return [graph.op("Sub", system, product)]

    system = graph.op("Concat", matrices, vectors, axis=2)
    (solved,) = graph.loop(np.array(size), [Port(system, graph.dtype, (None, size, size + 1))], turn)
    return graph.op("Gather", solved, np.array(size), axis=2)


def without_missing(graph: Graph, filling: PPCAImputer, x: str) -> str:
    """Fill in missing values of standardised rows, as `PPCAImputer` does."""
    components, ridge = filling.components.numpy(), filling.ridge.numpy()
    size = len(components)

    def filled(graph, rows):
        missing = graph.op("IsNaN", rows)
        there = graph.op("Where", missing, 0.0, 1.0)
        known = graph.op("Where", missing, 0.0, rows)
        pairs = (components[:, np.newaxis] * components).reshape(size * size, -1)
        products = graph.op("Reshape", graph.op("MatMul", there, pairs.T), [-1, size, size])
        matrices = graph.op("Add", products, np.diag(ridge))
        vectors = graph.op("Unsqueeze", graph.op("MatMul", known, components.T), [2])
        codes = solution(graph, matrices, vectors, size)
        return graph.op("Where", missing, graph.op("MatMul", codes, components), known)

    missing = graph.op("CastLike", graph.op("IsNaN", x), x)
    incomplete = graph.op("Greater", graph.op("ReduceMax", missing, [1], keepdims=1), 0.0)
    return for_samples(graph, incomplete, x, (), filled, max(filling.components.numel(), size * size), graph.dtype)
