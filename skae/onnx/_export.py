"""What is public: the converter for skl2onnx, and the decoder as a model of its own."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae.onnx._graph import (
    IR_VERSION,
    OPSET,
    Graph,
    Port,
    attributes_of,
    constant_protos,
    graph_proto,
    numbered,
    onnx_package,
    tensor_type,
)
from skae.onnx._network import decode, encode, in_precision

ALIAS = "SkaeAutoEncoderTransformer"


def register():
    """Teach skl2onnx to convert the autoencoder, wherever it stands in a pipeline.

    After this ``skl2onnx.to_onnx`` takes pipelines, column transformers and unions with fitted autoencoders in them.
    The result computes what `AutoEncoderTransformer.transform` does, for any number of rows, in the precision that it
    would have: of the network or of the input, whichever is higher. Codes have the precision of the input. Calling it
    again changes nothing.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.

    See Also
    --------
    export_decoder : The way back from codes to rows.

    Notes
    -----
    Where `transform` raises an error, on codes that overflow or on missing values that were not allowed, a model returns
    what is no finite number. The operator set must be 18 or higher; a conversion to a lower one raises a ValueError. A
    ``module`` of your own must consist of layers and steps that have a translation; a NotImplementedError names the one
    that has none.

    Examples
    --------
    >>> import numpy as np
    >>> import skae.onnx
    >>> from onnxruntime import InferenceSession
    >>> from skl2onnx import to_onnx
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> X = load_digits().data[:200]
    >>> pipeline = make_pipeline(StandardScaler(), skae.AutoEncoderTransformer(4, max_epochs=3, random_state=0)).fit(X)
    >>> skae.onnx.register()
    >>> session = InferenceSession(to_onnx(pipeline, X[:1]).SerializeToString())
    >>> (codes,) = session.run(None, {"X": X})
    >>> bool(np.allclose(codes, pipeline.transform(X)))
    True
    """
    try:
        import skl2onnx
    except ImportError as error:
        raise ImportError('skae.onnx.register needs the skl2onnx package: pip install "skae[onnx]".') from error
    skl2onnx.update_registered_converter(AutoEncoderTransformer, ALIAS, _declare_output, _convert)


def export_decoder(estimator, path):
    """Write `AutoEncoderTransformer.inverse_transform` into a file, as an ONNX model.

    Its input is called "codes" and its output "rows", both in the precision of the network.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Fitted.
    path : str or path-like
        File to write; one that exists is replaced.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If ``estimator`` is no AutoEncoderTransformer.
    NotImplementedError
        If a step of the estimator's own ``module`` has no translation.

    See Also
    --------
    register : The way from rows to codes, in pipelines.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import skae.onnx
    >>> from onnxruntime import InferenceSession
    >>> from sklearn.datasets import load_digits
    >>> X = load_digits().data[:200]
    >>> autoencoder = skae.AutoEncoderTransformer(4, max_epochs=3, random_state=0).fit(X)
    >>> codes = autoencoder.transform(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "decoder.onnx"
    ...     skae.onnx.export_decoder(autoencoder, path)
    ...     (rows,) = InferenceSession(path).run(["rows"], {"codes": codes})
    >>> bool(np.allclose(rows, autoencoder.inverse_transform(codes)))
    True
    """
    if not isinstance(estimator, AutoEncoderTransformer):
        raise TypeError(f"estimator must be an AutoEncoderTransformer, got {estimator!r}.")
    check_is_fitted(estimator)
    onnx = onnx_package()
    module, dtype = in_precision(estimator.net_.module_, np.dtype(np.float32))
    graph = Graph(dtype, numbered("skae"))
    codes = graph.input(Port("codes", dtype, (None, estimator.n_components_)))
    graph.output(decode(graph, module, codes), Port("rows", dtype, (None, estimator.n_features_in_)))
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(
        graph_proto(graph, "decoder"), opset_imports=[opset], ir_version=IR_VERSION, producer_name="skae"
    )
    onnx.checker.check_model(model)
    Path(path).write_bytes(model.SerializeToString())


def _declare_output(operator):
    """Tell skl2onnx the type and shape of the codes."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    estimator = operator.raw_operator
    widths = [variable.type.shape[1] for variable in operator.inputs]
    if None not in widths and sum(widths) != estimator.n_features_in_:
        raise ValueError(
            f"The input has {sum(widths)} columns, but {type(estimator).__name__} was fitted with "
            f"{estimator.n_features_in_}. Pass initial types or an example row of that width."
        )
    kind = FloatTensorType if _dtype_of(operator.inputs) == np.float32 else DoubleTensorType
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), estimator.n_components_])


def _dtype_of(variables):
    """What `transform` would compute with: float32 stays, and everything else becomes float64."""
    from skl2onnx.common.data_types import FloatTensorType

    return np.dtype(np.float32 if all(type(one.type) is FloatTensorType for one in variables) else np.float64)


def _convert(scope, operator, container):
    """Write the encoder into the model that skl2onnx builds."""
    if container.target_opset_onnx < OPSET:
        raise ValueError(
            f"target_opset={container.target_opset_onnx} is too low for AutoEncoderTransformer, which needs operator set "
            f"{OPSET} or higher. Pass target_opset={OPSET} to skl2onnx.to_onnx."
        )
    dtype = _dtype_of(operator.inputs)
    module, computed = in_precision(operator.raw_operator.net_.module_, dtype)
    graph = Graph(computed, numbered(scope.get_unique_variable_name("skae")))
    parts = [graph.op("Cast", one.full_name, to=tensor_type(computed)) for one in operator.inputs]
    x = parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1)
    codes = graph.op("Cast", encode(graph, module, x), to=tensor_type(dtype))
    graph.output(codes, Port(operator.outputs[0].full_name, dtype, (None, None)))
    for tensor in constant_protos(graph):
        container.add_initializer(tensor.name, None, None, tensor)
    for node in graph.nodes:
        names = list(node.inputs), list(node.outputs)
        label = scope.get_unique_operator_name(node.kind)
        container.add_node(node.kind, *names, op_version=OPSET, name=label, **attributes_of(node))
