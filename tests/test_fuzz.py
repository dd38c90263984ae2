"""Whatever goes in: a correct result, or an error that says what is wrong and changes nothing.

Some sixty cases run with the other tests, the same ones each time. More, and new ones each time:

    SKAE_FUZZ_CASES=2000 pytest -m fuzz
"""

import copy
import math
import os
import pickle

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from skae import AutoEncoderTransformer, Sparse

CASES = os.environ.get("SKAE_FUZZ_CASES")
CONTAINERS = {
    "arrays": ["C", "F", "backwards", "gaps", "read-only"],
    "sparse": [f"{form}_{kind}" for form in ("csr", "csc", "coo") for kind in ("matrix", "array")],
    "others": ["list", "frame", "text"],
}
N_TESTS = 3 * len(CONTAINERS)
every_container = pytest.mark.parametrize("containers", CONTAINERS)
pytestmark = [
    pytest.mark.fuzz,
    # scikit-learn's validation first tries the sum of all values, in which overflows of both signs may meet.
    pytest.mark.filterwarnings("ignore:invalid value encountered in reduce:RuntimeWarning"),
]
fuzz = settings(
    max_examples=math.ceil(int(CASES or 60) / N_TESTS),
    derandomize=CASES is None,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

DTYPES = ["f8", "f4", "f2", "i8", "i1", "u1", "bool", ">f8", ">f4", ">i4", "object"]
LAYOUTS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "gaps": lambda X: np.repeat(np.repeat(X, 2, axis=0), 2, axis=1)[::2, ::2],
    "read-only": lambda X: _read_only(X.copy()),
}
# What may be wrong with values, and whether an estimator may still refuse them.
SPOILERS = {
    "constant column": lambda X: X.__setitem__((slice(None), 0), 7.1),
    "all zero": lambda X: X.fill(0),
    "duplicated rows": lambda X: X.__setitem__(slice(1, None, 2), X[0]),
    "mixed magnitudes": lambda X: np.multiply(X, 10.0 ** np.linspace(-8, 8, X.shape[1]), out=X),
    "offset": lambda X: np.add(X, 1e6, out=X),
    "tiny": lambda X: np.multiply(X, 1e-300, out=X),
    "denormal": lambda X: np.multiply(X, 5e-324, out=X),
    "one denormal": lambda X: X.__setitem__((-1, -1), 1e-310),
    "single precision's smallest": lambda X: np.multiply(X, 1e-42, out=X),
    "one outlier": lambda X: X.__setitem__((0, -1), 1e12),
}
HUGE = {
    "large": lambda X: np.multiply(X, 1e30, out=X),
    "single precision's largest": lambda X: np.multiply(X, 1e38, out=X),
    "huge": lambda X: np.multiply(X, 1e150, out=X),
    "huger": lambda X: np.multiply(X, 1e300, out=X),
    "one huge": lambda X: X.__setitem__((0, 0), 1e153),
    "largest": lambda X: X.__setitem__((0, 0), np.finfo(float).max),
}
REFUSED = {
    "inf": lambda X: X.__setitem__((0, -1), -np.inf),
    "nan": lambda X: X.__setitem__((-1, 0), np.nan),
}
SIZES = st.integers(1, 6) | st.lists(st.integers(1, 6), max_size=3) | st.tuples(st.integers(1, 6))
VALID = {
    "hidden_layer_sizes": SIZES,
    "decoder_layer_sizes": SIZES | st.just("auto"),
    "activation": st.sampled_from(["gelu", "relu", "silu", "elu", "tanh", "logistic", "identity"]),
    "linear_skip": st.booleans(),
    "loss": st.sampled_from(["squared_error", "absolute_error", "huber"]),
    "regularizer": st.sampled_from(
        [None, "denoising", "sparse", "contractive", "variational", [Sparse(), "denoising"]]
    ),
    "normalization": st.sampled_from([None, "batch", "layer"]),
    "dropout": st.sampled_from([0, 0.5, 0.99]),
    "alpha": st.sampled_from([0, 1e-3, 10.0]),
    "whiten": st.booleans(),
    "optimizer": st.sampled_from(["adam", "adamw", "sgd", "lbfgs"]),
    "batch_size": st.sampled_from(["auto"]) | st.integers(1, 40),
    "early_stopping": st.booleans(),
    "validation_fraction": st.sampled_from([1e-3, 0.1, 0.5, 0.9]),
    "tol": st.sampled_from([0, 5e-4, 1.0]),
    "warm_start": st.booleans(),
}
# These suit some data, sizes or neighbours only.
CONDITIONAL = {
    "loss": ["binary_cross_entropy", "poisson", "cosine"],
    "architecture": ["tied", "conv"],
    "input_shape": [(1, 2, 3), (1, 1, 5), (1, 8, 1)],
    "lr": [1e-300, 0.1, 1e30],
    "n_components": [14, 200],
}
INVALID = {
    "n_components": [0, -1, 2.0, None, "two", np.nan],
    "hidden_layer_sizes": [0, -3, [0], [2.0], "wide", None, [[2]]],
    "decoder_layer_sizes": [0, [3, -1], 2.5, "narrow"],
    "activation": ["softmax", None, 3],
    "linear_skip": ["yes", 2],
    "loss": ["mse", None, 1],
    "regularizer": ["dropout", 3, ["sparse", "none"]],
    "architecture": ["wide", None],
    "normalization": ["group", 1],
    "dropout": [1.0, -0.1, "half", np.nan],
    "alpha": [-1, np.nan, None],
    "whiten": ["no", None],
    "optimizer": ["newton", None, int],
    "optimizer_params": [3, "fast", {"speed": 2}, {"lr": 0.1}],
    "module_params": [3, "wide", {"width": 2}],
    "lr": [0, -1.0, np.nan, "slow"],
    "max_epochs": [-1, 1.5, None],
    "batch_size": [0, 1.5, "all"],
    "early_stopping": ["never"],
    "validation_fraction": [0.0, 1.0, np.nan],
    "tol": [-1, np.nan],
    "warm_start": [2, "yes"],
    "callbacks": [3, "progress", [1]],
    "device": ["cuda:99", "gpu", 0, None],
    "random_state": [-1, "luck", 0.5],
    "verbose": [-1, "loud"],
}
INTERNALS = ("mat1 and mat2", "Expected", "size mismatch", "must match the size", "aten", "broadcast", "tensor")


