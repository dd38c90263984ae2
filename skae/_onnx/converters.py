"""What skl2onnx is told of the estimators: types and shapes of what they return, and how it is computed."""

from typing import Any

import numpy as np
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._onnx.graph import OPSET, Graph, Port, attributes_of, constant_protos, numbered, tensor_type
from skae._onnx.network import decode, encode, in_precision
from skae._onnx.rows import squared_norm
from skae._outliers import AutoEncoderOutlierDetector, resolution
from skae._utils import check_inherited, follow


def register_converters() -> None:
    """Hand everything in this module over to skl2onnx.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.
    """
    try:
        import skl2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError('skae.onnx.register needs the skl2onnx package: pip install "skae[onnx]".') from error
    for base in _converters():
        follow(base, _register)


def _converters():
    """Functions that declare and write the result of each kind of estimator."""
    return {
        AutoEncoderTransformer: (_declare_codes, _convert_transformer),
        AutoEncoderOutlierDetector: (_declare_labels, _convert_detector),
    }


def _register(cls):
    """Hand a class over as what it inherits from, unless it has a converter already."""
    from skl2onnx import update_registered_converter
    from skl2onnx._supported_operators import sklearn_operator_name_map

    for base, functions in _converters().items():
        if issubclass(cls, base) and cls not in sklearn_operator_name_map:
            update_registered_converter(cls, f"Skae{base.__name__}", *functions)


def _declare_codes(operator):
    """Type and shape of the codes."""
    estimator = operator.raw_operator
    check_inherited(type(estimator), AutoEncoderTransformer, "transform")
    _check_width(operator)
    kind = _types().FloatTensorType if _dtype_of(operator.inputs) == np.float32 else _types().DoubleTensorType
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), estimator.n_components_])


def _declare_labels(operator):
    """Types and shapes of labels and scores, which are in float64 whatever the rows are in."""
    check_is_fitted(operator.raw_operator)
    if not isinstance(_autoencoder(operator.raw_operator), AutoEncoderTransformer):
        raise TypeError(
            f"estimator_ of {type(operator.raw_operator).__name__} must be an AutoEncoderTransformer to be converted, "
            f"got {operator.raw_operator.estimator_!r}. Convert that estimator by itself, or fit a detector of an "
            "autoencoder to what the steps before it return."
        )
    _check_width(operator)
    check_inherited(
        type(operator.raw_operator), AutoEncoderOutlierDetector, "predict", "decision_function", "score_samples"
    )
    estimator = _autoencoder(operator.raw_operator)
    check_inherited(type(estimator), AutoEncoderTransformer, "transform", "inverse_transform", "score_samples")
    shape = [operator.inputs[0].get_first_dimension(), 1]
    operator.outputs[0].type = _types().Int64TensorType(shape)
    operator.outputs[1].type = _types().DoubleTensorType(shape)


def _autoencoder(detector):
    """Return the fitted estimator of a detector, of a search the best one."""
    fitted = detector.estimator_
    while isinstance(fitted, BaseSearchCV):
        fitted = fitted.best_estimator_
    return fitted


def _check_width(operator):
    """Refuse what is not fitted, and rows of another width than it was fitted with."""
    estimator = operator.raw_operator
    check_is_fitted(estimator)
    widths = [variable.type.shape[1] for variable in operator.inputs]
    if None not in widths and sum(widths) != estimator.n_features_in_:
        raise ValueError(
            f"The input has {sum(widths)} columns, but {type(estimator).__name__} was fitted with "
            f"{estimator.n_features_in_}. Pass initial types or an example row of that width."
        )


def _types() -> Any:
    """The types that skl2onnx has."""
    from skl2onnx.common import data_types

    return data_types


def _dtype_of(variables):
    """What `transform` would compute with: float32 stays, and everything else becomes float64."""
    single = all(type(one.type) is _types().FloatTensorType for one in variables)
    return np.dtype(np.float32 if single else np.float64)


def _convert_transformer(scope, operator, container):
    """Write the encoder into the model that skl2onnx builds."""
    graph, module, x = _begun(scope, operator, container, operator.raw_operator)
    dtype = _dtype_of(operator.inputs)
    codes = graph.op("Cast", encode(graph, module, x), to=tensor_type(dtype))
    graph.output(codes, Port(operator.outputs[0].full_name, dtype, (None, None)))
    _add(scope, container, graph)


def _convert_detector(scope, operator, container):
    """Write labels and `decision_function` into the model that skl2onnx builds."""
    detector = operator.raw_operator
    graph, module, x = _begun(scope, operator, container, _autoencoder(detector))
    x_hat = decode(graph, module, encode(graph, module, x))
    differences = [graph.op("Sub", x_hat, x), graph.op("Sub", x, module.training_mean.numpy())]
    double, counts = Graph(np.float64, graph.names), float(detector.n_features_in_)
    if module.filling is not None:  # values that are missing count in no error
        missing = graph.op("IsNaN", x)
        differences = [graph.op("Where", missing, 0.0, one) for one in differences]
        present = double.op("ReduceSum", double.op("Where", missing, 0.0, 1.0), [1], keepdims=1)
        counts = double.op("Max", present, 1.0)
    squares = (squared_norm(double, double.op("Cast", one, to=tensor_type(np.float64))) for one in differences)
    errors, offsets = (double.op("Div", one, counts) for one in squares)
    factor, constant = resolution(_autoencoder(detector).net_.module_, _dtype_of(operator.inputs) == np.float64)
    rounding = double.op("Mul", double.op("Add", offsets, constant), factor)
    # Zero but where squares overflow, which the live detector refuses.
    nothing = double.op("Mul", rounding, 0.0)
    scores = double.op("Neg", double.op("Where", double.op("LessOrEqual", errors, rounding), nothing, errors))
    decision = double.op("Sub", scores, float(detector.offset_))
    # Where the live detector raises an error the decision is no number: that is no inlier.
    labels = double.op("Where", double.op("GreaterOrEqual", decision, 0.0), np.array(1), np.array(-1))
    for value, variable, dtype in zip((labels, decision), operator.outputs, (np.int64, np.float64), strict=True):
        double.output(value, Port(variable.full_name, dtype, (None, 1)))
    _add(scope, container, graph)
    _add(scope, container, double)


def _begun(scope, operator, container, estimator):
    """A graph that has the rows in the precision that `transform` computes in, the network in it, and their name."""
    if container.target_opset_onnx < OPSET:
        raise ValueError(
            f"target_opset={container.target_opset_onnx} is too low for {type(operator.raw_operator).__name__}, which "
            f"needs operator set {OPSET} or higher. Pass target_opset={OPSET} to skl2onnx.to_onnx."
        )
    module, dtype = in_precision(estimator.net_.module_, _dtype_of(operator.inputs))
    graph = Graph(dtype, numbered(scope.get_unique_variable_name("skae")))
    parts = [graph.op("Cast", one.full_name, to=tensor_type(dtype)) for one in operator.inputs]
    return graph, module, parts[0] if len(parts) == 1 else graph.op("Concat", *parts, axis=1)


def _add(scope, container, graph):
    """Append a finished graph to the model."""
    for tensor in constant_protos(graph):
        container.add_initializer(tensor.name, None, None, tensor)
    for node in graph.nodes:
        names = list(node.inputs), list(node.outputs)
        label = scope.get_unique_operator_name(node.kind)
        container.add_node(node.kind, *names, op_version=OPSET, name=label, **attributes_of(node))
