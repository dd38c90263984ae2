"""Put traced functions together into one ONNX graph, with the steps of the projection as a loop."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skae._network.projection import ProjectionState, first_state, next_state
from skae._network.scaling import ScaledAutoEncoder
from skae._onnx.tracing import EXAMPLE_SAMPLES, IR_VERSION, OPSET, check_packages, erf, exported, solve
from skae._pca.missing import PPCAImputer


class Graph:
    """Nodes and constants of a graph, to which traced functions are added one after the other.

    Parameters
    ----------
    prefix : str
        Beginning of all names.
    dtype : torch.dtype, default=torch.float64
        Precision of the computation.

    Attributes
    ----------
    nodes : list of onnx.NodeProto
        The nodes.
    constants : list of onnx.TensorProto
        The constants.
    """

    def __init__(self, prefix: str = "skae", dtype: torch.dtype = torch.float64) -> None:
        self.prefix = prefix
        self.dtype = dtype
        self.erf: Any = None
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.n_parts = 0

    def call(self, function: Callable, names: Sequence[str], examples: Sequence[Tensor]) -> list[str]:
        """Add a function of some values, and return the names of its results."""
        nodes, results = self._part(function, names, examples)
        self.nodes += nodes
        return results

    def loop(
        self, step: Callable, fixed: Sequence[str], state: Sequence[str], examples: Sequence[Tensor], n_steps: int
    ) -> list[str]:
        """Add a loop whose steps map fixed values and a state to the next state, while the last of it has a true value.

        Parameters
        ----------
        step : callable
            Maps the fixed values and the state to the next state.
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
        from onnx import TensorProto, helper

        inside, n_constants = [self._name() for _ in state], len(self.constants)
        nodes, results = self._part(step, [*fixed, *inside], examples)
        constants = self.constants[n_constants:]
        del self.constants[n_constants:]
        number, going, counted, reduced, goes_on = (self._name() for _ in range(5))
        nodes += [
            helper.make_node("Cast", [results[-1]], [counted], to=TensorProto.INT32),
            helper.make_node("ReduceSum", [counted], [reduced], keepdims=0),
            helper.make_node("Cast", [reduced], [goes_on], to=TensorProto.BOOL),
        ]
        # A name may leave the body only once, and an input may not leave it at all.
        kept = [self._name() for _ in results]
        nodes += [helper.make_node("Identity", [one], [name]) for one, name in zip(results, kept, strict=True)]
        types = [_tensor_type(example.dtype) for example in examples[len(fixed) :]]
        scalars = (number, TensorProto.INT64), (going, TensorProto.BOOL)
        inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in scalars]
        inputs += [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(inside, types, strict=True)]
        outputs = [helper.make_tensor_value_info(goes_on, TensorProto.BOOL, [])]
        outputs += [helper.make_tensor_value_info(name, kind, None) for name, kind in zip(kept, types, strict=True)]
        most, first, last = (
            self.constant(np.array(n_steps)),
            self.constant(np.array(True)),
            [self._name() for _ in state],
        )
        body = helper.make_graph(nodes, self._name(), inputs, outputs, constants)
        self.nodes.append(helper.make_node("Loop", [most, first, *state], last, body=body))
        return last

    def constant(self, value: np.ndarray) -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        name = self._name()
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def _name(self) -> str:
        self.n_parts += 1
        return f"{self.prefix}_{self.n_parts}"

    def _part(self, function: Callable, names: Sequence[str], examples: Sequence[Tensor]) -> tuple[list, list[str]]:
        """Trace a function, and return its nodes and the names of its results; its constants become those of all."""
        nodes, results = self._renamed(exported(function, examples).graph, names)
        return (self._without_erf(nodes) if self.dtype == torch.float64 else nodes), results

    def _without_erf(self, nodes: list) -> list:
        """Replace the error function, which onnxruntime does not have in double precision."""
        replaced = []
        for node in nodes:
            if node.op_type != "Erf":
                replaced.append(node)
                continue
            if self.erf is None:
                self.erf = exported(lambda x: (erf(x),), [torch.zeros(EXAMPLE_SAMPLES, dtype=torch.float64)]).graph
            inside, (result,) = self._renamed(copy.deepcopy(self.erf), list(node.input))
            for one in inside:
                one.output[:] = [node.output[0] if name == result else name for name in one.output]
            replaced += inside
        return replaced

    def _renamed(self, graph: Any, names: Sequence[str]) -> tuple[list, list[str]]:
        """Rename everything in a graph, and return its nodes and the names of its results."""
        prefix = self._name()
        known = {one.name: name for one, name in zip(graph.input, names, strict=True)}

        def renamed(name: str) -> str:
            return known.get(name, f"{prefix}_{name}") if name else name

        for node in graph.node:
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]
            node.name = renamed(node.name)
        for constant in graph.initializer:
            constant.name = renamed(constant.name)
            self.constants.append(constant)
        return list(graph.node), [renamed(one.name) for one in graph.output]


