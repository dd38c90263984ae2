"""ONNX graphs, to which traced functions are added, and what a fitted network computes as such a graph."""

import copy
import importlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.node import map_arg

from skae._network.projection import ProjectionState, first_state, next_state
from skae._network.scaling import ScaledAutoEncoder
from skae._onnx.operations import OPERATIONS, dtype_of
from skae._onnx.tracing import solve, traced, untranslated

# Operator set and version of the file format, which onnxruntime has known since 2023.
OPSET, IR_VERSION = 18, 8
# Number of samples of an example, which stands for any number.
EXAMPLE_SAMPLES = 7


class Graph:
    """Nodes and constants of a graph in double precision, to which traced functions are added one after the other.

    Parameters
    ----------
    prefix : str
        Beginning of all names.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
        The nodes.
    constants : list of onnx.TensorProto
        The constants.
    dtypes : dict
        The torch dtypes of values whose dtype is known.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.dtypes: dict[str, torch.dtype] = {}
        self._names = (f"{prefix}_{number}" for number in itertools.count())
        self._known: dict[Any, str] = {}

    def op(self, kind: str, *inputs: Any, results: int = 1, **attributes: Any) -> str:
        """Add an operator, unless the same has been added before, and return the name of its first result."""
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        key = (kind, *names, repr(attributes))
        if key not in self._known:
            self._known[key] = next(self._names)
            self.add(kind, names, [self._known[key], *itertools.islice(self._names, results - 1)], **attributes)
        return self._known[key]

    def add(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """Add an operator with these results."""
        # Some versions of onnxruntime confuse nodes without names.
        self.nodes.append(package("onnx").helper.make_node(kind, inputs, outputs, outputs[0], **attributes))

    def constant(self, value: Tensor) -> str:
        """Add a constant, unless the same has been added before, and return its name."""
        array = value.detach().cpu().contiguous().numpy()
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = next(self._names)
            self.constants.append(package("onnx").numpy_helper.from_array(array, self._known[key]))
            self.dtypes[self._known[key]] = value.dtype
        return self._known[key]

    def cast(self, value: Any, dtype: torch.dtype) -> str:
        """Return the name of a value, constant or number in this dtype."""
        if not isinstance(value, str):
            return self.constant(torch.as_tensor(value, dtype=dtype))
        if self.dtypes.get(value) == dtype:
            return value
        name = self.op("Cast", value, to=tensor_type(dtype))
        self.dtypes[name] = dtype
        return name

    def casts(self, values: Iterable[Any], dtype: torch.dtype) -> list[str]:
        """Return the names of several values in this dtype."""
        return [self.cast(value, dtype) for value in values]

    def shape(self, sizes: Any) -> str:
        """Return the name of a list of whole numbers, some of which may be names themselves, or of a single one."""
        sizes = [sizes] if isinstance(sizes, int | str) else sizes
        if all(isinstance(size, int) for size in sizes):
            return self.constant(torch.tensor(sizes, dtype=torch.int64))
        return self.op("Concat", *(size if isinstance(size, str) else self.shape(size) for size in sizes), axis=0)

    def call(self, function: Callable, names: Sequence[str], examples: Sequence[Tensor]) -> list[str]:
        """Add a function of some values.

        Parameters
        ----------
        function : callable
            Maps tensors to a tuple of tensors. The first dimension of each is the number of samples.
        names : sequence of str
            Names of the values.
        examples : sequence of Tensor
            Examples of the values.

        Returns
        -------
        list of str
            Names of the results.

        Raises
        ------
        NotImplementedError
            If the function cannot be traced, or an operation has no translation.
        """
        graph, inputs = traced(function, examples), iter(names)
        values: dict[torch.fx.Node, Any] = {}  # names, and constants as tensors
        for node in graph.nodes:
            args, kwargs = map_arg((node.args, node.kwargs), values.get)
            if node.op == "placeholder":
                values[node] = next(inputs)
            elif node.op == "get_attr":
                values[node] = getattr(graph.owning_module, node.target)
            elif node.op == "output":
                results = args[0]
            elif any(isinstance(values[one], str) for one in node.all_input_nodes):
                values[node] = self._translated(node, args, kwargs)
            else:
                values[node] = node.target(*args, **kwargs)
            if isinstance(values.get(node), str):
                self.dtypes[values[node]] = dtype_of(node.meta["val"])
        return [one if isinstance(one, str) else self.constant(one) for one in results]

    def _translated(self, node: torch.fx.Node, args: Any, kwargs: Any) -> str:
        """Add an operation of torch."""
        try:
            operation = OPERATIONS[getattr(node.target, "overloadpacket", node.target)]
            return operation(self, node.meta["val"], *args, **kwargs)
        except (KeyError, TypeError, ValueError) as error:
            raise untranslated(f"contains the operation {node.target}, which has no translation") from error

    def loop(
        self, step: Callable, fixed: Sequence[str], state: Sequence[str], examples: Sequence[Tensor], n_steps: int
    ) -> list[str]:
        """Add steps to the next state of the samples for which its last value is true, as long as there are some.

        Parameters
        ----------
        step : callable
            Maps fixed values and state to the next state.
        fixed, state : sequence of str
            Names of the fixed values and of the first state.
        examples : sequence of Tensor
            Examples of both.
        n_steps : int
            Largest number of steps.

        Returns
        -------
        list of str
            Names of the last state.
        """
        body = Graph(next(self._names))
        dtypes = [example.dtype for example in examples[len(fixed) :]]
        number, going, *before = itertools.islice(body._names, 2 + len(state))
        chosen = body.op("Squeeze", body.op("NonZero", before[-1]), body.shape(0))
        some = [body.op("Gather", name, chosen, axis=0) for name in [*fixed, *before]]
        after = body.call(step, some, examples)
        rows = body.op("Unsqueeze", chosen, body.shape(1))
        results = [body.op("ScatterND", *values) for values in zip(before, [rows] * len(before), after, strict=True)]
        some_going = body.cast(body.op("ReduceSum", body.cast(after[-1], torch.int64), keepdims=0), torch.bool)
        inputs = [_port(number, torch.int64, []), _port(going, torch.bool, []), *map(_port, before, dtypes)]
        outputs = map(_port, [some_going, *results], [torch.bool, *dtypes])
        inner = package("onnx").helper.make_graph(body.nodes, body.prefix, inputs, outputs, body.constants)
        last = [next(self._names) for _ in state]
        ends = self.cast(n_steps, torch.int64), self.cast(True, torch.bool)
        self.add("Loop", [*ends, *state], last, body=inner)
        return last


def package(name: str) -> Any:
    """Return onnx, skl2onnx or a module of them.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = name.partition(".")[0]
        raise ImportError(f'skae.onnx needs the {missing} package: pip install "skae[onnx]".') from error


