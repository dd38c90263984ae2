"""Exported networks compute what the live ones do."""

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

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")

import skae.onnx  # noqa: E402
from skae._onnx.flow import error_function  # noqa: E402
from skae._onnx.graph import Graph, Port, graph_proto, numbered  # noqa: E402

# Weights are stirred after it, so a fit need not be good.
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
CONV = {"architecture": "conv", "input_shape": (1, 9, 11), "hidden_layer_sizes": (2, 3, 8)}


class Users(nn.Module):
    """Layers, functions, methods and bare weights in one network."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_features, 6), nn.LeakyReLU(), nn.Linear(6, n_components))
        self.wide = nn.Linear(n_components, 8)
        self.weight = nn.Parameter(torch.linspace(-1, 1, 8 * n_features).reshape(8, n_features))

    def encode(self, x):
        return self.encoder(x) - 0.25

    def decode(self, z):
        hidden = nn.functional.gelu(self.wide(z), approximate="tanh")
        other = torch.sigmoid(hidden / 2.0) + nn.functional.elu(-hidden.tanh(), alpha=0.5).exp()
        return nn.functional.dropout(-hidden * other, training=self.training) @ self.weight.abs()


class Many(nn.Module):
    """Every function of single values, once as a layer where there is one, and steps in place."""

    def __init__(self, n_features, n_components):
        super().__init__()
        kinds = nn.ReLU6, nn.Hardtanh, nn.PReLU, nn.Mish, nn.CELU, nn.SELU, nn.Softplus
        self.layers = nn.ModuleList([*(kind() for kind in kinds), nn.Softplus(beta=3.0), nn.Softmax(dim=1)])
        self.narrow = nn.Linear(9 * n_features, n_components)
        self.wide, self.out = nn.Linear(n_components, 8), nn.Linear(9 * 8 + 14 * 7, n_features)

    def encode(self, x):
        return self.narrow(torch.cat([layer(x) for layer in self.layers], dim=1)).view(x.shape[0], -1)

    def decode(self, z):
        functional = nn.functional
        hidden = self.wide(z)
        known = hidden
        hidden += 0.25  # which is known as well, and so is the next
        functional.relu(hidden, inplace=True)
        some = 0.5 + hidden[:, 1:]
        curves = [torch.sin(some), some.cos(), -abs(some), some**2, some.pow(3), torch.square(some), some.clamp(0.5, 1)]
        curves += [functional.softplus(some), functional.mish(some), functional.selu(some), some.clamp(max=0.75)]
        curves += [functional.hardtanh(some, -0.5, 1.5), torch.softmax(some, dim=1), some / 3 - hidden[:, :-1] * some]
        return self.out(torch.cat([*(layer(known) for layer in self.layers), *curves], 1))


class Pictures(nn.Module):
    """A convolutional network as people write them."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.filter, self.narrow = nn.Conv2d(1, 2, 3, padding=1, stride=(1, 2)), nn.Linear(2 * 4 * 3, n_components)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(2)
        self.wide, self.larger = nn.Linear(n_components, 24), nn.Upsample(scale_factor=(2, 3))
        self.back = nn.Conv2d(4, 1, 3, padding=1)
        self.out = nn.Linear(72, n_features)

    def encode(self, x):
        images = self.filter(x.view(-1, 1, 9, 11))
        active = self.relu(images)
        return self.narrow(torch.flatten(self.pool(images + active), 1))

    def decode(self, z):
        images = self.wide(z).reshape(z.size(0), 2, 3, 4).sigmoid()
        images = self.larger(images)
        images = torch.cat([images, nn.functional.avg_pool2d(images, 3, stride=1, padding=1)], dim=1)
        return self.out(self.back(images).view(z.shape[0], -1))


