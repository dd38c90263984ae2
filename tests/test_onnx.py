"""Exported networks compute what the estimators do."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
from helpers import QUICK, curved_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, CategoricalCrossEntropy, ColumnLosses
from skae._data.sample import Sample
from skae._network.scaling import Projection
from skae._objectives.losses import as_loss
from skae._objectives.regularizers import as_regularizers

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")

import skae.onnx  # noqa: E402
from skae._onnx.graph import OPSET, Graph  # noqa: E402

# Relative to the largest code. Both sides compute in double precision.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-9}
CONV = {"architecture": "conv", "input_shape": (1, 9, 11), "hidden_layer_sizes": (2, 3, 8)}
SIZES = {"hidden_layer_sizes": (8, 6)}


class Users(nn.Module):
    """Layers, functions, methods, hooks and bare weights in one network."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_features, 6), nn.LeakyReLU(), nn.Linear(6, n_components))
        self.wide = nn.Linear(n_components, 8)
        self.wide.register_forward_hook(lambda layer, inputs, output: 2 * output)
        self.weight = nn.Parameter(torch.linspace(-1, 1, 8 * n_features).reshape(8, n_features))

    def encode(self, x):
        return self.encoder(x) - 0.25 / x.shape[0]

    def decode(self, z):
        hidden = nn.functional.gelu(self.wide(z), approximate="tanh")
        other = torch.sigmoid(hidden / 2.0) + nn.functional.elu(-hidden.tanh(), alpha=0.5).exp()
        return nn.functional.dropout(-hidden * other, training=self.training) @ self.weight.abs()


class Many(nn.Module):
    """Many functions of single values, and steps in place."""

    def __init__(self, n_features, n_components):
        super().__init__()
        kinds = nn.ReLU6, nn.Hardtanh, nn.PReLU, nn.Mish, nn.CELU, nn.SELU, nn.Softplus
        self.layers = nn.ModuleList([*(kind() for kind in kinds), nn.Softplus(beta=3.0), nn.Softmax(dim=1)])
        self.narrow = nn.Linear(9 * n_features, n_components)
        self.wide, self.out = nn.Linear(n_components, 8), nn.Linear(9 * 8 + 9 * 7, n_features)

    def encode(self, x):
        features = torch.cat([layer(x) for layer in self.layers], dim=1)
        features[features < -0.5] = 0.1
        return self.narrow(features).view(x.shape[0], -1)

    def decode(self, z):
        hidden = self.wide(z)
        known = hidden
        hidden += 0.25
        nn.functional.relu(hidden, inplace=True)
        some = 0.5 + hidden[:, 1:]
        curves = [torch.sin(some), some.cos(), -abs(some), some**2, some.pow(3), some.clamp(0.5, 1), 0.1 - some]
        curves += [torch.softmax(some, dim=1), some / 3 - hidden[:, :-1] * some]
        return self.out(torch.cat([*(layer(known) for layer in self.layers), *curves], 1))


