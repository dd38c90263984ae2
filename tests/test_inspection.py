"""What drives a code: loadings as a table, and contributions of the features to the codes of samples."""

import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from helpers import QUICK, TRAINED, TwoLayers, curved_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderTransformer, LatentLoadingsDisplay, attributions, loadings, transform_std
from skae._data import dataset

LINEAR = {"max_epochs": 0}
FUNCTIONS = [loadings, attributions, transform_std]


KINDS = {
    "dense": {},
    "whitened": {"whiten": True},
    "tied": {"architecture": "tied", "max_epochs": 20},
    "conv": {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (4, 16)},
    "module": {"module": TwoLayers, "linear_skip": False},
    "no PCA": {"linear_skip": False},
}


@pytest.fixture(scope="module")
def images():
    return load_digits().data[:200]


@pytest.fixture(scope="module", params=KINDS)
def trained(request, images):
    estimator = AutoEncoderTransformer(2, **{**TRAINED, **KINDS[request.param]}).fit(images)
    assert estimator.best_epoch_ > 0
    return estimator


@pytest.fixture
def frame(curved):
    return pd.DataFrame(curved, columns=["u", "v", "uu", "uv", "sin"])


def slopes(function, rows, step=1e-5):
    """Derivatives of a function of rows, of shape (n_samples, n_out, n_in), by differences."""
    moves = step * np.eye(rows.shape[1])
    return np.stack([(function(rows + move) - function(rows - move)) / (2 * step) for move in moves], axis=2)


def contributions(estimator, X):
    return slopes(estimator.transform, X) * (X - estimator.mean_)[:, np.newaxis]


def relative_errors(found, expected):
    difference, size = (np.linalg.norm(values.reshape(len(values), -1), axis=1) for values in (found - expected, found))
    return difference / size


def holes_in(X):
    holes = np.where(np.random.RandomState(0).uniform(size=X.shape) < 0.2, np.nan, X)
    holes[0] = X[0]
    return holes


# Loadings