CASES = {
    "dense": {},
    "wild": {"whiten": True, "hidden_layer_sizes": (8, 6)},
    "plain": {"linear_skip": False},
    "pca": {"max_epochs": 0, "activation": "identity"},
    "relu": {"activation": "relu"},
    "silu": {"activation": "silu"},
    "elu": {"activation": "elu"},
    "tanh": {"activation": "tanh"},
    "logistic": {"activation": "logistic"},
    "identity": {"activation": "identity", "loss": "huber"},
    "batch": {"normalization": "batch", "dropout": 0.1},
    "layer": {"normalization": "layer"},
    "tied": {"architecture": "tied", "hidden_layer_sizes": (8, 6)},
    "tied, normalised": {"architecture": "tied", "normalization": "layer"},
    "tied, plain": {"architecture": "tied", "linear_skip": False, "normalization": "batch"},
    "conv": CONV,
    "conv, batch": {**CONV, "normalization": "batch"},
    "conv, layer": {**CONV, "normalization": "layer"},
    "conv, plain": {**CONV, "linear_skip": False},
    "probabilities": {"loss": "binary_cross_entropy"},
    "rates": {"loss": "poisson"},
    "probabilities before training": {"loss": "binary_cross_entropy", "max_epochs": 0},
    "rates before training": {"loss": "poisson", "max_epochs": 0},
    "probabilities, plain": {"loss": "binary_cross_entropy", "linear_skip": False},
    "variational": {"regularizer": "variational"},
    "users": {"module": Users},
    "users, plain": {"module": Users, "linear_skip": False},
    "users, many": {"module": Many},
    "users, pictures": {"module": Pictures, "input_shape": (1, 9, 11)},
}


def rows_for(parameters, dtype):
    """Samples between zero and one, for every loss and every shape."""
    X = curved_rows() if "input_shape" not in parameters else curved_rows() @ np.random.RandomState(0).rand(5, 99)
    return ((X - X.min(axis=0)) / np.ptp(X, axis=0)).astype(dtype)


def stirred(estimator):
    """Move all weights, so that no layer is idle whatever the training kept, and switch the link on."""
    generator = torch.Generator().manual_seed(0)
    network = estimator.net_.module_.network
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.empty_like(weight, dtype=torch.float32).normal_(generator=generator))
        if network.link is not None and estimator.max_epochs > 0:
            network.enable_inverse_link()
    return estimator


def with_wild_rows(X):
    """Samples, then some around them, then some far from all."""
    noise = np.random.RandomState(1).standard_normal(X.shape)
    return np.concatenate([X, X + noise, X.mean(axis=0) + 15.0 * (X - X.mean(axis=0))]).astype(X.dtype)


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