def _read_only(X):
    X.setflags(write=False)
    return X


def one_of_a_kind(table):
    """A name of the table with one of the values that stand there."""
    pairs = [(name, value) for name, values in table.items() for value in values]
    return st.sampled_from(pairs).map(lambda pair: dict([pair]))


@st.composite
def parameters(draw):
    """Parameters, and whether an estimator must refuse them, or may."""
    kind = draw(st.sampled_from(["valid"] * 6 + ["conditional"] * 2 + ["invalid"]))
    chosen = draw(st.fixed_dictionaries({}, optional=VALID))
    basics = {"n_components": draw(st.integers(1, 5)), "max_epochs": draw(st.integers(0, 2)), "random_state": 0}
    chosen = {"hidden_layer_sizes": 3, **chosen, **basics}
    if kind != "valid":
        chosen |= draw(one_of_a_kind(CONDITIONAL if kind == "conditional" else INVALID))
    return chosen, kind


@st.composite
def values(draw, dtype):
    """Samples, what is odd about them, and whether an estimator must refuse them, or may."""
    shape = draw(st.integers(1, 30)), draw(st.integers(1, 12))
    random = np.random.RandomState(draw(st.integers(0, 1000)))
    kind = draw(st.sampled_from(["valid"] * 6 + ["conditional"] * 2 + ["invalid"]))
    if dtype == "object":
        kind = draw(st.sampled_from(["valid", "invalid"]))
    X = random.standard_normal(shape)
    if np.dtype(dtype).kind not in "fO":
        return random.randint(0, 2, shape).astype(dtype), "whole numbers", "valid"
    names = draw(st.lists(st.sampled_from(list(SPOILERS)), max_size=2))
    if kind != "valid":
        names.append(draw(st.sampled_from(list(HUGE if kind == "conditional" else REFUSED))))
    with np.errstate(over="ignore", under="ignore"):
        for name in names:
            (SPOILERS | HUGE | REFUSED)[name](X)
        X = X.astype(dtype)
        finite = np.isfinite(X.astype(np.float64)).all()
    return X, ", ".join(names), kind if finite else "invalid"


def table(draw, containers):
    """Samples in some container; the same rows as a plain array; whether they must be refused, or may."""
    container = draw(st.sampled_from(CONTAINERS[containers]))
    sparse = containers == "sparse"
    dtype = draw(st.sampled_from(["f8", "f4", "i8", "i1", "u1", "bool"] if sparse else DTYPES))
    X, oddity, kind = draw(values(dtype))
    event(f"{container} of {dtype}")
    event(f"values: {oddity or 'plain'}")
    plain = X.copy()
    if sparse:
        zeros = np.random.RandomState(0).uniform(size=X.shape) < draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))
        plain[zeros & np.isfinite(X.astype(np.float64))] = 0
        return getattr(scipy.sparse, container)(plain), plain, kind
    if container == "list":
        return X.tolist(), plain, kind
    if container == "text":
        words = X.astype(object)
        words[0, 0] = draw(st.sampled_from(["blue", "", [1], {}, 1j]))
        return words, words, "invalid"
    if container == "frame":
        pandas = pytest.importorskip("pandas")
        native = X.astype(X.dtype.newbyteorder("=")) if dtype.startswith(">") else X
        return pandas.DataFrame(native, columns=[f"c{i}" for i in range(X.shape[1])]), native.copy(), kind
    return LAYOUTS[container](X), plain, kind


