"""Both directions of a network as nodes of a graph.

The live network treats the rows beyond its limits apart. Its formulas for them hold for the other rows too, where
clipping changes nothing and what was learnt fades by a factor of one. So the graph has these formulas alone, and only
the steps that move a code are left to the rows beyond the limits.
"""

import copy
import functools

import numpy as np
import torch

from skae._network.autoencoder import CODE_REACH, FeedForwardAutoEncoder, in_double
from skae._network.custom import UsersStack
from skae._network.inverse_link import Link
from skae._network.scaling import DataUnits
from skae._onnx.flow import (
    Flow,
    added,
    between,
    clipped,
    elementwise,
    exponential,
    linear,
    logistic,
    multiplied,
    nearness,
    relu,
    scaled,
    shifted,
)
from skae._onnx.graph import Graph, array
from skae._onnx.rows import for_rows, refined, without_missing
from skae._onnx.stacks import through
from skae._onnx.users import users_stack


def encode(graph: Graph, module: DataUnits, x: str) -> str:
    """Map rows in data units to codes, as `DataUnits.encode` does; rows that are not finite get NaN."""
    x = graph.op("Div", graph.op("Sub", x, module.mean), module.scale)
    if module.filling is not None:
        x = without_missing(graph, module.filling, x)
    codes = graph.op("Mul", _encode_standardised(graph, module.core, x), module.code_unit)
    # The live network is never asked about rows that are not finite; an activation would make them so.
    nothing = graph.op("ReduceSum", graph.op("Sub", x, x), [1], keepdims=1)
    return graph.op("Add", codes, nothing)


def decode(graph: Graph, module: DataUnits, z: str) -> str:
    """Map codes to rows in data units, as `DataUnits.decode` does."""
    x_hat = _decode_flow(graph, module.core, Flow(graph.op("Div", z, module.code_unit))).value
    return graph.op("Add", graph.op("Mul", x_hat, module.scale), module.mean)


def _encode_standardised(graph, core: FeedForwardAutoEncoder, x):
    if core.encoder is None:
        return graph.op("MatMul", x, array(core.pca_encoding).T)
    if not core.architecture.linear_skip:
        return _correction(graph, core, 0, scaled(graph, Flow(x), core.input_gain)).value
    limit, code_limit = array(core.input_limit), array(core.code_limit) / CODE_REACH
    inside = clipped(graph, Flow(x), limit)
    learnt = _correction(graph, core, 0, scaled(graph, inside, core.input_gain))
    if core.encoding is not None:
        beside_pca = array(core.encoding * core.input_gain - core.pca_encoding)
        learnt = added(graph, linear(graph, inside, beside_pca.T), learnt)
    near, share = nearness(graph, Flow(x), limit)
    pca = graph.op("MatMul", x, array(core.pca_encoding).T)
    z = graph.op("Add", pca, graph.op("Mul", learnt.value, near.value))
    code_share = graph.op("ReduceMax", graph.op("Div", graph.op("Abs", z), code_limit), [1], keepdims=1)
    far = graph.op("Greater", graph.op("Max", share, code_share), 1.0)
    decoder = functools.partial(_decode_flow, core=in_double(core))
    n_components = core.architecture.n_components
    n_values = core.architecture.n_features * n_components
    change = functools.partial(refined, decoder=decoder, n_components=n_components)
    return for_rows(graph, far, z, (x, pca), change, n_values, np.float64)


def _decode_flow(graph, core: FeedForwardAutoEncoder, z: Flow) -> Flow:
    """Map codes of unit scale to standardised rows."""
    values = _predictor(graph, core, z)
    return values if core.link is None else _linked(graph, core.link, values)


def _predictor(graph, core, z):
    if core.decoder is None:
        return linear(graph, z, array(core.pca_decoding))
    if not core.architecture.linear_skip:
        return scaled(graph, _correction(graph, core, 1, z), core.output_gain)
    limit = array(core.code_limit)
    codes = clipped(graph, z, limit)
    learnt = scaled(graph, _correction(graph, core, 1, codes), core.output_gain)
    if core.decoding is not None:
        beside_pca = array(core.decoding * core.output_gain - core.pca_decoding)
        learnt = added(graph, linear(graph, codes, beside_pca), learnt)
    learnt = multiplied(graph, learnt, nearness(graph, z, limit)[0])
    return added(graph, linear(graph, z, array(core.pca_decoding)), learnt)


def _correction(graph, core, index, flow):
    """What the encoder, 0, or the decoder, 1, computes."""
    stack = core.decoder if index else core.encoder
    if isinstance(stack, UsersStack):
        sizes = core.architecture
        result = users_stack(graph, flow, stack, sizes.n_components if index else sizes.n_features)
    else:
        result = through(graph, flow, stack)
    return scaled(graph, result, core.gates[index]) if core.architecture.gated else result


def _linked(graph, link: Link, values):
    """Make means of what the decoder computes, as `Link` does."""
    if link.on:
        predictor = shifted(graph, scaled(graph, values, link.slope), link.offset)
        if link.kind == "sigmoid":
            means = elementwise(graph, predictor, logistic)
        else:
            below = elementwise(graph, predictor, between, highest=np.log(array(link.highest)))
            means = elementwise(graph, below, exponential)
    else:
        means = elementwise(graph, shifted(graph, scaled(graph, values, link.scale), link.mean), relu)
        means = elementwise(graph, means, between, highest=array(link.highest)) if link.kind == "sigmoid" else means
    return scaled(graph, shifted(graph, means, -link.mean), 1.0 / link.scale)


def in_precision(module: DataUnits, dtype: np.dtype) -> tuple[DataUnits, np.dtype]:
    """The network on the processor in at least its own and at least a given precision, and which that is."""
    double = dtype == np.float64 or module.mean.dtype == torch.float64
    own = copy.deepcopy(module).cpu().to(torch.float64 if double else torch.float32).eval()
    return own, np.dtype(np.float64 if double else np.float32)
