"""Constant features, sparse matrices that must not change, and floating-point errors that raise."""

import pickle

import numpy as np
import pytest
import scipy.sparse
from helpers import TINY
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer

DIGITS = load_digits().data[:200]
LOSSES = ["squared_error", "absolute_error", "huber", "binary_cross_entropy", "poisson", "cosine"]
CONV = {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (4, 8, 16)}


@pytest.mark.parametrize("parameters", [{}, {"max_epochs": 0}, {"linear_skip": False}, CONV], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "poisson"])
def test_constant_features_come_back_as_they_were(loss, dtype, parameters):
    X = (DIGITS / 16).astype(dtype)
    X[:, [0, 7, 8]] = [0.0, 1.0, 0.3]
    estimator = AutoEncoderTransformer(3, loss=loss, **{**TINY, "early_stopping": False, **parameters}).fit(X)
    restored = pickle.loads(pickle.dumps(estimator))
    X_hat = restored.inverse_transform(restored.transform(X))
    assert_array_equal(X_hat[:, [0, 7, 8]], X[:, [0, 7, 8]])


@pytest.mark.parametrize("container", [scipy.sparse.csr_matrix, scipy.sparse.csr_array])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_sparse_matrix_is_never_changed(loss, container):
    """Indices in no order, one of them twice, in memory that cannot be written to."""
    sorted_rows = scipy.sparse.csr_array(DIGITS / 16)
    starts = sorted_rows.indptr
    order = np.concatenate([np.arange(first, last)[::-1] for first, last in zip(starts, starts[1:], strict=False)])
    data, indices = np.append(sorted_rows.data[order], [0.1, 0.1]), np.append(sorted_rows.indices[order], [5, 5])
    ends = np.append(starts[:-1], starts[-1] + 2)
    X = container((data, indices, ends), shape=DIGITS.shape)
    parts = (X.data, X.indices, X.indptr)
    for part in parts:
        part.flags.writeable = False
    before = [part.tobytes() for part in parts]
    estimator = AutoEncoderTransformer(3, loss=loss, **TINY).fit(X)
    estimator.transform(X), estimator.score(X), estimator.score_samples(X), estimator.partial_fit(X)
    AutoEncoderOutlierDetector(estimator).fit(X).predict(X)
    assert [part.tobytes() for part in (X.data, X.indices, X.indptr)] == before


INPUTS = {
    "float64": (DIGITS, {}),
    "float32": (DIGITS.astype(np.float32), {}),
    "tiny": (DIGITS * 1e-300, {}),
    "denormal": ((DIGITS * 1e-40).astype(np.float32), {}),
    "huge": (DIGITS * 1e100, {}),
    "sparse": (scipy.sparse.csr_array(DIGITS), {}),
    "missing": (np.where(np.arange(64) % 7 + np.arange(200)[:, None] % 5, DIGITS, np.nan), {"allow_nan": True}),
    "constant": (np.ones((50, 5)), {}),
    "probabilities": (DIGITS / 16, {"loss": "binary_cross_entropy"}),
    "counts": (DIGITS, {"loss": "poisson"}),
    "variational": (DIGITS, {"regularizer": "variational"}),
}


@pytest.mark.parametrize("name", INPUTS)
def test_floating_point_errors_that_raise(name):
    X, parameters = INPUTS[name]
    estimator = AutoEncoderTransformer(3, **TINY, **parameters)
    with np.errstate(all="raise"):
        estimator.fit(X)
        codes = estimator.transform(X)
        estimator.inverse_transform(codes), estimator.score(X), estimator.score_samples(X), estimator.partial_fit(X)
        AutoEncoderOutlierDetector(AutoEncoderTransformer(3, **TINY, **parameters)).fit(X).predict(X)
    assert np.isfinite(codes).all()


def test_weights_of_all_sizes_with_floating_point_errors_that_raise():
    weights = np.arange(200.0)
    weights[0] = 1e-200
    with np.errstate(all="raise"):
        estimator = AutoEncoderTransformer(3, **TINY).fit(DIGITS, sample_weight=weights)
        assert np.isfinite(estimator.score(DIGITS, sample_weight=weights))