def n_far(estimator, X):
    """How many rows are beyond the limits, found as the live network finds them."""
    module, counts = estimator.net_.module_, []
    encode_far = type(module.network)._encode_far
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(module.network), "_encode_far", lambda self, x: counts.append(len(x)) or encode_far(self, x))
        estimator.transform(X)
    return sum(counts)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_codes_and_reconstructions(case, dtype, tmp_path):
    parameters = CASES[case]
    X = rows_for(parameters, dtype)
    estimator = stirred(AutoEncoderTransformer(2, **{**QUICK, **parameters}).fit(X))
    rows = with_wild_rows(X)
    if estimator.linear_skip and case != "pca":
        assert 30 < n_far(estimator, rows) < len(rows)
    codes, exported = estimator.transform(rows), run(session_of(estimator, X), rows)
    assert exported.dtype == dtype
    scale = np.abs(codes[: len(X)]).max()
    errors = np.abs(exported - codes).max(axis=1) / np.maximum(scale, np.abs(codes).max(axis=1))
    assert errors[: len(X)].max() < TOLERANCE[dtype]
    # Steps with the cubes and sines of one network enlarge the last bits.
    allowed = TOLERANCE[dtype] * (100 if case == "users, many" and dtype == np.float64 else 1)
    assert not (errors > allowed).any()
    skae.onnx.export_decoder(estimator, tmp_path / "decoder.onnx")
    decoder = started(tmp_path / "decoder.onnx")
    many = np.concatenate([codes, 4 * codes, 30 * codes])
    x_hat = estimator.inverse_transform(many)
    (exported,) = decoder.run(["X"], {"codes": many})
    assert exported.dtype == dtype
    assert_allclose(exported, x_hat, atol=TOLERANCE[dtype] * np.abs(x_hat).max())


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def tiny(**parameters):
    return AutoEncoderTransformer(3, **{**QUICK, **parameters})


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "steps",
    [
        [StandardScaler(), tiny(), LogisticRegression(max_iter=500)],
        [tiny(), StandardScaler(), LogisticRegression(max_iter=500)],
        [FeatureUnion([("small", tiny()), ("scaled", StandardScaler()), ("whitened", tiny(whiten=True))]), tiny()],
        [ColumnTransformer([("left", tiny(), slice(0, 30)), ("right", tiny(), slice(30, 64))])],
        [StandardScaler(), tiny()],
    ],
    ids=["middle", "first", "union", "columns", "last"],
)
def test_anywhere_in_a_pipeline(steps, dtype, digits):
    X, y = digits[0].astype(dtype), digits[1]
    pipeline = make_pipeline(*steps).fit(X[:300], y[:300])
    skae.onnx.register()
    options = {LogisticRegression: {"zipmap": False}}
    model = skl2onnx.to_onnx(pipeline, X[:1], options={key: options[key] for key in options if hasattr(steps[-1], "C")})
    results = started(model).run(None, {"X": X})
    if hasattr(pipeline, "predict"):
        assert_array_equal(results[0], pipeline.predict(X))
        assert_allclose(results[1], pipeline.predict_proba(X), atol=TOLERANCE[dtype])
    else:
        codes = pipeline.transform(X)
        errors = np.abs(results[0] - codes).max(axis=1) / np.abs(codes).max()
        assert not (errors > TOLERANCE[dtype]).any()
        assert results[0].dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_of_ten_thousand_rows(dtype, digits):
    X, y = digits[0].astype(dtype), digits[1]
    pipeline = make_pipeline(StandardScaler(), tiny(), LogisticRegression(max_iter=500))
    search = GridSearchCV(pipeline, {"autoencodertransformer__n_components": [3, 6]}, cv=2).fit(X[:300], y[:300])
    random = np.random.default_rng(0)
    rows = X[random.integers(len(X), size=10_000)]
    rows += random.normal(scale=2.0, size=rows.shape).astype(dtype)
    scaler, autoencoder, _ = search.best_estimator_
    assert n_far(autoencoder, scaler.transform(rows)) > 100
    skae.onnx.register()
    for fitted in (search, search.best_estimator_):
        model = skl2onnx.to_onnx(fitted, X[:1], options={id(search.best_estimator_[-1]): {"zipmap": False}})
        session = started(model)
        assert_array_equal(session.run(["label"], {"X": rows})[0], search.predict(rows))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("contamination", ["auto", 0.2])
def test_outliers(dtype, contamination, digits):
    X = digits[0].astype(dtype)
    detector = AutoEncoderOutlierDetector(tiny(), contamination=contamination, random_state=0).fit(X[:300])
    rows = np.concatenate([X, X[:, ::-1]])
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(detector, X[:1]))
    labels, scores = session.run(["label", "scores"], {"X": rows})
    decision = detector.decision_function(rows)
    assert labels.dtype == np.int64
    assert set(labels[:, 0]) == {-1, 1}
    assert_array_equal(labels[:, 0], detector.predict(rows))
    assert scores.dtype == np.float64
    assert_allclose(scores[:, 0], decision, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * np.abs(decision).max())
    assert session.run(["label"], {"X": np.full_like(X[:1], np.nan)})[0] == -1
    assert session.run(["label"], {"X": X[:0]})[0].shape == (0, 1)


def test_outliers_by_another_estimator(digits):
    detector = AutoEncoderOutlierDetector(IsolationForest(n_estimators=5), contamination=0.1).fit(digits[0][:100])
    skae.onnx.register()
    with pytest.raises(TypeError, match=r"must be an AutoEncoderTransformer to be converted, got IsolationForest\("):
        skl2onnx.to_onnx(detector, digits[0][:1])