def _tensor_type(dtype: torch.dtype) -> int:
    """Return the type of ONNX for a dtype."""
    from onnx import TensorProto

    return {
        torch.float32: TensorProto.FLOAT,
        torch.float64: TensorProto.DOUBLE,
        torch.bool: TensorProto.BOOL,
        torch.int64: TensorProto.INT64,
    }[dtype]


def add_codes(graph: Graph, model: ScaledAutoEncoder, x: str) -> str:
    """Add what `ScaledAutoEncoder.project` computes for samples in double precision, and return the name of the codes.

    Parameters
    ----------
    graph : Graph
        The graph.
    model : ScaledAutoEncoder
        A network whose weights need no gradient.
    x : str
        Name of the samples.
    """
    sizes, dtype = model.architecture, model.mean.dtype
    example = torch.zeros((EXAMPLE_SAMPLES, sizes.n_features), dtype=dtype) + model.mean
    n_steps = model.projection.n_steps
    if n_steps == 0:
        return graph.call(lambda x: (model.network.encode(_filled(model, x)) * model.code_unit,), [x], [example])[0]

    def loss_of(x: Tensor) -> Any:
        standardized = (x - model.mean) / model.scale
        if model.filling is None:
            return model.code_loss(standardized)
        return model.incomplete_code_loss(standardized)

    loss = loss_of(example)

    def begin(x: Tensor) -> tuple[Tensor, ...]:
        of_samples = loss_of(x)
        return (*of_samples.tensors, *first_state(of_samples, model.starts(_filled(model, x)), model.metric))

    def step(*values: Tensor) -> tuple[Tensor, ...]:
        n_fixed = len(loss.tensors)
        return tuple(next_state(loss.of(*values[:n_fixed]), ProjectionState(*values[n_fixed:]), model.metric))

    def end(x: Tensor, z: Tensor) -> tuple[Tensor]:
        if model.filling is not None and not model.projection.incomplete:
            incomplete = x.isnan().any(dim=1, keepdim=True)
            z = torch.where(incomplete, model.network.encode(_filled(model, x)), z)
        return (z * model.code_unit,)

    examples = begin(example)
    names = graph.call(begin, [x], [example])
    n_fixed = len(loss.tensors)
    last = graph.loop(step, names[:n_fixed], names[n_fixed:], examples, n_steps)
    return graph.call(end, [x, last[0]], [example, examples[n_fixed]])[0]


def _filled(model: ScaledAutoEncoder, x: Tensor) -> Tensor:
    """Standardize samples and impute missing values, without a choice that depends on them."""
    standardized = (x - model.mean) / model.scale
    return standardized if model.filling is None else imputed(model.filling, standardized)


def imputed(filling: PPCAImputer, x: Tensor) -> Tensor:
    """Impute as `PPCAImputer` does."""
    missing, components = x.isnan(), filling.components
    present, values = (~missing).to(x.dtype), torch.where(missing, torch.zeros_like(x), x)
    k = len(components)
    pairs = (components[:, None] * components).reshape(k * k, -1)
    products = (present @ pairs.T).reshape(-1, k, k) + filling.ridge.diag()
    codes = solve(products, values @ components.T)
    return torch.where(missing, codes @ components, values)


def traceable(module: ScaledAutoEncoder, dtype: torch.dtype) -> ScaledAutoEncoder:
    """Return a copy on the CPU, without gradients by the weights."""
    return copy.deepcopy(module).cpu().to(dtype).eval().requires_grad_(False)


def decoder_model(module: ScaledAutoEncoder) -> Any:
    """Return the decoder as a model, in the precision of the network, from "codes" to "X"."""
    check_packages()
    from onnx import helper

    sizes, dtype = module.architecture, module.mean.dtype
    model, graph = traceable(module, dtype), Graph("skae", dtype)
    example = torch.zeros((EXAMPLE_SAMPLES, sizes.n_components), dtype=dtype)
    (result,) = graph.call(lambda z: (model.decode(z),), ["codes"], [example])
    graph.nodes.append(helper.make_node("Identity", [result], ["X"]))
    ends = (("codes", sizes.n_components), ("X", sizes.n_features))
    codes, x = (helper.make_tensor_value_info(name, _tensor_type(dtype), [None, width]) for name, width in ends)
    built = helper.make_graph(graph.nodes, "decoder", [codes], [x], graph.constants)
    return helper.make_model(built, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


__all__ = ["OPSET", "Graph", "add_codes", "decoder_model", "traceable"]
