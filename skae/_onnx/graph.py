"""Graphs of ONNX nodes, written down without the onnx package until one is wanted as a protobuf."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# The first operator set in which all reductions take their axes as an input.
OPSET = 18
# Files of this version are read by every onnxruntime that knows the operator set.
IR_VERSION = 8
Operand = str | float | NDArray | torch.Tensor | Sequence[int]
Shape = tuple[int | None, ...]
Turn = Callable[..., Sequence[str]]


@dataclass(frozen=True)
class Node:
    """One operator, its operands and results by name."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Port:
    """An input or output of a graph; None in a shape is any number."""

    name: str
    dtype: Any
    shape: Shape


@dataclass
class Graph:
    """A graph that grows node by node.

    Parameters
    ----------
    dtype : numpy dtype
        Of the floating-point values, constants among them.
    names : iterator of str
        New names, shared by a graph and the graphs inside it.
    home : Graph or None
        The graph that keeps the constants; None if it is this one.
    """

    dtype: Any
    names: Iterator[str]
    home: "Graph | None" = None
    constants: dict[tuple, tuple[str, NDArray]] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)

    def op(self, kind: str, *operands: Operand, **attributes: Any) -> str:
        """Append an operator and return the name of its result; operands that are no names become constants."""
        return self.ops(1, kind, *operands, **attributes)[0]

    def ops(self, n_outputs: int, kind: str, *operands: Operand, **attributes: Any) -> tuple[str, ...]:
        """Append an operator of several results."""
        inputs = tuple(operand if isinstance(operand, str) else self.constant(operand) for operand in operands)
        outputs = tuple(next(self.names) for _ in range(n_outputs))
        self.nodes.append(Node(kind, inputs, outputs, attributes))
        return outputs

    def constant(self, value: Any) -> str:
        """Name a constant; numbers with a fraction and all tensors get the dtype of the graph."""
        if self.home is not None:
            return self.home.constant(value)
        array = np.asarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value)
        array = np.array(array, self.dtype if array.dtype.kind == "f" else array.dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = (next(self.names), array)
        return self.constants[key][0]

    def input(self, port: Port) -> str:
        """Declare an input."""
        self.inputs.append(port)
        return port.name

    def output(self, value: str, port: Port) -> None:
        """Hand a value to an output."""
        self.nodes.append(Node("Identity", (value,), (port.name,), {}))
        self.outputs.append(port)

    def loop(
        self, n_turns: Operand, carried: Sequence[Port], turn: Turn, alone: bool = False, dtype: Any = None
    ) -> tuple[str, ...]:
        """Run a graph a number of times, perhaps never.

        Parameters
        ----------
        n_turns : operand
            How often.
        carried : sequence of Port
            The values that a turn gets and returns.
        turn : callable
            Called with the graph, the name of the number of the turn and the names of the values; returns the names of
            the new values.
        alone : bool, default=False
            Whether the graph keeps its constants in itself. It must then use no value from outside.
        dtype : numpy dtype, default=None
            Of the graph's own constants where it is alone; None is that of this graph.

        Returns
        -------
        tuple of str
            The values after the last turn.
        """
        graph = Graph(self.dtype if dtype is None else dtype, self.names, None if alone else self.home or self)
        ports = [Port("", np.int64, ()), Port("", np.bool_, ()), *carried]
        number, going_on, *values = (graph.input(replace(port, name=next(self.names))) for port in ports)
        results = turn(graph, number, *values)
        for value, port in zip((going_on, *results), ports[1:], strict=True):
            graph.output(value, replace(port, name=next(self.names)))
        return self.ops(len(carried), "Loop", n_turns, np.array(True), *(port.name for port in carried), body=graph)


def array(tensor: torch.Tensor) -> NDArray:
    """A copy of a tensor in memory of its own."""
    return tensor.detach().cpu().numpy().copy()


def numbered(prefix: str) -> Iterator[str]:
    """Names that begin alike."""
    return (f"{prefix}_{number}" for number in itertools.count())


def attributes_of(node: Node) -> dict[str, Any]:
    """The attributes of a node, graphs among them as protobufs."""
    return {
        key: graph_proto(value, key) if isinstance(value, Graph) else value for key, value in node.attributes.items()
    }


def graph_proto(graph: Graph, name: str) -> Any:
    """A graph with its constants as a protobuf."""
    helper = onnx_package().helper
    ports = [
        [helper.make_tensor_value_info(port.name, tensor_type(port.dtype), port.shape) for port in ports]
        for ports in (graph.inputs, graph.outputs)
    ]
    nodes = [helper.make_node(node.kind, node.inputs, node.outputs, **attributes_of(node)) for node in graph.nodes]
    return helper.make_graph(nodes, name, *ports, initializer=constant_protos(graph))


def model_proto(graph: Graph, name: str) -> Any:
    """A graph as a model of its own, checked."""
    onnx = onnx_package()
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(
        graph_proto(graph, name), opset_imports=[opset], ir_version=IR_VERSION, producer_name="skae"
    )
    onnx.checker.check_model(model)
    return model


def evaluated(graph: Graph, values: dict[str, NDArray]) -> Any:
    """The outputs of a graph for some inputs, by the definitions of the operators in the onnx package."""
    onnx_package()
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model_proto(graph, "values")).run(None, values)


def constant_protos(graph: Graph) -> list:
    """The constants of a graph as protobufs."""
    to_proto = onnx_package().numpy_helper.from_array
    return [to_proto(array, name) for name, array in graph.constants.values()]


def tensor_type(dtype: Any) -> int:
    """What ONNX calls a numpy dtype."""
    return onnx_package().helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def onnx_package() -> Any:
    """The onnx package, or an error that says where it comes from."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError('skae.onnx needs the onnx package: pip install "skae[onnx]".') from error
    return onnx