@pytest.mark.parametrize(("fitted", "served"), [(np.float32, np.float64), (np.float64, np.float32), (np.float64, int)])
def test_precision_is_that_of_transform(fitted, served):
    X = (20 * curved_rows()).round()
    estimator = stirred(tiny().fit(X.astype(fitted)))
    rows = X.astype(served)
    codes, exported = estimator.transform(rows), run(session_of(estimator, rows), rows)
    assert exported.dtype == codes.dtype
    assert_allclose(exported, codes, atol=np.finfo(codes.dtype).eps * 100)


def test_columns_as_inputs_of_their_own():
    X = curved_rows()
    estimator = stirred(tiny().fit(X))
    kinds = skl2onnx.common.data_types.FloatTensorType, skl2onnx.common.data_types.DoubleTensorType
    types = [("first", kinds[0]([None, 2])), ("rest", kinds[1]([None, 3]))]
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(estimator, initial_types=types))
    parts = X[:, :2].astype(np.float32), X[:, 2:]
    (codes,) = session.run(None, {"first": parts[0], "rest": parts[1]})
    assert_allclose(codes, estimator.transform(np.hstack(parts)), atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_number_of_rows(dtype):
    X = rows_for({}, dtype)
    estimator = stirred(tiny().fit(X))
    session = session_of(estimator, X)
    assert run(session, X[:0]).shape == (0, 3)
    for n_samples in (1, 7, 1000):
        rows = with_wild_rows(np.resize(X, (n_samples, 5)))
        codes = estimator.transform(rows)
        errors = np.abs(run(session, rows) - codes).max(axis=1) / np.abs(codes).max()
        assert not (errors > TOLERANCE[dtype]).any()
    together = run(session, X)
    alone = np.vstack([run(session, row[np.newaxis]) for row in X[:5]])
    assert_allclose(alone, together[:5], atol=TOLERANCE[dtype])


def test_wild_rows_are_moved_a_few_at_a_time(monkeypatch):
    X = rows_for({}, np.float64)
    estimator, rows = stirred(tiny().fit(X)), with_wild_rows(X)
    expected = run(session_of(estimator, X), rows)
    monkeypatch.setattr("skae._network.projection.JACOBIAN_VALUES", 11 * 3 * 5)
    assert n_far(estimator, rows) % 11 != 0
    assert_allclose(run(session_of(estimator, X), rows), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("linear_skip", [True, False])
def test_missing_values(dtype, linear_skip):
    X = rows_for({}, dtype)
    holes = np.where(np.random.RandomState(0).uniform(size=X.shape) < 0.3, np.nan, X).astype(dtype)
    holes[4] = np.nan
    estimator = stirred(tiny(allow_nan=True, linear_skip=linear_skip).fit(holes))
    session = session_of(estimator, holes)
    for rows in (holes, X, holes[:0]):
        codes = estimator.transform(rows) if len(rows) else np.empty((0, 3), dtype)
        assert_allclose(run(session, rows), codes, atol=TOLERANCE[dtype] * np.abs(estimator.transform(X)).max())


def test_error_function():
    graph = Graph(np.float64, numbered("value"))
    value = graph.input(Port("x", np.float64, (None,)))
    graph.output(error_function(graph, value), Port("erf", np.float64, (None,)))
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph_proto(graph, "erf"), opset_imports=[opset], ir_version=8)
    x = np.concatenate([np.linspace(-7, 7, 20_001), [0.46875, np.nextafter(0.46875, 1), -40.0, 1e300, -np.inf, 0.0]])
    (erf,) = started(model).run(None, {"x": x})
    assert_allclose(erf, scipy.special.erf(x), rtol=0, atol=5e-16)


def test_a_row_alone_is_treated_as_among_others(digits):
    """The training row with the largest code is at the limit to the last bit."""
    X = digits[0][:300].astype(np.float32)
    estimator = AutoEncoderTransformer(8, hidden_layer_sizes=16, max_epochs=5, early_stopping=False, random_state=2)
    codes = estimator.fit(X).transform(X)
    alone = np.vstack([estimator.transform(row[np.newaxis]) for row in X])
    assert_allclose(alone, codes, atol=1e-5 * np.abs(codes).max())
    assert_allclose(run(session_of(estimator, X), X), codes, atol=1e-5 * np.abs(codes).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"max_epochs": 0, "activation": "identity"},
        {"linear_skip": False, "activation": "relu"},
        {"linear_skip": False, "activation": "tanh"},
        {"allow_nan": True, "linear_skip": False, "activation": "logistic"},
    ],
    ids=str,
)
def test_what_transform_refuses_is_no_number(parameters, dtype):
    X = rows_for({}, dtype)
    estimator = stirred(tiny(**parameters).fit(X))
    bad = [np.inf, -np.inf] if estimator.allow_nan else [np.nan, np.inf, -np.inf]
    rows = np.repeat(X[:1], len(bad) + 1, axis=0)
    rows[np.arange(len(bad)), np.arange(len(bad))] = bad
    for row in rows[:-1]:
        with pytest.raises(ValueError, match="NaN|infinity"):
            estimator.transform(row[np.newaxis])
    codes = run(session_of(estimator, X), rows)
    assert np.isnan(codes[:-1]).all()
    assert_allclose(codes[-1:], estimator.transform(X[:1]), atol=TOLERANCE[dtype])