class Pictures(nn.Module):
    """A network of convolutions of all kinds."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.filter, self.narrow = nn.Conv2d(1, 2, 3, padding=1, stride=(1, 2)), nn.Linear(108, n_components)
        self.wide, self.norm = nn.Linear(n_components, 24), nn.GroupNorm(2, 4)
        self.larger = nn.ConvTranspose2d(2, 4, (3, 4), stride=(3, 2), padding=(1, 0), output_padding=(1, 0), groups=2)
        self.back, self.out = nn.Conv2d(4, 2, 3, padding=2, groups=2, dilation=2), nn.LazyLinear(n_features)

    def encode(self, x):
        return self.narrow(torch.relu(self.filter(x.view(-1, 1, 9, 11))).flatten(1))

    def decode(self, z):
        images = self.wide(z).reshape(z.size(0), 2, 3, 4).sigmoid()
        return self.out(self.back(self.norm(self.larger(images))).flatten(1))


# Two columns are taken as the proportions of two categories.
MIXED = ColumnLosses([("share", CategoricalCrossEntropy([2]), [3, 2]), ("count", "poisson", [0])])
CASES = {
    "dense": {},
    "whitened": {"whiten": True, **SIZES},
    "plain": {"linear_skip": False},
    "pca": {"max_epochs": 0, "activation": "identity"},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu", "normalization": "batch"},
    "elu": {"activation": "elu", "normalization": "layer"},
    "tanh": {"activation": "tanh", "architecture": "tied", **SIZES},
    "logistic": {"activation": "logistic", "loss": "huber"},
    "conv": {**CONV, "normalization": "batch"},
    "conv, plain": {**CONV, "linear_skip": False, "normalization": "layer"},
    "probabilities": {"loss": "binary_cross_entropy"},
    "rates": {"loss": "poisson", "linear_skip": False},
    "absolute": {"loss": "absolute_error"},
    "cosine": {"loss": "cosine"},
    "callable": {"loss": nn.SmoothL1Loss(reduction="none")},
    "columns": {"loss": MIXED},
    "columns, missing values": {"loss": MIXED, "allow_nan": True},
    "sparse": {"regularizer": "sparse"},
    "variational": {"regularizer": "variational"},
    "encoder alone": {"projection_steps": 0},
    "missing values": {"allow_nan": True},
    "missing values, untrained": {"allow_nan": True, "max_epochs": 0},
    "missing values, huber": {"allow_nan": True, "loss": "huber", "linear_skip": False},
    "users": {"module": Users},
    "users, many": {"module": Many, "linear_skip": False},
    "users, pictures": {"module": Pictures, "input_shape": (1, 9, 11)},
}


def rows_for(parameters, dtype):
    """Samples between zero and one, for every loss and every shape."""
    X = curved_rows() if "input_shape" not in parameters else curved_rows() @ np.random.RandomState(0).rand(5, 99)
    X = (X - X.min(axis=0)) / np.ptp(X, axis=0)
    if parameters.get("allow_nan"):
        X[np.random.RandomState(0).uniform(size=X.shape) < 0.3] = np.nan
        X[4] = np.nan
    return X.astype(dtype)


def tiny(**parameters):
    return AutoEncoderTransformer(3, **{**QUICK, **parameters})


def moved(estimator, X):
    """Move all weights and project, whatever the training has kept."""
    module, generator = estimator.net_.module_, torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.network.parameters():
            weight.add_(0.2 * torch.empty_like(weight, dtype=torch.float32).normal_(generator=generator))
    module.network.enable_inverse_link()
    if estimator.max_epochs != 0 and estimator.projection_steps != 0 and estimator.regularizer != "variational":
        loss = as_loss(estimator.loss).bind(Sample(X), None)
        projection = Projection(16, loss, as_regularizers(estimator.regularizer))
        module.measure(module.standardized(torch.from_numpy(X)), projection)
    module.keep_double()
    return estimator


@functools.cache
def fitted(case, dtype):
    X = rows_for(CASES[case], dtype)
    return moved(tiny(**CASES[case]).fit(X), X), X


def started(model):
    """A session on one thread: others would wait in the way of the next test."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model if isinstance(model, Path) else model.SerializeToString(), options)


def session_of(estimator, X):
    skae.onnx.register()
    return started(skl2onnx.to_onnx(estimator, X[:1]))


def run(session, X):
    return session.run(None, {session.get_inputs()[0].name: X})[0]


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.mark.parametrize(("case", "dtype"), [*((case, np.float64) for case in CASES), ("dense", np.float32)])
def test_codes_and_reconstructions(case, dtype, tmp_path):
    estimator, X = fitted(case, dtype)
    session = session_of(estimator, X)
    around = (X + 0.3 * np.random.RandomState(1).standard_normal(X.shape)).clip(0, 1).astype(dtype)
    for rows in (X, around, X[:1], np.resize(around, (300, X.shape[1]))):
        codes, exported = estimator.transform(rows), run(session, rows)
        assert exported.dtype == dtype
        assert_allclose(exported, codes, rtol=0, atol=TOLERANCE[dtype] * np.abs(codes).max())
    assert run(session, X[:0]).shape == (0, 3)
    skae.onnx.export_decoder(estimator, tmp_path / "decoder.onnx")
    codes, decoder = estimator.transform(X), started(tmp_path / "decoder.onnx")
    for many in (codes, 4 * codes, codes[:1], codes[:0]):
        (exported,) = decoder.run(["X"], {"codes": many})
        assert exported.dtype == dtype
        assert exported.shape == (len(many), X.shape[1])
        if len(many) > 0:
            x_hat = estimator.inverse_transform(many)
            assert_allclose(exported, x_hat, rtol=0, atol=TOLERANCE[dtype] * np.abs(x_hat).max())


