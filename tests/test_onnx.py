"""Exported networks compute what the estimators do."""

import sys
from pathlib import Path

import numpy as np
import pytest
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

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")
pytest.importorskip("onnxscript")

import skae.onnx  # noqa: E402

# Relative to the largest code. Steps of the projection are decided in double precision on both sides.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-9}


class Users(nn.Module):
    """Layers, functions and bare weights in one network."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_features, 6), nn.LeakyReLU(), nn.Linear(6, n_components))
        self.wide = nn.Linear(n_components, 8)
        self.weight = nn.Parameter(torch.linspace(-1, 1, 8 * n_features).reshape(8, n_features))

    def encode(self, x):
        return self.encoder(x) - 0.25

    def decode(self, z):
        return (torch.sigmoid(self.wide(z)) * self.wide(z).tanh()) @ self.weight.abs()


class WithBessel(Users):
    def encode(self, x):
        return super().encode(torch.special.bessel_j0(x))


CASES = {
    "dense": ({}, np.float64),
    "dense, whitened": ({"whiten": True, "activation": "silu"}, np.float32),
    "plain": ({"linear_skip": False, "activation": "elu"}, np.float64),
    "pca": ({"max_epochs": 0, "activation": "identity"}, np.float32),
    "layer": ({"normalization": "layer", "activation": "tanh"}, np.float64),
    "tied": ({"architecture": "tied", "normalization": "batch", "activation": "relu"}, np.float64),
    "conv": (
        {"architecture": "conv", "input_shape": (1, 9, 11), "hidden_layer_sizes": (2, 8), "max_epochs": 20},
        np.float64,
    ),
    "probabilities": ({"loss": "binary_cross_entropy"}, np.float64),
    "rates": ({"loss": "poisson", "max_epochs": 40}, np.float32),
    "absolute": ({"loss": "absolute_error"}, np.float64),
    "sparse": ({"regularizer": "sparse"}, np.float64),
    "variational": ({"regularizer": "variational"}, np.float64),
    "encoder alone": ({"projection_steps": 0}, np.float32),
    "users": ({"module": Users, "max_epochs": 60}, np.float64),
}


def rows_for(parameters, dtype):
    """Samples between zero and one, for every loss and every shape."""
    X = curved_rows() if "input_shape" not in parameters else curved_rows() @ np.random.RandomState(0).rand(5, 99)
    return ((X - X.min(axis=0)) / np.ptp(X, axis=0)).astype(dtype)


def tiny(**parameters):
    return AutoEncoderTransformer(3, **{**QUICK, "max_epochs": 5, "batch_size": 20, **parameters})


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


@pytest.mark.parametrize("case", CASES)
def test_codes_and_reconstructions(case, tmp_path):
    parameters, dtype = CASES[case]
    X = rows_for(parameters, dtype)
    estimator = tiny(**parameters).fit(X)
    if case in ("dense", "plain", "tied", "probabilities", "sparse"):
        assert estimator.net_.module_.projection.n_steps > 0
    session = session_of(estimator, X)
    around = (X + 0.1 * np.random.RandomState(1).rand(*X.shape)).clip(0, 1).astype(dtype)
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
        if len(many) > 0:
            assert_allclose(exported, estimator.inverse_transform(many), rtol=0, atol=1e-5)


def test_missing_values():
    X = rows_for({}, np.float64)
    holes = np.where(np.random.RandomState(0).uniform(size=X.shape) < 0.3, np.nan, X)
    holes[4] = np.nan
    estimator = tiny(allow_nan=True).fit(holes)
    session = session_of(estimator, holes)
    for rows in (holes, X):
        codes = estimator.transform(rows)
        assert_allclose(run(session, rows), codes, rtol=0, atol=1e-9 * np.abs(codes).max())


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


def test_outliers(digits):
    X = digits[0].astype(np.float32)
    search = GridSearchCV(tiny(), {"n_components": [2, 3]}, cv=2)
    detector = AutoEncoderOutlierDetector(search, contamination=0.2, random_state=0).fit(X[:300])
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


def test_outliers_among_samples_with_missing_values():
    X = curved_rows(120)
    X[::3, 1] = X[5, 2:] = X[9] = np.nan
    detector = AutoEncoderOutlierDetector(tiny(allow_nan=True), random_state=0).fit(X)
    skae.onnx.register()
    rows = np.concatenate([X, -9 * X])
    labels, scores = started(skl2onnx.to_onnx(detector, X[:1])).run(["label", "scores"], {"X": rows})
    assert_array_equal(labels[:, 0], detector.predict(rows))
    assert_allclose(scores[:, 0], detector.decision_function(rows), rtol=1e-5, atol=1e-6)


def test_outliers_of_an_exact_relation():
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 2)) @ random.normal(size=(2, 8)) + 1e3
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2), random_state=0).fit(rows[:200])
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(detector, rows[:1]))
    assert (session.run(["label"], {"X": rows})[0] == 1).all()
    assert (session.run(["label"], {"X": rows + random.normal(size=rows.shape)})[0] == -1).all()


@pytest.mark.parametrize(("fitted", "served"), [(np.float32, np.float64), (np.float64, np.float32), (np.float64, int)])
def test_precision_is_that_of_transform(fitted, served):
    X = (20 * curved_rows()).round()
    estimator = tiny(projection_steps=0).fit(X.astype(fitted))
    rows = X.astype(served)
    codes, exported = estimator.transform(rows), run(session_of(estimator, rows), rows)
    assert exported.dtype == codes.dtype
    assert_allclose(exported, codes, atol=np.finfo(codes.dtype).eps * 1e4)


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
    X = rows_for({}, np.float64)
    estimator = tiny().fit(X)
    rows = np.repeat(X[:1], 3, axis=0)
    rows[0, 0], rows[1, 1] = np.nan, np.inf
    codes = run(session_of(estimator, X), rows)
    assert np.isnan(codes[:2]).any(axis=1).all()
    assert_allclose(codes[2:], estimator.transform(X[:1]), atol=1e-6)


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
    with pytest.raises(NotImplementedError, match="cannot be converted to ONNX: .* custom module must consist of"):
        skl2onnx.to_onnx(tiny(module=WithBessel).fit(X), X[:1])
    detector = AutoEncoderOutlierDetector(IsolationForest(n_estimators=5), contamination=0.1).fit(X)
    with pytest.raises(TypeError, match=r"must be an AutoEncoderTransformer to be converted, got IsolationForest\("):
        skl2onnx.to_onnx(detector, X[:1])
    detector = AutoEncoderOutlierDetector(make_pipeline(StandardScaler(), tiny()), contamination=0.1).fit(X)
    with pytest.raises(TypeError, match=r"(?s)got Pipeline\(.*or fit a detector of an autoencoder to what the steps"):
        skl2onnx.to_onnx(detector, X[:1])


def test_missing_packages_are_named(monkeypatch, tmp_path):
    estimator = tiny().fit(curved_rows())
    for package, call in {
        "onnx": lambda: skae.onnx.export_decoder(estimator, tmp_path / "decoder.onnx"),
        "onnxscript": lambda: skae.onnx.export_decoder(estimator, tmp_path / "decoder.onnx"),
        "skl2onnx": skae.onnx.register,
    }.items():
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=rf'needs? .*{package}.*: pip install "skae\[onnx\]"'):
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