def test_rows_without_end():
    """Very wild rows are PCA's, and where codes overflow, which transform refuses, they are not finite."""
    X = rows_for({}, np.float32)
    estimator = stirred(tiny().fit(X))
    session = session_of(estimator, X)
    wild = (X - X.mean(axis=0)) * np.float32(1e12)
    codes = estimator.transform(wild)
    assert_allclose(run(session, wild), codes, atol=1e-5 * np.abs(codes).max())
    wilder = np.full_like(X[:2], np.finfo(np.float32).max)
    with pytest.raises(ValueError, match="overflow"):
        estimator.transform(wilder)
    assert not np.isfinite(run(session, wilder)).all(axis=1).any()


def test_a_decoder_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    estimator, path = tiny().fit(curved_rows()), tmp_path / "decoder.onnx"
    path.write_bytes(b"before")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("no space")))
        with pytest.raises(OSError, match="no space"):
            skae.onnx.export_decoder(estimator, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
    skae.onnx.export_decoder(estimator, str(path))
    session = started(path)
    for n_samples in (0, 1, 7, 1000):
        codes = np.random.RandomState(0).standard_normal((n_samples, 3))
        (X_hat,) = session.run(["X"], {"codes": codes})
        assert X_hat.shape == (n_samples, 5)
        assert n_samples == 0 or np.abs(X_hat - estimator.inverse_transform(codes)).max() < 1e-12


class Untraceable(Users):
    def encode(self, x):
        return self.encoder(x if x.sum() > 0 else -x)


class WithSum(Users):
    def decode(self, z):
        return torch.cumsum(super().decode(z), dim=1)


class WithMemory(Users):
    def encode(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().encode(x) * self.calls


class WithNumberOfRows(Users):
    def encode(self, x):
        return super().encode(x) / x.shape[0]


class WithHook(Users):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.wide.register_forward_hook(lambda layer, inputs, output: 2 * output)


class WithGroups(Users):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.encoder.insert(2, nn.GroupNorm(3, 6))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Untraceable, "skae.onnx cannot translate encode of the module Untraceable, which torch.fx cannot trace"),
        (WithSum, "skae.onnx cannot translate the step .*cumsum.* It knows AlphaDropout, .* Build the module of"),
        (WithNumberOfRows, "skae.onnx cannot translate the arguments of the step .*truediv"),
        (WithMemory, r"encode of the module WithMemory: the translation differs by \d\.\de.\d\d of the largest value"),
        (WithHook, "skae.onnx cannot translate the layer Linear.* with hooks. It knows"),
        (WithGroups, r"skae.onnx cannot translate the layer GroupNorm\(3, 6, .*\) with more than one group. It knows"),
    ],
)
def test_users_module_without_translation(module, message, tmp_path):
    X = rows_for({}, np.float32)
    estimator = tiny(module=module).fit(X)
    skae.onnx.register()
    with pytest.raises(NotImplementedError, match=message):
        skl2onnx.to_onnx(estimator, X[:1])
        skae.onnx.export_decoder(estimator, tmp_path / "decoder.onnx")