def tensor_type(dtype: torch.dtype) -> int:
    """Return what ONNX calls a dtype."""
    return package("onnx").helper.np_dtype_to_tensor_dtype(torch.empty(0, dtype=dtype).numpy().dtype)


def _port(name: str, dtype: torch.dtype, shape: list | None = None) -> Any:
    """Return an input or output of a graph."""
    return package("onnx").helper.make_tensor_value_info(name, tensor_type(dtype), shape)


def traceable(module: ScaledAutoEncoder) -> ScaledAutoEncoder:
    """Return a copy on the CPU, in double precision and without gradients by the weights."""
    return copy.deepcopy(module).cpu().double().eval().requires_grad_(False)


def add_codes(graph: Graph, model: ScaledAutoEncoder, x: str) -> str:
    """Add what `ScaledAutoEncoder.project` computes, and return the name of the codes.

    Parameters
    ----------
    graph : Graph
        The graph.
    model : ScaledAutoEncoder
        A network, from `traceable`.
    x : str
        Name of the samples.
    """
    normal = np.random.RandomState(0).standard_normal((EXAMPLE_SAMPLES, model.architecture.n_features))
    example = model.mean + model.divisor * torch.from_numpy(normal)
    n_steps = model.projection.n_steps

    def loss_of(x: Tensor) -> Any:
        standardized = (x - model.mean) / model.divisor
        return model.code_loss(standardized) if model.filling is None else model.incomplete_code_loss(standardized)

    def begin(x: Tensor) -> tuple[Tensor, ...]:
        loss = loss_of(x)
        return (*loss.tensors, *first_state(loss, model.starts(_standardized(model, x)), model.metric))

    def step(*values: Tensor) -> tuple[Tensor, ...]:
        return tuple(next_state(loss.of(*values[:n_fixed]), ProjectionState(*values[n_fixed:]), model.metric))

    def end(x: Tensor, *projected: Tensor) -> tuple[Tensor]:
        filled = _standardized(model, x)
        z = projected[0] if projected else model.shrunk(model.network.encode(filled), x)
        if projected and model.filling is not None and not model.projection.incomplete:
            z = torch.where(x.isnan().any(dim=1, keepdim=True), model.network.encode(filled), z)
        # Adds nothing but where a sample is not finite, whatever the operators make of that.
        return (z * model.code_unit + (filled - filled).sum(dim=1, keepdim=True),)

    if n_steps == 0:
        return graph.call(end, [x], [example])[0]
    loss = loss_of(example)
    n_fixed, examples = len(loss.tensors), begin(example)
    names = graph.call(begin, [x], [example])
    last = graph.loop(step, names[:n_fixed], names[n_fixed:], examples, n_steps)
    return graph.call(end, [x, last[0]], [example, examples[n_fixed]])[0]


def _standardized(model: ScaledAutoEncoder, x: Tensor) -> Tensor:
    """Standardize and impute, without a choice that depends on values."""
    x = (x - model.mean) / model.divisor
    return x if model.filling is None else model.filling.imputed(x.isnan(), torch.where(x.isnan(), 0.0, x), solve)


def decoder_model(module: ScaledAutoEncoder) -> Any:
    """Return the decoder as a model from "codes" to "X", which have the precision of the network."""
    model, graph, dtype = traceable(module), Graph("skae"), module.mean.dtype
    sizes, helper = model.architecture, package("onnx").helper
    example = torch.zeros((EXAMPLE_SAMPLES, sizes.n_components), dtype=torch.float64)
    (result,) = graph.call(lambda z: (model.decode(z),), [graph.cast("codes", torch.float64)], [example])
    graph.add("Cast", [result], ["X"], to=tensor_type(dtype))
    inputs = [_port("codes", dtype, [None, sizes.n_components])]
    outputs = [_port("X", dtype, [None, sizes.n_features])]
    proto = helper.make_graph(graph.nodes, "decoder", inputs, outputs, graph.constants)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(proto, opset_imports=[opset], ir_version=IR_VERSION, producer_name="skae")