def same(a, b):
    """Whether two containers hold the same, to the last bit."""
    if scipy.sparse.issparse(a):
        return type(a) is type(b) and (abs(a - b)).nnz == 0 if np.isfinite(a.data).all() else True
    return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")


def expected_kind(X, plain, params, of_values, of_params):
    """Whether a fit must succeed ("valid"), must fail ("invalid"), or may do either."""
    n_samples, n_features = plain.shape
    if "invalid" in (of_values, of_params) or n_samples < 2:
        return "invalid"
    if params.get("normalization") == "batch" and params.get("batch_size") == 1 and params["max_epochs"] > 0:
        return "invalid"
    wide = params["n_components"] > n_features and not params.get("regularizer")
    if wide or (params.get("linear_skip", True) and params["n_components"] > n_samples):
        return "invalid"
    # A batch of one row cannot be normalised over, and one may be all that is left to train on.
    lonely = n_samples < 4 or params.get("validation_fraction", 0.1) > 0.5
    may_fail = params.get("normalization") == "batch" and lonely
    return "conditional" if may_fail or "conditional" in (of_values, of_params) else "valid"


def check_error(error):
    text = str(error)
    assert len(text) >= 20, repr(error)
    assert not any(word in text for word in INTERNALS), text


def check_result(estimator, X, plain):
    """Shapes, dtypes, finite numbers, determinism, and life after copying."""
    n_components = estimator.n_components
    dtype = np.float32 if plain.dtype == np.float32 and plain.dtype.isnative and not isinstance(X, list) else np.float64
    codes = estimator.transform(X)
    assert type(codes) is np.ndarray
    assert codes.shape == (len(plain), n_components)
    assert codes.dtype == dtype
    assert np.isfinite(codes).all()
    reconstruction = estimator.inverse_transform(codes)
    assert reconstruction.shape == plain.shape
    assert reconstruction.dtype == dtype
    assert np.isfinite(reconstruction).all()
    assert not np.isnan(estimator.score(X))
    row_scores = estimator.score_samples(X)
    assert row_scores.shape == (len(plain),)
    assert not np.isnan(row_scores).any()
    np.testing.assert_array_equal(estimator.transform(X), codes)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(X), codes)
    assert len(estimator.get_feature_names_out()) == n_components
    return codes


@every_container
@fuzz
@given(st.data(), parameters(), st.booleans())
def test_fit(containers, data, drawn, fitted_before):
    X, plain, of_values = table(data.draw, containers)
    params, of_params = drawn
    kind = expected_kind(X, plain, params, of_values, of_params)
    estimator = AutoEncoderTransformer(1, hidden_layer_sizes=2, max_epochs=0, random_state=0)
    if fitted_before:
        estimator.fit(np.random.RandomState(0).standard_normal((6, plain.shape[1])))
        params = {**params, "warm_start": params.get("warm_start", False) and of_params == "invalid"}
    estimator.set_params(**params)
    before, rows_before = dict(vars(estimator)), copy.deepcopy(X)
    try:
        estimator.fit(X)
    except (ValueError, TypeError) as error:
        event(f"{kind}: refused")
        check_error(error)
        assert kind != "valid", error
        assert vars(estimator).keys() == before.keys()
        assert all(value is before[name] for name, value in vars(estimator).items())
        return
    event(f"{kind}: fitted")
    assert kind != "invalid"
    codes = check_result(estimator, X, plain)
    assert same(X, rows_before)
    again = clone(estimator)
    if scipy.sparse.issparse(X):
        np.testing.assert_array_equal(again.fit(plain).transform(plain), codes)
        assert again.score(plain) == estimator.score(X)
    else:
        np.testing.assert_array_equal(again.fit(X).transform(X), codes)


