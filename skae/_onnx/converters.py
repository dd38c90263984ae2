"""Converters of estimators for skl2onnx: types and shapes of the results, and how they are computed."""

from typing import Any

import torch
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._autoencoder import AutoEncoderTransformer
from skae._onnx.graph import EXAMPLE_SAMPLES, OPSET, Graph, add_codes, package, traceable
from skae._outliers import AutoEncoderOutlierDetector, reconstructions, resolution
from skae._utils import check_inherited, follow


def register_converters() -> None:
    """Register the converters with skl2onnx.

    Raises
    ------
    ImportError
        If skl2onnx is not installed.
    """
    package("skl2onnx")
    for base in CONVERTERS:
        follow(base, _register)


def _register(cls: type) -> None:
    """Register a class with the converter of the class that it inherits from, unless it has one already."""
    skl2onnx, operators = package("skl2onnx"), package("skl2onnx._supported_operators")
    for base, functions in CONVERTERS.items():
        if issubclass(cls, base) and cls not in operators.sklearn_operator_name_map:
            skl2onnx.update_registered_converter(cls, f"Skae{base.__name__}", *functions)


def _declare_codes(operator: Any) -> None:
    """Declare type and shape of the codes."""
    estimator, types = operator.raw_operator, package("skl2onnx.common.data_types")
    check_inherited(type(estimator), AutoEncoderTransformer, "transform")
    _check_features(operator)
    kind = types.FloatTensorType if _precision(operator) == torch.float32 else types.DoubleTensorType
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), estimator.n_components_])


def _declare_labels(operator: Any) -> None:
    """Declare types and shapes of labels and scores, which are float64 whatever the dtype of the samples."""
    detector, types = operator.raw_operator, package("skl2onnx.common.data_types")
    _check_features(operator)
    check_inherited(type(detector), AutoEncoderOutlierDetector, "predict", "decision_function", "score_samples")
    estimator = _autoencoder(detector)
    check_inherited(type(estimator), AutoEncoderTransformer, "transform", "inverse_transform", "score_samples")
    shape = [operator.inputs[0].get_first_dimension(), 1]
    operator.outputs[0].type, operator.outputs[1].type = types.Int64TensorType(shape), types.DoubleTensorType(shape)


def _autoencoder(detector: AutoEncoderOutlierDetector) -> AutoEncoderTransformer:
    """Return the fitted autoencoder of a detector, which may be the best one of a search."""
    fitted = detector.estimator_
    while isinstance(fitted, BaseSearchCV):
        fitted = fitted.best_estimator_
    if not isinstance(fitted, AutoEncoderTransformer):
        raise TypeError(
            f"estimator_ of {type(detector).__name__} must be an AutoEncoderTransformer to be converted, got "
            f"{detector.estimator_!r}. Convert that estimator by itself, or fit a detector of an autoencoder to what "
            "the steps before it return."
        )
    return fitted


def _check_features(operator: Any) -> None:
    """Check that the estimator is fitted, with as many features as the input has."""
    estimator = operator.raw_operator
    check_is_fitted(estimator)
    widths = [variable.get_second_dimension() for variable in operator.inputs]
    if None not in widths and sum(widths) != estimator.n_features_in_:
        raise ValueError(
            f"The input has {sum(widths)} features, but {type(estimator).__name__} was fitted with "
            f"{estimator.n_features_in_}. Pass initial types or an example with that number of features."
        )


def _precision(operator: Any) -> torch.dtype:
    """Return the dtype of the results of `transform`: float32 stays, and everything else becomes float64."""
    single = package("skl2onnx.common.data_types").FloatTensorType
    return torch.float32 if all(type(one.type) is single for one in operator.inputs) else torch.float64


def _convert_transformer(scope: Any, operator: Any, container: Any) -> None:
    """Compute the codes."""
    graph, x = _begun(scope, operator, container)
    z = add_codes(graph, traceable(operator.raw_operator.net_.module_), x)
    _finish(graph, [graph.cast(z, _precision(operator))], operator, container)


def _convert_detector(scope: Any, operator: Any, container: Any) -> None:
    """Compute labels and the decision function."""
    graph, x = _begun(scope, operator, container)
    detector = operator.raw_operator
    estimator = _autoencoder(detector)
    model = traceable(estimator.net_.module_)
    samples = torch.zeros((EXAMPLE_SAMPLES, model.architecture.n_features), dtype=torch.float64)
    codes = torch.zeros((EXAMPLE_SAMPLES, model.architecture.n_components), dtype=torch.float64)

    def present(x: Tensor) -> Tensor:
        return torch.ones_like(x) if model.filling is None else (~x.isnan()).to(x.dtype)

    def decided(errors: Tensor) -> tuple[Tensor, Tensor]:
        decision = -errors - float(detector.offset_)
        return torch.where(decision >= 0.0, 1, -1), decision

    if detector.n_neighbors_ is not None:
        kept = torch.from_numpy(reconstructions(estimator, detector.codes_)) - model.training_mean

        def decide(x: Tensor) -> tuple[Tensor, Tensor]:
            there = present(x)
            centered = torch.where(there > 0, x - model.training_mean, 0.0)
            squares = centered.square().sum(dim=1, keepdim=True) + there @ kept.square().T - 2.0 * (centered @ kept.T)
            distances = squares.clamp(min=0.0) / there.sum(dim=1, keepdim=True).clamp(min=1.0)
            nearest = distances.topk(detector.n_neighbors_, dim=1, largest=False).values
            return decided(nearest.mean(dim=1, keepdim=True))

        results = graph.call(decide, [x], [samples])
    else:
        factor, constant = resolution(estimator.net_.module_, _precision(operator) == torch.float64)

        def decide_by_errors(x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
            there = present(x)
            differences = torch.stack([model.decode(z) - x, x - model.training_mean])
            squares = torch.where(there > 0, differences, 0.0).square().sum(dim=2, keepdim=True)
            errors, offsets = squares / there.sum(dim=1, keepdim=True).clamp(min=1.0)
            rounding = factor * (offsets + constant)
            # Zero but where squares overflow, for which the estimator raises an error: that is no inlier.
            return decided(torch.where(errors <= rounding, rounding * 0.0, errors))

        results = graph.call(decide_by_errors, [x, add_codes(graph, model, x)], [samples, codes])
    _finish(graph, results, operator, container)


def _begun(scope: Any, operator: Any, container: Any) -> tuple[Graph, str]:
    """Return a graph that has the samples in double precision, and their name."""
    if container.target_opset_onnx < OPSET:
        raise ValueError(
            f"target_opset={container.target_opset_onnx} is too low for {type(operator.raw_operator).__name__}, which "
            f"needs operator set {OPSET} or higher. Pass target_opset={OPSET} to skl2onnx.to_onnx."
        )
    graph = Graph(scope.get_unique_variable_name("skae"))
    names = graph.casts([one.full_name for one in operator.inputs], torch.float64)
    return graph, graph.op("Concat", *names, axis=1)


def _finish(graph: Graph, results: list[str], operator: Any, container: Any) -> None:
    """Make values the results of the operator, and append the graph to the model."""
    for name, output in zip(results, operator.outputs, strict=True):
        graph.add("Identity", [name], [output.full_name])
    container.nodes += graph.nodes
    container.initializers += graph.constants
    container.node_domain_version_pair_sets.add(("", OPSET))


# How the results of each kind of estimator are declared and computed.
CONVERTERS = {
    AutoEncoderTransformer: (_declare_codes, _convert_transformer),
    AutoEncoderOutlierDetector: (_declare_labels, _convert_detector),
}