@pytest.mark.parametrize("parameters", [LINEAR, {"activation": "identity"}], ids=["PCA kept", "linear"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_loadings_of_a_linear_autoencoder_are_components(curved, parameters, dtype):
    X = curved.astype(dtype)
    estimator = AutoEncoderTransformer(3, **parameters).fit(X)
    components = PCA(3, svd_solver="full").fit(X).components_
    for table in loadings(estimator), loadings(estimator, X), loadings(estimator, X[:1]):
        assert table.dtype == dtype
        assert_allclose(table, components, atol=1e-5 if dtype == np.float32 else 1e-10)


def test_loadings_of_whitened_codes_are_per_standard_deviation(curved):
    estimator, pca = AutoEncoderTransformer(2, whiten=True, **LINEAR).fit(curved), PCA(2, svd_solver="full").fit(curved)
    expected = pca.components_ * np.sqrt(pca.explained_variance_)[:, np.newaxis]
    assert_allclose(loadings(estimator, curved), expected, atol=1e-8)
    assert_allclose(loadings(estimator), pca.components_, atol=1e-8)


def test_loadings_are_those_of_the_display_and_of_differences(trained, images):
    table = loadings(trained, images)
    assert table.shape == (2, 64)
    display = LatentLoadingsDisplay.from_estimator(trained, images, step="unit", image_shape=None)
    assert_allclose(table, display.decoder.T, rtol=1e-12)
    expected = slopes(trained.inverse_transform, trained.transform(images)).mean(axis=0).T
    assert_allclose(table, expected, atol=1e-5 * np.abs(expected).max())


def test_loadings_of_incomplete_samples_are_at_the_codes_of_transform():
    X = holes_in(3 * curved_rows(60))
    estimator = AutoEncoderTransformer(2, **TRAINED, allow_nan=True).fit(X)
    expected = slopes(estimator.inverse_transform, estimator.transform(X)).mean(axis=0)
    display = LatentLoadingsDisplay.from_estimator(estimator, X, step="unit")
    assert_allclose(display.decoder, expected, atol=1e-7)
    assert_allclose(loadings(estimator, X).T, expected, atol=1e-7)


@pytest.mark.parametrize("whiten", [False, True])
def test_loadings_without_samples_are_components(whiten):
    X = load_digits().data[:300]
    estimator = AutoEncoderTransformer(8, whiten=whiten, **{**TRAINED, "max_epochs": 10}).fit(X)
    table, linear = loadings(estimator), PCA(8).fit(X).components_
    assert_array_equal(table, estimator.components_)
    assert np.linalg.norm(linear - table) > 0.2 * np.linalg.norm(table)  # it has left PCA
    table[:] = 0.0
    assert estimator.components_.any()
    estimator.partial_fit(X[:100])
    assert_array_equal(loadings(estimator), estimator.components_)
    if not whiten:
        assert_allclose(loadings(estimator.fit(X[:256]), X[:256]), estimator.components_, rtol=1e-4, atol=1e-6)


def test_loadings_of_named_features_are_a_frame(frame, monkeypatch):
    estimator = AutoEncoderTransformer(2, **QUICK).fit(frame)
    for X in None, frame:
        table = loadings(estimator, X)
        assert list(table.columns) == list(frame.columns)
        assert list(table.index) == list(estimator.get_feature_names_out())
    expected = loadings(clone(estimator).fit(frame.to_numpy()))
    assert isinstance(expected, np.ndarray)
    monkeypatch.setitem(sys.modules, "pandas", None)
    without_pandas = loadings(estimator)
    assert isinstance(without_pandas, np.ndarray)
    assert_array_equal(without_pandas, expected)


def test_loadings_of_pipelines_have_the_names_of_the_steps(frame):
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(2, **QUICK))
    assert list(loadings(pipeline.fit(frame)).columns) == list(frame.columns)
    table = loadings(pipeline.fit(frame.to_numpy()))
    assert isinstance(table, np.ndarray)
    assert_allclose(table, loadings(pipeline.fit(frame)), atol=1e-12)
    words = make_pipeline(CountVectorizer(), AutoEncoderTransformer(1, **LINEAR))
    texts = ["red green", "red", "green", "red green blue"]
    assert list(loadings(words.fit(texts), texts).columns) == ["blue", "green", "red"]


# Attributions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", [{}, {"whiten": True}, {"projection_steps": 0}], ids=str)
def test_contributions_of_a_linear_autoencoder_sum_to_the_code(curved, parameters, dtype):
    X = curved.astype(dtype)
    estimator = AutoEncoderTransformer(3, **LINEAR, **parameters).fit(X)
    found, tol = attributions(estimator, X), 1e-5 if dtype == np.float32 else 1e-10
    assert found.shape == (60, 3, 5)
    assert found.dtype == dtype
    assert_allclose(found.sum(axis=2), estimator.transform(X), atol=tol)
    pca = PCA(3, svd_solver="full").fit(X)
    unit = np.sqrt(pca.explained_variance_) if estimator.whiten else np.ones(3)
    expected = (pca.components_ / unit[:, np.newaxis]) * (X - pca.mean_)[:, np.newaxis]
    assert_allclose(found, expected, atol=tol)


def test_contributions_on_the_manifold_are_derivatives_of_transform(trained, images):
    """There, the second derivatives that the Gauss-Newton matrix leaves out are multiplied by zero."""
    X = trained.inverse_transform(trained.transform(images[:40]))
    errors = relative_errors(attributions(trained, X), contributions(trained, X))
    assert np.median(errors) < 1e-2


def test_contributions_off_the_manifold_are_near_the_derivatives_of_transform():
    X = 3 * curved_rows(60)
    estimator = AutoEncoderTransformer(2, **TRAINED).fit(X)
    found, expected = attributions(estimator, X), contributions(estimator, X)
    assert np.median(relative_errors(found, expected)) < 0.06
    linear = PCA(2).fit(X).components_ * (X - X.mean(axis=0))[:, np.newaxis]
    assert np.median(relative_errors(linear, expected)) > 0.15


@pytest.mark.parametrize("parameters", [{"projection_steps": 0}, {"regularizer": "variational"}], ids=str)
@pytest.mark.parametrize("kind", ["dense", "whitened", "conv", "module"])
def test_without_a_projection_derivatives_are_those_of_the_encoder(images, kind, parameters):
    estimator = AutoEncoderTransformer(2, **{**TRAINED, **KINDS[kind], **parameters}).fit(images)
    found, expected = attributions(estimator, images[:40]), contributions(estimator, images[:40])
    assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "poisson", "binary_cross_entropy", "cosine"])