def test_error_function():
    x = np.concatenate([np.linspace(-7, 7, 20_001), [-40.0, 1e300, -np.inf, 0.0]])
    graph = Graph("erf")
    (result,) = graph.call(lambda x: (torch.erf(x),), ["x"], [torch.zeros(7, dtype=torch.float64)])
    ports = [[onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [None])] for name in ("x", result)]
    model = onnx.helper.make_graph(graph.nodes, "erf", *ports, graph.constants)
    opset = onnx.helper.make_opsetid("", OPSET)
    session = started(onnx.helper.make_model(model, opset_imports=[opset], ir_version=8))
    assert_allclose(run(session, x), scipy.special.erf(x), rtol=0, atol=4e-15)


@pytest.mark.parametrize(
    "steps",
    [
        [tiny(), StandardScaler(), LogisticRegression(max_iter=500)],
        [FeatureUnion([("small", tiny()), ("scaled", StandardScaler())]), tiny()],
        [ColumnTransformer([("left", tiny(), slice(0, 30)), ("right", tiny(), slice(30, 64))])],
    ],
    ids=["first", "union", "columns"],
)
def test_anywhere_in_a_pipeline(steps, digits):
    X, y = digits
    pipeline = make_pipeline(*steps).fit(X[:300], y[:300])
    skae.onnx.register()
    options = {LogisticRegression: {"zipmap": False}} if hasattr(steps[-1], "C") else None
    results = started(skl2onnx.to_onnx(pipeline, X[:1], options=options)).run(None, {"X": X})
    if hasattr(pipeline, "predict"):
        assert_array_equal(results[0], pipeline.predict(X))
        assert_allclose(results[1], pipeline.predict_proba(X), atol=1e-6)
    else:
        codes = pipeline.transform(X)
        assert_allclose(results[0], codes, rtol=0, atol=1e-9 * np.abs(codes).max())


def test_labels_of_ten_thousand_samples(digits):
    X, y = digits[0].astype(np.float32), digits[1]
    pipeline = make_pipeline(StandardScaler(), tiny(), LogisticRegression(max_iter=500))
    search = GridSearchCV(pipeline, {"autoencodertransformer__n_components": [3, 6]}, cv=2).fit(X[:300], y[:300])
    random = np.random.default_rng(0)
    rows = X[random.integers(len(X), size=10_000)]
    rows += random.normal(scale=2.0, size=rows.shape).astype(np.float32)
    skae.onnx.register()
    model = skl2onnx.to_onnx(search, X[:1], options={id(search.best_estimator_[-1]): {"zipmap": False}})
    assert_array_equal(started(model).run(["label"], {"X": rows})[0], search.predict(rows))


@pytest.mark.parametrize("method", ["neighbors", "reconstruction"])
def test_outliers(digits, method):
    X = digits[0].astype(np.float32)
    search = GridSearchCV(tiny(), {"n_components": [2, 3]}, cv=2)
    detector = AutoEncoderOutlierDetector(search, method=method, contamination=0.2, random_state=0).fit(X[:300])
    rows = np.concatenate([X, X[:, ::-1]])
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(detector, X[:1]))
    labels, scores = session.run(["label", "scores"], {"X": rows})
    decision = detector.decision_function(rows)
    assert labels.dtype == np.int64
    assert set(labels[:, 0]) == {-1, 1}
    assert_array_equal(labels[:, 0], detector.predict(rows))
    assert scores.dtype == np.float64
    assert_allclose(scores[:, 0], decision, rtol=1e-5, atol=1e-5 * np.abs(decision).max())
    assert session.run(["label"], {"X": np.full_like(X[:1], np.nan)})[0] == -1
    assert session.run(["label"], {"X": X[:0]})[0].shape == (0, 1)


@pytest.mark.parametrize("method", ["neighbors", "reconstruction"])
def test_outliers_among_samples_with_missing_values(method):
    X = curved_rows(120)
    X[::3, 1] = X[5, 2:] = X[9] = np.nan
    detector = AutoEncoderOutlierDetector(tiny(allow_nan=True), method=method, random_state=0).fit(X)
    skae.onnx.register()
    rows = np.concatenate([X, -9 * X])
    labels, scores = started(skl2onnx.to_onnx(detector, X[:1])).run(["label", "scores"], {"X": rows})
    assert_array_equal(labels[:, 0], detector.predict(rows))
    assert_allclose(scores[:, 0], detector.decision_function(rows), rtol=1e-5, atol=1e-6)


def test_outliers_of_an_exact_relation():
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 2)) @ random.normal(size=(2, 8)) + 1e3
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2), method="reconstruction").fit(rows[:200])
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(detector, rows[:1]))
    assert (session.run(["label"], {"X": rows})[0] == 1).all()
    assert (session.run(["label"], {"X": rows + random.normal(size=rows.shape)})[0] == -1).all()