def test_errors_say_what_to_do(tmp_path):
    X = curved_rows()
    estimator = tiny().fit(X)
    skae.onnx.register()
    with pytest.raises(ValueError, match="target_opset=17 is too low .* needs operator set 18 .* Pass target_opset=18"):
        skl2onnx.to_onnx(estimator, X[:1], target_opset=17)
    with pytest.raises(ValueError, match="The input has 4 columns, but AutoEncoderTransformer was fitted with 5. Pass"):
        skl2onnx.to_onnx(estimator, X[:1, :4])
    with pytest.raises(TypeError, match=r"estimator must be an AutoEncoderTransformer, got StandardScaler\(\)."):
        skae.onnx.export_decoder(StandardScaler(), tmp_path / "decoder.onnx")
    with pytest.raises(NotFittedError):
        skae.onnx.export_decoder(tiny(), tmp_path / "decoder.onnx")
    with pytest.raises(NotFittedError):
        skl2onnx.to_onnx(tiny(), X[:1])


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outliers_by_the_best_of_a_search(dtype, digits):
    X = digits[0][:100].astype(dtype)
    search = GridSearchCV(tiny(), {"n_components": [2, 3]}, cv=2)
    detector = AutoEncoderOutlierDetector(search, contamination=0.1).fit(X)
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(detector, X[:1]))
    rows = np.concatenate([X, X[:, ::-1]])
    assert_array_equal(session.run(["label"], {"X": rows})[0][:, 0], detector.predict(rows))


def test_outliers_in_a_pipeline_are_refused(digits):
    detector = AutoEncoderOutlierDetector(make_pipeline(StandardScaler(), tiny()), contamination=0.1)
    detector.fit(digits[0][:100])
    skae.onnx.register()
    with pytest.raises(TypeError, match=r"(?s)got Pipeline\(.*or fit a detector of an autoencoder to what the steps"):
        skl2onnx.to_onnx(detector, digits[0][:1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_outliers_of_an_exact_relation(dtype, offset):
    random = np.random.default_rng(0)
    rows = (random.normal(size=(400, 2)) @ random.normal(size=(2, 8)) + offset).astype(dtype)
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2), random_state=0).fit(rows[:200])
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(detector, rows[:1]))
    assert (session.run(["label"], {"X": rows})[0] == 1).all()
    assert (session.run(["label"], {"X": rows + random.normal(size=rows.shape).astype(dtype)})[0] == -1).all()
    huge = np.full_like(rows[:1], np.finfo(dtype).max / 2)
    assert session.run(["label"], {"X": huge})[0] == -1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outliers_among_rows_with_holes(dtype):
    X = curved_rows(120).astype(dtype)
    X[::3, 1] = X[5, 2:] = X[9] = np.nan
    autoencoder = tiny(allow_nan=True)
    detector = AutoEncoderOutlierDetector(autoencoder, random_state=0).fit(X)
    skae.onnx.register()
    session = started(skl2onnx.to_onnx(detector, X[:1]))
    rows = np.concatenate([X, -9 * X])
    labels, scores = session.run(["label", "scores"], {"X": rows})
    assert_array_equal(labels[:, 0], detector.predict(rows))
    assert_allclose(scores[:, 0], detector.decision_function(rows), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


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
            (AutoEncoderOutlierDetector(estimator).fit(X), "Doubling has a method 'transform' of its own"),
            (strict, "Strict has a method 'predict' of its own, .*update_registered_converter"),
        ):
            with pytest.raises(TypeError, match=message):
                skl2onnx.to_onnx(fitted, X[:1])
        with pytest.raises(TypeError, match="Doubling has a method 'inverse_transform' of its own"):
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