def test_contributions_with_other_losses_are_steps_in_the_tangent_plane(images, loss):
    X = 0.2 + images / 40  # no reconstruction is cut off at the limits of the values
    estimator = AutoEncoderTransformer(2, **TRAINED, loss=loss).fit(X)
    X = X[:40]
    jacobians = slopes(estimator.inverse_transform, estimator.transform(X))
    expected = np.linalg.pinv(jacobians) * (X - estimator.mean_)[:, np.newaxis]
    assert np.median(relative_errors(attributions(estimator, X), expected)) < 1e-6


def test_sparse_rows_frames_and_pipelines(images):
    estimator = AutoEncoderTransformer(2, **TRAINED).fit(images)
    expected = attributions(estimator, images)
    assert_array_equal(attributions(estimator, scipy.sparse.csr_array(images)), expected)
    frame = pd.DataFrame(images).add_prefix("pixel")
    assert_array_equal(attributions(clone(estimator).fit(frame), frame), expected)
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), clone(estimator)).fit(frame)
    assert_array_equal(attributions(pipeline, frame), attributions(pipeline[-1], pipeline[0].transform(frame)))


def test_samples_are_independent_and_come_in_chunks(images, monkeypatch):
    estimator = AutoEncoderTransformer(2, **TRAINED).fit(images)
    whole = attributions(estimator, images)
    assert_allclose(attributions(estimator, images[7:8]), whole[7:8], rtol=1e-9, atol=1e-12)
    module, sizes = type(estimator.net_.module_), []
    compute = module.contributions
    monkeypatch.setattr(dataset, "EVALUATION_VALUES", 5 * 2 * 64)
    monkeypatch.setattr(module, "contributions", lambda self, x: sizes.append(len(x)) or compute(self, x))
    assert_allclose(attributions(estimator, images), whole, rtol=1e-9, atol=1e-12)
    assert sizes == [5] * 40


def test_codes_without_effect_have_no_contributions():
    """In a plane, the third code does nothing, and the Gauss-Newton matrix may be singular."""
    X = curved_rows(40, noise=0)[:, :2] @ np.array([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0]])
    estimator = AutoEncoderTransformer(3, **QUICK).fit(X)
    assert_allclose(attributions(estimator, X).sum(axis=2), estimator.transform(X), atol=1e-6)


@pytest.mark.parametrize(
    "parameters", [{}, {"projection_steps": 0}, {"regularizer": "variational"}, {"loss": "huber"}], ids=str
)
def test_missing_values_contribute_nothing(parameters):
    X = curved_rows(60)
    holes = holes_in(X)
    estimator = AutoEncoderTransformer(2, **TRAINED, allow_nan=True, **parameters).fit(holes)
    found = attributions(estimator, holes)
    missing = np.broadcast_to(np.isnan(holes)[:, np.newaxis], found.shape)
    assert (found[missing] == 0).all()
    assert np.isfinite(found).all()
    assert (found[~missing] != 0).mean() > 0.99
    assert_allclose(found[0], attributions(estimator, X[:1])[0], rtol=1e-9)
    expected = contributions(estimator, np.where(np.isnan(holes), np.nan, holes))
    assert np.median(relative_errors(found, np.nan_to_num(expected))) < 0.1


def test_contributions_of_what_is_present_sum_to_the_code_of_pca():
    holes = holes_in(curved_rows(60))
    estimator = AutoEncoderTransformer(2, allow_nan=True, **LINEAR).fit(holes)
    sums, codes = attributions(estimator, holes).sum(axis=2), estimator.transform(holes)
    assert np.abs(sums - codes).max() < 0.05 * codes.std()