@pytest.mark.parametrize(("trained", "served"), [(np.float32, np.float64), (np.float64, np.float32), (np.float64, int)])
def test_precision_is_that_of_transform(trained, served):
    X = (20 * curved_rows()).round()
    estimator = moved(tiny().fit(X.astype(trained)), X.astype(trained))
    rows = X.astype(served)
    codes, exported = estimator.transform(rows), run(session_of(estimator, rows), rows)
    assert exported.dtype == codes.dtype
    assert_allclose(exported, codes, rtol=0, atol=TOLERANCE[codes.dtype.type] * np.abs(codes).max())


def test_features_as_inputs_of_their_own():
    X = curved_rows()
    estimator = tiny(projection_steps=0).fit(X)
    kinds = skl2onnx.common.data_types.FloatTensorType, skl2onnx.common.data_types.DoubleTensorType
    types = [("first", kinds[0]([None, 2])), ("rest", kinds[1]([None, 3]))]
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(estimator, initial_types=types))
    parts = X[:, :2].astype(np.float32), X[:, 2:]
    (codes,) = session.run(None, {"first": parts[0], "rest": parts[1]})
    assert_allclose(codes, estimator.transform(np.hstack(parts)), atol=1e-8)


def test_what_transform_refuses_is_no_number():
    estimator, X = fitted("relu", np.float64)
    rows = np.repeat(X[:1], 3, axis=0)
    rows[0, 0], rows[1, 1] = np.nan, np.inf
    codes = run(session_of(estimator, X), rows)
    assert np.isnan(codes[:2]).all()
    assert_allclose(codes[2:], estimator.transform(X[:1]), atol=1e-9)


def test_a_decoder_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    estimator, path = tiny().fit(curved_rows()), tmp_path / "decoder.onnx"
    path.write_bytes(b"before")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            skae.onnx.export_decoder(estimator, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_errors_say_what_to_do(tmp_path, digits):
    X = curved_rows()
    estimator = tiny().fit(X)
    skae.onnx.register()
    with pytest.raises(ValueError, match="target_opset=17 is too low .* needs operator set 18 .* Pass target_opset=18"):
        skl2onnx.to_onnx(estimator, X[:1], target_opset=17)
    with pytest.raises(
        ValueError, match="The input has 4 features, but AutoEncoderTransformer was fitted with 5. Pass"
    ):
        skl2onnx.to_onnx(estimator, X[:1, :4])
    with pytest.raises(TypeError, match=r"estimator must be an AutoEncoderTransformer, got StandardScaler\(\)."):
        skae.onnx.export_decoder(StandardScaler(), tmp_path / "decoder.onnx")
    with pytest.raises(NotFittedError):
        skae.onnx.export_decoder(tiny(), tmp_path / "decoder.onnx")
    with pytest.raises(NotFittedError):
        skl2onnx.to_onnx(tiny(), X[:1])
    detector = AutoEncoderOutlierDetector(IsolationForest(n_estimators=5), contamination=0.1).fit(X)
    with pytest.raises(TypeError, match=r"must be an AutoEncoderTransformer to be converted, got IsolationForest\("):
        skl2onnx.to_onnx(detector, X[:1])
    detector = AutoEncoderOutlierDetector(make_pipeline(StandardScaler(), tiny()), contamination=0.1).fit(X)
    with pytest.raises(TypeError, match=r"(?s)got Pipeline\(.*or fit a detector of an autoencoder to what the steps"):
        skl2onnx.to_onnx(detector, X[:1])


class WithBessel(Users):
    def encode(self, x):
        return super().encode(torch.special.bessel_j0(x))


class WithChoice(Users):
    def encode(self, x):
        return super().encode(x if x.sum() > 0 else -x)


class WithMemory(Users):
    def encode(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().encode(x) * self.calls


class WithOneSample(Users):
    def encode(self, x):
        return super().encode(x if x.shape[0] > 1 else -x)


class WithRounding(Users):
    def encode(self, x):
        return super().encode(torch.div(x, 2, rounding_mode="floor"))


class WithMasks(Users):
    def encode(self, x):
        x = torch.cat([x[:, torch.tensor([True, False, True, True, False])], x[:, [4, 1]]], dim=1)
        x[x.sum(dim=1) < 0.5] = 0.25
        return super().encode(x)


class WithDraws(Users):
    def encode(self, x):
        return super().encode(x) + torch.randn(x.shape[0], 1)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (WithBessel, "contains the operation aten.special_bessel_j0.default, which has no translation"),
        (WithChoice, "cannot be traced: .*data-dependent"),
        (WithMemory, "computes something else when it is called again"),
        (WithOneSample, "computes something else .* with another number of samples"),
        (WithRounding, "contains the operation aten.div.Tensor_mode, which has no translation"),
        (WithDraws, "cannot be traced"),
    ],
)
def test_modules_without_translation(module, reason):
    X = curved_rows()
    estimator = moved(tiny(module=module, projection_steps=0).fit(X), X)
    skae.onnx.register()
    with pytest.raises(NotImplementedError, match=rf"cannot be converted to ONNX: it {reason}.* Build a custom module"):
        skl2onnx.to_onnx(estimator, X[:1])


