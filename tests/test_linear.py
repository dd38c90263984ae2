"""The principal directions, against scikit-learn's PCA on every path of the computation."""

import numpy as np
import pytest
from helpers import noise_rows
from sklearn.decomposition import PCA

from skae._data.sample import Sample
from skae._pca import exact
from skae._pca.exact import principal_components

SHAPES = {"tall": (90, 7), "square": (12, 12), "wide": (9, 40)}


@pytest.fixture(params=["exact", "gram", "gram_in_chunks"])
def path(request, monkeypatch):
    """Each way of computing: decomposition of X itself, and the Gram matrix of its smaller side."""
    if request.param != "exact":
        monkeypatch.setattr(exact, "EXACT_SIZE", 0)
    if request.param == "gram_in_chunks":
        monkeypatch.setattr(exact, "CHUNK_VALUES", 50)
    return request.param


def assert_as_pca(directions, X, n_components, tolerance=1e-7):
    pca = PCA(n_components, svd_solver="full").fit(X.astype(np.float64))
    size = np.abs(X).max()
    np.testing.assert_allclose(directions.mean, pca.mean_, rtol=tolerance, atol=tolerance * size)
    np.testing.assert_allclose(
        directions.explained_variance, pca.explained_variance_, rtol=tolerance, atol=tolerance * X.var(axis=0).max()
    )
    np.testing.assert_allclose(directions.components, pca.components_, rtol=0, atol=tolerance)
    np.testing.assert_allclose(
        directions.feature_std, X.astype(np.float64).std(axis=0), rtol=tolerance, atol=tolerance * size
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_pca(path, shape):
    X = noise_rows(*shape)
    for n_components in (1, 3, min(shape) - 1):
        assert_as_pca(principal_components(Sample(X), n_components), X, n_components)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rows_are_those_of_a_smaller_array(path, shape):
    X = noise_rows(*shape)
    rows = np.random.RandomState(0).permutation(len(X))[: len(X) - 3]
    assert_as_pca(principal_components(Sample(X, rows), 3), X[rows], 3)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_float32_gives_float64(path, shape):
    X = (noise_rows(*shape) + 100.0).astype(np.float32)
    directions = principal_components(Sample(X), 3)
    assert directions.components.dtype == directions.mean.dtype == np.float64
    assert_as_pca(directions, X, 3, tolerance=1e-5)


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1e12, 1e140])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scale_does_not_matter(path, shape, scale):
    X = noise_rows(*shape)
    plain, scaled = principal_components(Sample(X), 3), principal_components(Sample(X * scale), 3)
    np.testing.assert_allclose(scaled.components, plain.components, atol=1e-9)
    np.testing.assert_allclose(scaled.mean / scale, plain.mean, rtol=1e-9)
    np.testing.assert_allclose(np.sqrt(scaled.explained_variance) / scale, np.sqrt(plain.explained_variance), rtol=1e-9)
    assert scaled.scale / scale == pytest.approx(plain.scale, rel=1e-9)


def test_far_offset_is_taken_out(path):
    X = noise_rows()
    near, far = principal_components(Sample(X), 3), principal_components(Sample(X + 1e8), 3)
    np.testing.assert_allclose(far.components, near.components, atol=1e-6)
    np.testing.assert_allclose(far.explained_variance, near.explained_variance, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.1, 1e9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_columns_have_no_spread(path, offset, dtype):
    X = noise_rows().astype(dtype)
    X[:, [1, 4]] = offset
    directions = principal_components(Sample(X), 3)
    np.testing.assert_array_equal(directions.feature_std == 0, [False, True, False, False, True, False])
    np.testing.assert_allclose(directions.components[:, [1, 4]], 0.0, atol=1e-6)
    np.testing.assert_allclose(directions.mean[[1, 4]], dtype(offset), rtol=1e-7)


def test_all_constant(path):
    directions = principal_components(Sample(np.full((8, 3), 0.1)), 2)
    assert directions.scale == 1.0
    np.testing.assert_array_equal(directions.explained_variance, 0.0)
    np.testing.assert_allclose(directions.components @ directions.components.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_directions_without_variance_are_orthonormal(path, shape):
    X = np.outer(np.arange(shape[0], dtype=float), np.ones(shape[1]))
    X[:, 0] *= -2
    directions = principal_components(Sample(X), 4)
    np.testing.assert_allclose(directions.components @ directions.components.T, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(directions.explained_variance[1:], 0.0, atol=1e-9 * directions.explained_variance[0])


def test_largest_entry_is_positive(path):
    for seed in range(5):
        components = principal_components(Sample(noise_rows(seed=seed)), 5).components
        largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, np.newaxis], axis=1)
        assert (largest > 0).all()


def test_data_are_left_alone(path):
    X = noise_rows()
    before = X.copy()
    X.setflags(write=False)
    principal_components(Sample(X, np.arange(0, 80, 2)), 2)
    np.testing.assert_array_equal(X, before)


def test_residual_share(path):
    X = noise_rows()
    for n_components in (1, 3, 6):
        share = principal_components(Sample(X), n_components).unexplained_variance_ratio(len(X))
        explained = PCA(n_components).fit(X).explained_variance_ratio_.sum()
        assert share == pytest.approx(1.0 - explained, abs=1e-9)


@pytest.mark.parametrize("shape", [(600, 80), (80, 600)], ids=["tall", "wide"])
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_large_tables_take_the_randomized_solver(shape, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(exact, "EXACT_SIZE", 0)
    monkeypatch.setattr(exact, "_from_features", None)
    monkeypatch.setattr(exact, "_from_samples", None)
    random = np.random.RandomState(0)
    X = (random.normal(size=(shape[0], 5)) * [16, 8, 4, 2, 1]) @ random.normal(size=(5, shape[1])) + 100.0
    X = (X + 1e-3 * random.normal(size=shape)).astype(dtype)
    before = X.copy()
    assert_as_pca(principal_components(Sample(X), 3), X, 3, tolerance)
    rows = random.permutation(len(X))[:-3]
    assert_as_pca(principal_components(Sample(X, rows), 3), X[rows], 3, tolerance)
    np.testing.assert_array_equal(X, before)


def test_overflow_names_the_column():
    X = noise_rows()
    X[0, 2] = 1e200
    with pytest.raises(
        ValueError, match=r"X is too large: squares of feature 2, which reaches 9\.\d+e\+199 from its mean"
    ):
        principal_components(Sample(X), 2)
