"""What scikit-learn's tests ask of PCA, asked of linear autoencoders, and the numbers of scikit-learn's PCA."""

import numpy as np
import pytest
import scipy.sparse
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.decomposition import PCA

from skae import AutoEncoderTransformer

IRIS = load_iris().data
OF_PCA = ("components_", "explained_variance_", "explained_variance_ratio_", "mean_", "noise_variance_")


def normal(n_samples, n_features, seed=0):
    return np.random.RandomState(seed).standard_normal((n_samples, n_features))


def linear(n_components, **parameters):
    return AutoEncoderTransformer(n_components, activation="identity", **parameters)


def low_rank(n_samples=100, n_features=80, rank=50):
    """Correlated features whose variances differ."""
    X = normal(n_samples, rank) @ np.diag(np.linspace(10.0, 1.0, rank)) @ normal(rank, n_features, 1)
    X[:, : n_features // 2] *= 3.0
    return X


SHAPES = {
    "tall": normal(100, 30) * np.linspace(1, 3, 30),
    "correlated": make_classification(100, 30, n_informative=28, n_redundant=2, random_state=0)[0],
    "wide": normal(10, 60) * np.linspace(1, 3, 60),
    "low rank": low_rank(),
}


def assert_same(estimator, pca, rtol=1e-6, atol=1e-9):
    """Compare all attributes that both have."""
    for name in OF_PCA:
        expected = getattr(pca, name)
        size = np.abs(expected).max()
        assert_allclose(getattr(estimator, name), expected, rtol=rtol, atol=atol * size, err_msg=name)
    assert estimator.n_components_ == pca.n_components_
    assert estimator.n_features_in_ == pca.n_features_in_


class TestAttributes:
    @pytest.mark.parametrize("X", SHAPES.values(), ids=SHAPES)
    @pytest.mark.parametrize("n_components", [1, 2, 7])
    @pytest.mark.parametrize("whiten", [False, True])
    def test_are_those_of_pca(self, X, n_components, whiten):
        assert_same(linear(n_components, whiten=whiten).fit(X), PCA(n_components, whiten=whiten).fit(X))

    @pytest.mark.parametrize("n_components", range(1, IRIS.shape[1] + 1))
    def test_for_every_number_of_components(self, n_components):
        estimator = linear(n_components)
        codes = estimator.fit_transform(IRIS)
        pca = PCA(n_components).fit(IRIS)
        assert codes.shape == (len(IRIS), n_components)
        assert_allclose(codes, estimator.transform(IRIS))
        assert_allclose(codes, pca.transform(IRIS), atol=1e-9)
        assert_same(estimator, pca)

    @pytest.mark.parametrize("X", SHAPES.values(), ids=SHAPES)
    def test_shapes_and_order(self, X):
        estimator = linear(5).fit(X)
        assert estimator.components_.shape == (5, X.shape[1])
        assert estimator.explained_variance_.shape == estimator.explained_variance_ratio_.shape == (5,)
        assert (np.diff(estimator.explained_variance_) <= 0).all()
        assert (estimator.explained_variance_ratio_ > 0).all()
        assert estimator.explained_variance_ratio_.sum() <= 1.0
        assert_allclose(estimator.components_ @ estimator.components_.T, np.eye(5), atol=1e-9)

    @pytest.mark.parametrize("X", SHAPES.values(), ids=SHAPES)
    def test_ratios_sum_to_the_score(self, X):
        estimator = linear(5).fit(X)
        assert estimator.score(X) == pytest.approx(estimator.explained_variance_ratio_.sum(), rel=1e-9)

    def test_a_smaller_estimator_has_the_first_components(self):
        X = SHAPES["tall"]
        large, small = linear(8).fit(X), linear(3).fit(X)
        for name in ("components_", "explained_variance_", "explained_variance_ratio_"):
            assert_allclose(getattr(small, name), getattr(large, name)[:3], rtol=1e-9, atol=1e-12)
        assert_allclose(small.transform(X), large.transform(X)[:, :3], atol=1e-9)

    @pytest.mark.parametrize("X", SHAPES.values(), ids=SHAPES)
    def test_explained_variance_is_the_variance_of_codes(self, X):
        estimator = linear(2)
        codes = estimator.fit_transform(X)
        assert_allclose(estimator.explained_variance_, np.var(codes, axis=0, ddof=1), rtol=1e-6)
        eigenvalues = np.linalg.eigvalsh(np.cov(X, rowvar=False))[::-1]
        assert_allclose(estimator.explained_variance_, eigenvalues[:2], rtol=1e-6)

    def test_variance_and_ratio_have_the_variance_of_the_features_between_them(self):
        X = normal(500, 40)
        estimator = linear(40).fit(X)
        total = np.var(X, axis=0, ddof=1).sum()
        assert_allclose(estimator.explained_variance_ / estimator.explained_variance_ratio_, total)
        assert estimator.explained_variance_ratio_.sum() == pytest.approx(1.0)

    def test_ratios_are_those_with_other_components_left_out(self):
        """Also with many of them, and in units in which variances are tiny."""
        X = load_digits().data
        for scale in (1e-9, 1.0, 1e9):
            ratios = linear(30).fit(scale * X).explained_variance_ratio_
            assert_allclose(ratios, PCA(30).fit(X).explained_variance_ratio_, rtol=1e-6)


class TestNoiseVariance:
    def test_is_less_than_that_of_every_component(self):
        estimator = linear(30).fit(load_digits().data)
        assert (estimator.explained_variance_ >= estimator.noise_variance_).all()
        assert estimator.noise_variance_ > 0

    @pytest.mark.parametrize("shape", [(100, 3), (3, 100)], ids=["all features", "all samples"])
    def test_is_zero_where_no_component_is_left(self, shape):
        X = 0.1 * normal(*shape) + 4.0
        estimator = linear(3).fit(X)
        assert estimator.noise_variance_ == PCA(3).fit(X).noise_variance_ == 0.0
        assert estimator.score(X) == pytest.approx(1.0)

    def test_of_isotropic_noise_around_a_plane(self):
        random = np.random.RandomState(0)
        X = random.normal(size=(4000, 2)) @ random.normal(scale=5, size=(2, 10)) + random.normal(
            scale=0.3, size=(4000, 10)
        )
        assert linear(2).fit(X).noise_variance_ == pytest.approx(0.3**2, rel=0.03)


class TestWhitening:
    def test_codes_have_unit_variance_and_are_uncorrelated(self):
        X = low_rank()
        estimator = linear(30, whiten=True)
        codes = estimator.fit_transform(X)
        assert_allclose(codes, estimator.transform(X), rtol=1e-9)
        assert_allclose(codes.mean(axis=0), 0.0, atol=1e-9)
        assert_allclose(np.cov(codes, rowvar=False), np.eye(30), atol=1e-9)
        assert linear(30).fit_transform(X).std(axis=0).std() > 10.0

    def test_are_the_codes_over_their_standard_deviations(self):
        X = SHAPES["tall"]
        plain, white = linear(4).fit(X), linear(4, whiten=True).fit(X)
        assert_allclose(white.transform(X), plain.transform(X) / np.sqrt(plain.explained_variance_), atol=1e-9)
        assert_allclose(white.explained_variance_, plain.explained_variance_)

    @pytest.mark.parametrize("whiten", [False, True])
    def test_can_be_inverted(self, whiten):
        """Where the components are about all that there is, and far from the origin."""
        X = normal(50, 3)
        X[:, 1] *= 1e-5
        X += [5.0, 4.0, 3.0]
        estimator = linear(2, whiten=whiten).fit(X)
        assert_allclose(estimator.inverse_transform(estimator.transform(X)), X, rtol=5e-6)

    @pytest.mark.parametrize("whiten", [False, True])
    @pytest.mark.parametrize("X", SHAPES.values(), ids=SHAPES)
    def test_inverse_of_other_samples_is_that_of_pca(self, X, whiten):
        half = len(X) // 2
        estimator, pca = (one.fit(X[:half]) for one in (linear(3, whiten=whiten), PCA(3, whiten=whiten)))
        codes = estimator.transform(X[half:])
        assert_allclose(codes, pca.transform(X[half:]), rtol=1e-6, atol=1e-8)
        back = estimator.inverse_transform(codes)
        assert_allclose(back, pca.inverse_transform(codes), rtol=1e-6, atol=1e-6)
        assert_allclose(estimator.transform(back), codes, rtol=1e-6, atol=1e-8)


class TestProjection:
    def test_on_the_direction_between_two_clusters(self):
        X = 0.1 * normal(100, 3)
        X[:10] += [3.0, 4.0, 5.0]
        codes = linear(2).fit(X).transform(0.1 * normal(1, 3, seed=1) + [3.0, 4.0, 5.0])
        assert abs(codes[0, 0]) / np.linalg.norm(codes) == pytest.approx(1.0, rel=5e-3)

    def test_of_a_list_of_two_samples(self):
        codes = linear(1).fit_transform([[1.0, 0.0], [0.0, 1.0]])
        assert codes.shape == (2, 1)
        assert_allclose(codes.mean(), 0.0, atol=1e-12)
        assert_allclose(codes.std(), np.sqrt(0.5))

    def test_of_all_features_loses_nothing(self):
        estimator = linear(30).fit(SHAPES["tall"])
        other = normal(20, 30, seed=3)
        assert_allclose(estimator.inverse_transform(estimator.transform(other)), other, atol=1e-9)
        assert_allclose(
            np.linalg.norm(estimator.transform(other), axis=1), np.linalg.norm(other - estimator.mean_, axis=1)
        )

    def test_scaling_the_codes_changes_their_variances(self):
        X = normal(100, 110)
        codes = PCA(3).fit_transform(X)
        codes *= np.array([3.142, 2.718, 1.0]) / np.linalg.norm(codes, axis=0)
        estimator = linear(3).fit(codes @ PCA(3).fit(X).components_)
        assert_allclose(np.sqrt(estimator.explained_variance_ * 99), [3.142, 2.718, 1.0])

    def test_the_same_each_time(self):
        X = np.random.RandomState(0).uniform(size=(10, 10))
        random = np.random.RandomState(0)
        first = [linear(2, random_state=random).fit_transform(X)[0] for _ in range(20)]
        assert_array_equal(first, np.tile(first[0], (20, 1)))

    def test_of_a_single_sample(self):
        X = SHAPES["tall"]
        estimator = linear(3).fit(X)
        assert_allclose(estimator.transform(X[:1]), estimator.transform(X)[:1], rtol=1e-12)


class TestDtype:
    def test_of_floats_is_kept(self):
        X = np.random.RandomState(0).uniform(size=(1000, 4))
        double, single = linear(3).fit(X), linear(3).fit(X.astype(np.float32))
        for name in OF_PCA[:-1]:
            assert getattr(double, name).dtype == np.float64
            assert getattr(single, name).dtype == np.float32
            assert_allclose(getattr(double, name), getattr(single, name), rtol=1e-3, atol=1e-3)
        assert isinstance(double.noise_variance_, float)
        assert isinstance(single.noise_variance_, float)
        assert double.noise_variance_ == pytest.approx(single.noise_variance_, rel=1e-4)
        assert double.transform(X).dtype == np.float64
        assert single.transform(X.astype(np.float32)).dtype == np.float32

    def test_of_integers_is_double(self):
        X = np.random.RandomState(0).randint(0, 1000, (1000, 4))
        fits = [linear(3).fit(X.astype(dtype)) for dtype in (np.int64, np.int32)]
        assert all(fit.components_.dtype == fit.transform(X).dtype == np.float64 for fit in fits)
        assert_array_equal(fits[0].components_, fits[1].components_)
        assert_same(fits[0], PCA(3).fit(X))


class TestSparse:
    @pytest.mark.parametrize("container", [scipy.sparse.csr_matrix, scipy.sparse.csc_array])
    @pytest.mark.parametrize("density, scale", [(0.01, 1), (0.3, 100)])
    def test_equals_dense(self, container, density, scale):
        random = np.random.RandomState(0)
        X = scipy.sparse.random(300, 80, density, random_state=random).multiply(scale * random.uniform(size=80))
        other = container(scipy.sparse.random(50, 80, density, random_state=random))
        of_sparse, of_dense = linear(10).fit(container(X)), linear(10).fit(X.toarray())
        assert_same(of_sparse, of_dense, rtol=1e-7)
        assert_same(of_sparse, PCA(10, svd_solver="full").fit(X.toarray()))
        assert_allclose(of_sparse.transform(other), of_dense.transform(other.toarray()), atol=1e-9)
        assert_allclose(of_sparse.transform(container(X)), linear(10).fit_transform(container(X)), atol=1e-12)


class TestEdges:
    def test_feature_names_out(self):
        names = linear(2).fit(IRIS).get_feature_names_out()
        assert_array_equal(names, ["autoencodertransformer0", "autoencodertransformer1"])

    def test_of_a_single_sample_no_component_is_found(self):
        """PCA gives NaN with a warning, which helps nobody."""
        with pytest.raises(ValueError, match="minimum of 2 is required"):
            linear(1).fit(IRIS[:1])

    @pytest.mark.parametrize("whiten", [False, True])
    def test_constant_samples_have_no_variance(self, whiten):
        """PCA gives NaN as ratios, with a warning."""
        X = np.full((10, 3), 0.1)
        estimator = linear(2, whiten=whiten).fit(X)
        assert_array_equal(estimator.explained_variance_ratio_, [0.0, 0.0])
        assert_array_equal(estimator.explained_variance_, [0.0, 0.0])
        assert estimator.noise_variance_ == 0.0
        assert_allclose(estimator.transform(X), 0.0, atol=1e-12)
        assert_allclose(estimator.inverse_transform(estimator.transform(X)), X)
        assert_allclose(estimator.components_ @ estimator.components_.T, np.eye(2), atol=1e-9)

    def test_constant_features_have_no_part_in_components(self):
        X = normal(40, 5)
        X[:, 2] = 7.0
        estimator = linear(3).fit(X)
        assert_allclose(estimator.components_[:, 2], 0.0, atol=1e-12)
        assert_same(estimator, PCA(3).fit(X))

    @pytest.mark.parametrize("X", [np.array([[0.0, 1, 0], [1, 0, 0]]), np.array([[0.0, 1], [1, 0], [0, 0]])])
    @pytest.mark.parametrize("n_components", [0, 3])
    def test_number_of_components_that_there_are_not(self, X, n_components):
        with pytest.raises(ValueError, match="n_components"):
            linear(n_components).fit(X)

    def test_as_many_components_as_samples(self):
        """The last one explains nothing, as the samples lie in a space with one dimension less."""
        X = normal(6, 20)
        estimator, pca = linear(6).fit(X), PCA(6).fit(X)
        assert_allclose(estimator.explained_variance_, pca.explained_variance_, atol=1e-9)
        assert_allclose(estimator.explained_variance_[-1], 0.0, atol=1e-9)
        assert_allclose(estimator.components_[:5], pca.components_[:5], atol=1e-9)