@every_container
@fuzz
@given(st.data(), st.sampled_from(["transform", "score", "score_samples"]), st.booleans(), st.sampled_from("fd"))
def test_rows_never_seen(containers, data, method, fits, dtype):
    """A fitted estimator gives finite codes of any rows, or refuses them; it stays what it was."""
    X, plain, kind = table(data.draw, containers)
    n_features = plain.shape[1] + (not fits)
    known = np.random.RandomState(0).standard_normal((40, n_features)).astype(dtype)
    estimator = AutoEncoderTransformer(1, hidden_layer_sizes=4, max_epochs=2, early_stopping=False, random_state=0)
    if hasattr(X, "columns"):
        known = type(X)(known, columns=[f"c{i}" for i in range(n_features)])
    estimator.fit(known)
    before = estimator.transform(known)
    try:
        result = getattr(estimator, method)(X)
    except (ValueError, TypeError) as error:
        check_error(error)
        assert kind != "valid" or plain.shape[1] != n_features, error
    else:
        assert kind != "invalid"
        assert plain.shape[1] == n_features
        assert not np.isnan(result).any()
        assert method != "transform" or np.isfinite(result).all()
    np.testing.assert_array_equal(estimator.transform(known), before)


WEIGHTS = st.sampled_from([0, 1, 2, 3]) | st.sampled_from([1e-300, 1e-3, 0.5, 1e6, 1e200])


@every_container
@fuzz
@given(st.data(), parameters(), st.integers(1, 7))
def test_weights_and_chunks(containers, data, drawn, size):
    """Weighted rows, at once or a few at a time: finite codes, or an error that leaves the estimator what it was."""
    X, plain, of_values = table(data.draw, containers)
    if containers == "others":
        X = plain
    params, of_params = drawn
    weights = np.array(data.draw(st.lists(WEIGHTS, min_size=len(plain), max_size=len(plain))), dtype=float)
    known = np.random.RandomState(0).standard_normal((6, plain.shape[1]))
    estimator = AutoEncoderTransformer(**params)
    try:
        check_result(estimator.fit(X, sample_weight=weights), X, plain)
    except (ValueError, TypeError) as error:
        check_error(error)
    estimator = AutoEncoderTransformer(**{**params, "batch_size": 4})
    try:
        for first in range(0, len(plain), size):
            X_of_chunk = X.tocsr() if scipy.sparse.issparse(X) else X
            codes = estimator.transform(known) if hasattr(estimator, "net_") else None
            chunk = slice(first, first + size)
            estimator.partial_fit(X_of_chunk[chunk], sample_weight=weights[chunk] + (weights[chunk].max() == 0))
            codes = None
            assert np.isfinite(estimator.transform(known)).all()
    except (AttributeError, ValueError, TypeError) as error:
        check_error(error)
        wide = (params["n_components"] or 0) > plain.shape[1]
        heavy = weights.max() > 1e100 or weights[weights > 0].min(initial=1.0) < 1e-100
        assert wide or heavy or (of_values, of_params) != ("valid", "valid") or params.get("optimizer") == "lbfgs"
        if codes is not None:
            np.testing.assert_array_equal(estimator.transform(known), codes)


FOUND = {
    "float32 beyond whose largest the codes lie": (1e38 * np.random.RandomState(0).standard_normal((4, 9)), "f", {}),
    "float32 denormals": (np.array([[1.764e-42, 4e-43], [9.78e-43, 2.24e-42]]), "f", {"n_components": 2}),
    "a single value with a negative stride": (np.array([[1.0], [2.0]]), "d", {}),
    "nothing varies, and a regularizer": (np.full((3, 1), 7.1), "d", {"regularizer": "denoising", "max_epochs": 1}),
    "batch normalization of a single row": (
        np.eye(3),
        "d",
        {"normalization": "batch", "validation_fraction": 0.9, "linear_skip": False, "max_epochs": 1},
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_before(name):
    """What cases of these tests have brought to light."""
    X, dtype, params = FOUND[name]
    X = X.astype(dtype)
    params = {"n_components": 1, "hidden_layer_sizes": 3, "max_epochs": 0, "random_state": 0, **params}
    estimator = AutoEncoderTransformer(**params)
    try:
        estimator.fit(X)
    except ValueError as error:
        check_error(error)
        return
    check_result(estimator, X, X)
    estimator.transform(X[::-1, ::-1][:1])
    estimator.transform(np.ones((1, X.shape[1]))[::-1, ::-1])


@pytest.mark.parametrize("method, value", [("transform", np.finfo(float).max), ("score", 1e160)])
def test_huge_row_found_before(method, value):
    """A row whose code or whose square overflows, though the fit was an ordinary one."""
    known = np.random.RandomState(0).standard_normal((40, 6))
    params = {"hidden_layer_sizes": 4, "max_epochs": 2, "early_stopping": False, "random_state": 0}
    estimator = AutoEncoderTransformer(1, **params).fit(known)
    row = value * np.eye(1, 6)
    try:
        result = getattr(estimator, method)(row)
    except ValueError as error:
        check_error(error)
    else:
        assert not np.isnan(result).any()
        assert method != "transform" or np.isfinite(result).all()