def test_tensors_give_tensors(images):
    with sklearn.config_context(array_api_dispatch=True):
        tensor = torch.from_numpy(images)
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(tensor)
        found = attributions(estimator, tensor)
        assert isinstance(found, torch.Tensor)
        assert found.shape == (200, 2, 64)
        assert isinstance(loadings(estimator, tensor), np.ndarray)
    assert_array_equal(found.numpy(), attributions(clone(estimator).fit(images), images))


# What is refused


@pytest.mark.parametrize("function", FUNCTIONS)
def test_only_fitted_autoencoders_with_these_features(function, curved):
    with pytest.raises(TypeError, match="must be an AutoEncoderTransformer or a Pipeline that ends with one, got PCA"):
        function(PCA(2).fit(curved), curved)
    with pytest.raises(NotFittedError):
        function(make_pipeline(AutoEncoderTransformer()), curved)
    with pytest.raises(ValueError, match="X has 3 features, but AutoEncoderTransformer is expecting 5"):
        function(AutoEncoderTransformer(2, **LINEAR).fit(curved), curved[:, :3])


class TestStandardDeviations:
    @staticmethod
    def manifold(n_samples, seed, n_features=20, noise=0.2):
        """Return points of a curved surface, and the same with noise."""
        weights, random = np.random.RandomState(0), np.random.RandomState(seed)
        shapes = (2, 12), (12, n_features), (2, n_features)
        inner, outer, linear = (weights.standard_normal(shape) for shape in shapes)
        hidden = random.uniform(-1.5, 1.5, (n_samples, 2))
        points = np.tanh(hidden @ inner) @ outer / 3 + hidden @ linear
        return points, points + noise * random.standard_normal(points.shape)

    @pytest.mark.parametrize("parameters", [{}, {"projection_steps": 0}, {"whiten": True}], ids=str)
    def test_intervals_contain_the_codes_of_samples_without_noise(self, parameters):
        _, X = self.manifold(1500, seed=1)
        points, noisy = self.manifold(500, seed=2)
        autoencoder = AutoEncoderTransformer(2, random_state=0, **parameters).fit(X)
        assert autoencoder.best_epoch_ > 0
        differences = np.abs(autoencoder.transform(noisy) - autoencoder.transform(points))
        std = transform_std(autoencoder, noisy)
        assert 0.92 < np.mean(differences < 1.96 * std) < 0.98
        assert 0.63 < np.mean(differences < std) < 0.76

    def test_those_of_pca_are_the_noise(self, images):
        estimator = AutoEncoderTransformer(3, **LINEAR).fit(images)
        assert_allclose(transform_std(estimator, images), np.sqrt(PCA(3).fit(images).noise_variance_), rtol=1e-6)

    def test_codes_are_less_certain_the_more_values_are_missing(self):
        _, X = self.manifold(400, seed=1)
        holes = X[:50].copy()
        holes[:, :10] = np.nan
        fewer = X[:50].copy()
        fewer[:, :3] = np.nan
        estimator = AutoEncoderTransformer(2, allow_nan=True, random_state=0, max_epochs=20)
        estimator.fit(np.vstack([holes, fewer, X[50:]]))
        some, most = (np.median(transform_std(estimator, rows), axis=0) for rows in (fewer, holes))
        assert np.isfinite(most).all()
        assert (np.median(transform_std(estimator, X[:50]), axis=0) < some).all()
        assert (some < most).all()

    def test_a_code_without_effect_has_none(self):
        X = np.outer(np.arange(20.0), [1.0, 2.0, 3.0]) + np.random.RandomState(0).standard_normal((20, 3)) * [1, 0, 0]
        estimator = AutoEncoderTransformer(3, **LINEAR).fit(X)
        assert np.isinf(transform_std(estimator, X)[:, 2]).all() or estimator.noise_variance_ == 0.0

    def test_dtype_container_and_batch(self, trained, images):
        std = transform_std(trained, images)
        assert std.shape == (200, 2)
        assert (std > 0).all()
        single = transform_std(trained, images.astype(np.float32))
        assert single.dtype == np.float32
        assert_allclose(single, std, rtol=1e-4)
        assert_allclose(transform_std(trained, scipy.sparse.csr_matrix(images[:7])), std[:7], rtol=1e-6)