def test_samples_and_features_chosen_by_masks():
    X = curved_rows()
    estimator = moved(tiny(module=WithMasks, projection_steps=0).fit(X), X)
    assert_allclose(run(session_of(estimator, X), X), estimator.transform(X), atol=1e-9)


def test_missing_packages_are_named(monkeypatch, tmp_path):
    estimator = tiny().fit(curved_rows())
    for package, call in {
        "onnx": lambda: skae.onnx.export_decoder(estimator, tmp_path / "decoder.onnx"),
        "skl2onnx": skae.onnx.register,
    }.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=rf'needs the {package} package: pip install "skae\[onnx\]"'):
                call()


class TestSubclasses:
    """They are converted as what they inherit from, whenever they were made."""

    def test_of_the_transformer(self):
        class Before(AutoEncoderTransformer):
            pass

        skae.onnx.register()

        class After(Before):
            pass

        X = curved_rows()
        for cls in (Before, After):
            estimator = make_pipeline(StandardScaler(), cls(2, **QUICK)).fit(X)
            (codes,) = runtime.InferenceSession(skl2onnx.to_onnx(estimator, X[:1]).SerializeToString()).run(
                None, {"X": X}
            )
            assert_allclose(codes, estimator.transform(X), atol=1e-10)

    def test_of_the_detector(self):
        class Own(AutoEncoderTransformer):
            pass

        class Detector(AutoEncoderOutlierDetector):
            pass

        skae.onnx.register()
        X = curved_rows()
        detector = Detector(Own(2, **QUICK)).fit(X)
        session = runtime.InferenceSession(skl2onnx.to_onnx(detector, X[:1]).SerializeToString())
        labels, scores = session.run(None, {"X": X})
        assert_array_equal(labels.ravel(), detector.predict(X))
        assert_allclose(scores.ravel(), detector.decision_function(X), atol=1e-10)

    def test_with_methods_of_their_own(self, tmp_path):
        class Doubling(AutoEncoderTransformer):
            def transform(self, X):
                return 2 * super().transform(X)

            def inverse_transform(self, X):
                return super().inverse_transform(X / 2)

        class Strict(AutoEncoderOutlierDetector):
            def predict(self, X):
                return -np.ones(len(X), dtype=int)

        skae.onnx.register()
        X = curved_rows()
        estimator = Doubling(2, **QUICK).fit(X)
        strict = Strict(AutoEncoderTransformer(2, **QUICK)).fit(X)
        for fitted, message in (
            (estimator, "Doubling overrides the method 'transform', but skae.onnx converts that of AutoEncoder"),
            (AutoEncoderOutlierDetector(estimator).fit(X), "Doubling overrides the method 'transform'"),
            (strict, "Strict overrides the method 'predict', .*update_registered_converter"),
        ):
            with pytest.raises(TypeError, match=message):
                skl2onnx.to_onnx(fitted, X[:1])
        with pytest.raises(TypeError, match="Doubling overrides the method 'inverse_transform'"):
            skae.onnx.export_decoder(estimator, tmp_path / "decoder.onnx")

    def test_a_converter_of_its_own_is_kept(self):
        def declare(operator):
            operator.outputs[0].type = skl2onnx.common.data_types.DoubleTensorType([None, 5])

        def convert(scope, operator, container):
            name = scope.get_unique_operator_name("Identity")
            container.add_node("Identity", operator.inputs[0].full_name, operator.outputs[0].full_name, name=name)

        class Same(AutoEncoderTransformer):
            def transform(self, X):
                return X

        skl2onnx.update_registered_converter(Same, "OwnSame", declare, convert)
        skae.onnx.register()
        skae.onnx.register()
        X = curved_rows()
        (same,) = runtime.InferenceSession(skl2onnx.to_onnx(Same(2, **QUICK).fit(X), X[:1]).SerializeToString()).run(
            None, {"X": X}
        )
        assert_array_equal(same, X)
