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
from skae._network.custom import CustomModuleHalf
from skae._network.inverse_link import InverseLink
from skae._network.scaling import ScaledAutoEncoder
from skae._onnx.flow import (
    Flow,
    activation_block,
    added,
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
from skae._onnx.rows import for_samples, refined, without_missing
from skae._onnx.stacks import through
from skae._onnx.users import users_stack


def encode(graph: Graph, module: ScaledAutoEncoder, x: str) -> str:
    """Map rows in data units to codes, as `ScaledAutoEncoder.encode` does; rows that are not finite get NaN."""
    x = graph.op("Div", graph.op("Sub", x, module.mean), module.scale)
    if module.filling is not None:
        x = without_missing(graph, module.filling, x)
    codes = graph.op("Mul", _encode_standardised(graph, module.network, x), module.code_unit)
    # The live network is never asked about rows that are not finite; an activation would make them so.
    nothing = graph.op("ReduceSum", graph.op("Sub", x, x), [1], keepdims=1)
    return graph.op("Add", codes, nothing)


def decode(graph: Graph, module: ScaledAutoEncoder, z: str) -> str:
    """Map codes to rows in data units, as `ScaledAutoEncoder.decode` does."""
    x_hat = _decode_flow(graph, module.network, Flow(graph.op("Div", z, module.code_unit))).value
    return graph.op("Add", graph.op("Mul", x_hat, module.scale), module.mean)


def _encode_standardised(graph, network: FeedForwardAutoEncoder, x):
    if network.encoder is None:
        return graph.op("MatMul", x, array(network.pca_encoding).T)
    if not network.architecture.linear_skip:
        return _correction(graph, network, 0, scaled(graph, Flow(x), network.input_gain)).value
    limit, code_limit = array(network.input_limit), array(network.code_limit) / CODE_REACH
    inside = clipped(graph, Flow(x), limit)
    learnt = _correction(graph, network, 0, scaled(graph, inside, network.input_gain))
    if network.linear_encoder is not None:
        beside_pca = array(network.linear_encoder * network.input_gain - network.pca_encoding)
        learnt = added(graph, linear(graph, inside, beside_pca.T), learnt)
    near, share = nearness(graph, Flow(x), limit)
    pca = graph.op("MatMul", x, array(network.pca_encoding).T)
    z = graph.op("Add", pca, graph.op("Mul", learnt.value, near.value))
    code_fraction = graph.op("ReduceMax", graph.op("Div", graph.op("Abs", z), code_limit), [1], keepdims=1)
    far = graph.op("Greater", graph.op("Max", share, code_fraction), 1.0)
    decoder = functools.partial(_decode_flow, network=in_double(network))
    n_components = network.architecture.n_components
    n_values = network.architecture.n_features * n_components
    change = functools.partial(refined, decoder=decoder, n_components=n_components)
    return for_samples(graph, far, z, (x, pca), change, n_values, np.float64)


def _decode_flow(graph, network: FeedForwardAutoEncoder, z: Flow) -> Flow:
    """Map codes of unit scale to standardised rows."""
    values = _predictor(graph, network, z)
    return values if network.link is None else _linked(graph, network.link, values)


def _predictor(graph, network, z):
    if network.decoder is None:
        return linear(graph, z, array(network.pca_decoding))
    if not network.architecture.linear_skip:
        return scaled(graph, _correction(graph, network, 1, z), network.output_gain)
    limit = array(network.code_limit)
    codes = clipped(graph, z, limit)
    learnt = scaled(graph, _correction(graph, network, 1, codes), network.output_gain)
    if network.linear_decoder is not None:
        beside_pca = array(network.linear_decoder * network.output_gain - network.pca_decoding)
        learnt = added(graph, linear(graph, codes, beside_pca), learnt)
    learnt = multiplied(graph, learnt, nearness(graph, z, limit)[0])
    return added(graph, linear(graph, z, array(network.pca_decoding)), learnt)


def _correction(graph, network, index, flow):
    """What the encoder, 0, or the decoder, 1, computes."""
    stack = network.decoder if index else network.encoder
    if isinstance(stack, CustomModuleHalf):
        sizes = network.architecture
        result = users_stack(graph, flow, stack, sizes.n_components if index else sizes.n_features)
    else:
        result = through(graph, flow, stack)
    return scaled(graph, result, network.gates[index]) if network.architecture.gated else result


def _linked(graph, link: InverseLink, values):
    """Make means of what the decoder computes, as `InverseLink` does."""
    if link.on:
        predictor = shifted(graph, scaled(graph, values, link.slope), link.offset)
        if link.kind == "sigmoid":
            means = elementwise(graph, predictor, logistic)
        else:
            below = elementwise(graph, predictor, activation_block, highest=np.log(array(link.highest)))
            means = elementwise(graph, below, exponential)
    else:
        means = elementwise(graph, shifted(graph, scaled(graph, values, link.scale), link.mean), relu)
        means = (
            elementwise(graph, means, activation_block, highest=array(link.highest))
            if link.kind == "sigmoid"
            else means
        )
    return scaled(graph, shifted(graph, means, -link.mean), link.varies / link.scale)


def in_precision(module: ScaledAutoEncoder, dtype: np.dtype) -> tuple[ScaledAutoEncoder, np.dtype]:
    """The network on the processor in at least its own and at least a given precision, and which that is."""
    double = dtype == np.float64 or module.mean.dtype == torch.float64
    own = copy.deepcopy(module).cpu().to(torch.float64 if double else torch.float32).eval()
    return own, np.dtype(np.float64 if double else np.float32)
