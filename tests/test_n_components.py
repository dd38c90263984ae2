"""The number of components: an int, a fraction of the held-out variance, "auto", or None."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from helpers import curved_rows, noise_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, GroupKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, Denoising, Nested, truncate

IRIS = load_iris().data
SHORT = {"hidden_layer_sizes": 16, "max_epochs": 4, "batch_size": 20, "random_state": 0}
CHOSEN = [0.8, "auto"]


def linear(n_components, **parameters):
    return AutoEncoderTransformer(n_components, activation="identity", **parameters)


def short(n_components, **parameters):
    return AutoEncoderTransformer(n_components, **{**SHORT, **parameters})


def normal(n_samples, n_features, seed=0):
    return np.random.RandomState(seed).standard_normal((n_samples, n_features))


def with_holes(X):
    return np.where(np.random.RandomState(1).uniform(size=X.shape) < 0.1, np.nan, X)


def embedded(points, noise=0.02, n_features=6):
    """Rotate points into more dimensions, and add noise."""
    random = np.random.RandomState(1)
    if points.shape[1] < n_features:
        points = points @ np.linalg.qr(random.standard_normal((n_features, points.shape[1])))[0].T
    return points + noise * random.standard_normal(points.shape)


def spiral():
    t = np.random.RandomState(0).uniform(np.pi, 3 * np.pi, 500)
    return embedded(np.stack([t * np.cos(t), t * np.sin(t)], axis=1) / 5)


def sphere():
    points = normal(500, 3)
    return embedded(points / np.linalg.norm(points, axis=1, keepdims=True))


def roll():
    random = np.random.RandomState(0)
    t, height = random.uniform(1.5 * np.pi, 4.5 * np.pi, 500), random.uniform(0, 2.1, 500)
    return embedded(np.stack([t * np.cos(t) / 10, height, t * np.sin(t) / 10], axis=1))


def smooth_map(n_dimensions):
    random = np.random.RandomState(0)
    inside = random.uniform(-1, 1, (400, n_dimensions)) @ random.standard_normal((n_dimensions, 40))
    return embedded(np.tanh(inside + random.uniform(-1, 1, 40)) @ random.standard_normal((40, 20)) / np.sqrt(40))


def of_rank_three(noise=0.05):
    random = np.random.RandomState(0)
    X = random.standard_normal((200, 3)) @ random.standard_normal((3, 10))
    return X + noise * random.standard_normal(X.shape)


@pytest.fixture(scope="module")
def fits():
    """Autoencoders for a fraction and for "auto", fitted to samples near a surface."""
    return {wanted: short(wanted).fit(curved_rows(200)) for wanted in CHOSEN}


class TestFraction:
    @pytest.mark.parametrize(
        "load, fraction, max_epochs",
        [(load_digits, 0.6, 60), (load_wine, 0.7, 40), (load_breast_cancer, 0.75, 20)],
        ids=["digits", "wine", "breast cancer"],
    )
    def test_is_that_of_a_search_over_all_sizes(self, load, fraction, max_epochs):
        X = load().data[:300]
        train, held_out = train_test_split(X if X.max() == 16 else StandardScaler().fit_transform(X), random_state=0)
        settings = {"batch_size": 64, "hidden_layer_sizes": (64, 32), "max_epochs": max_epochs, "random_state": 0}
        estimator = AutoEncoderTransformer(fraction, validation_split=held_out, **settings).fit(train)
        found = estimator.n_components_
        scores = [clone(estimator).set_params(n_components=k).fit(train).score(held_out) for k in range(1, found + 2)]
        assert max(scores) >= fraction
        assert abs(1 + np.argmax(np.array(scores) >= fraction) - found) <= 1
        assert found < linear(fraction, validation_split=held_out).fit(train).n_components_

    @pytest.mark.parametrize("wanted", CHOSEN)
    def test_fit_is_that_of_the_number_it_finds(self, fits, wanted):
        X, estimator = curved_rows(200), fits[wanted]
        assert isinstance(estimator.n_components_, int)
        assert 1 <= estimator.n_components_ <= 5
        expected = short(estimator.n_components_).fit(X)
        assert_array_equal(estimator.transform(X), expected.transform(X))
        assert estimator.loss_curve_ == expected.loss_curve_

    @pytest.mark.parametrize("wanted", CHOSEN)
    def test_same_seed_same_result(self, fits, wanted):
        X = curved_rows(200)
        again = clone(fits[wanted]).fit(X)
        assert again.n_components == wanted
        assert_array_equal(again.transform(X), fits[wanted].transform(X))

    def test_of_any_kind_of_seed(self):
        X, before = curved_rows(), np.random.get_state()[1].copy()
        first, second = (short(0.8, random_state=np.random.RandomState(3)).fit(X) for _ in range(2))
        assert_array_equal(first.transform(X), second.transform(X))
        assert_array_equal(before, np.random.get_state()[1])
        assert short(0.8, random_state=None).fit(X).n_components_ >= 1

    def test_larger_fractions_take_more_codes(self):
        sizes = [linear(fraction).fit(load_digits().data[:300]).n_components_ for fraction in (0.3, 0.6, 0.9, 0.99)]
        assert sizes == sorted(set(sizes))

    def test_is_of_held_out_samples(self):
        """PCA explains more of the samples that it is fitted to, and says that fewer components are enough."""
        X = normal(60, 30)
        assert linear(0.9, random_state=0).fit(X).n_components_ > PCA(0.9).fit(X).n_components_

    def test_that_is_not_reached_warns(self):
        X = normal(40, 60)
        with pytest.warns(UserWarning, match=r"n_components=0.95: 27 codes explain only 0\.\d+ of the variance"):
            estimator = linear(0.95, random_state=0, validation_fraction=0.1).fit(X)
        assert estimator.n_components_ == 27  # as many as PCA needs for the training samples
        assert estimator.transform(X).shape == (40, 27)

    def test_that_only_a_network_worse_than_pca_explains(self):
        """Without the floor, more codes than PCA needs may be necessary, as many as there are may not be enough."""
        X = curved_rows(100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            estimator = short(0.9, linear_skip=False, max_epochs=1).fit(X)
        assert estimator.n_components_ > linear(0.9).fit(X).n_components_

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("fraction", [1e-9, 0.5, 0.95, 0.99, 0.999, 1 - 1e-9])
    @pytest.mark.parametrize(
        "X",
        [IRIS, normal(100, 30) * np.linspace(1, 5, 30), normal(12, 20), of_rank_three(0.0)],
        ids=["iris", "tall", "wide", "low rank"],
    )
    def test_by_the_training_samples_is_that_of_pca(self, X, fraction, dtype):
        """Where PCA and held-out samples are the same as in scikit-learn, so is the number."""
        X = X.astype(dtype)
        estimator, pca = linear(fraction, validation_split=X).fit(X), PCA(min(fraction, 1 - 1e-6)).fit(X)
        assert estimator.n_components_ == pca.n_components_
        assert estimator.explained_variance_ratio_.sum() >= fraction - 1e-6
        assert_allclose(estimator.explained_variance_ratio_, pca.explained_variance_ratio_, rtol=1e-3, atol=1e-6)
        assert (np.diff(estimator.explained_variance_) <= 0).all()

    def test_untrained_is_that_of_pca(self):
        estimator = AutoEncoderTransformer(0.95, max_epochs=0, validation_split=IRIS).fit(IRIS)
        assert estimator.n_components_ == 2
        assert_allclose(estimator.transform(IRIS), PCA(0.95).fit_transform(IRIS), atol=1e-9)

    def test_of_constant_samples_is_one_code(self):
        assert linear(0.9).fit(np.ones((20, 3))).n_components_ == 1


class TestAuto:
    @pytest.mark.parametrize(
        "make, n_dimensions",
        [(spiral, 1), (sphere, 2), (roll, 2), (lambda: smooth_map(3), 3), (lambda: smooth_map(5), 5)],
        ids=["spiral", "sphere", "roll", "three dimensions", "five dimensions"],
    )
    def test_is_about_the_number_of_dimensions(self, make, n_dimensions):
        estimator = AutoEncoderTransformer("auto", hidden_layer_sizes=32, max_epochs=60, random_state=0)
        assert abs(estimator.fit(make()).n_components_ - n_dimensions) <= 1

    @pytest.mark.parametrize("settings", [{"activation": "identity"}, {"hidden_layer_sizes": 16, "max_epochs": 20}])
    def test_is_the_rank_of_linear_data(self, settings):
        assert AutoEncoderTransformer("auto", random_state=0, **settings).fit(of_rank_three()).n_components_ == 3

    def test_of_isotropic_noise_is_one(self):
        assert linear("auto", random_state=0).fit(normal(200, 8)).n_components_ == 1

    def test_does_not_depend_on_units(self):
        X = of_rank_three()
        assert {linear("auto", random_state=0).fit(scale * X).n_components_ for scale in (1e-6, 1e6)} == {3}

    @pytest.mark.parametrize("X", [curved_rows()[:, :1], np.ones((20, 3)), noise_rows(12, 40)])
    def test_of_awkward_samples(self, X):
        assert 1 <= short("auto", max_epochs=1).fit(X).n_components_ <= min(X.shape)


class TestNone:
    @pytest.mark.parametrize("X", [normal(30, 8), normal(8, 30), IRIS], ids=["tall", "wide", "iris"])
    @pytest.mark.parametrize("settings", [{"activation": "identity"}, {"max_epochs": 0}])
    def test_is_that_of_pca(self, X, settings):
        estimator, pca = AutoEncoderTransformer(None, **settings).fit(X), PCA().fit(X)
        assert estimator.n_components is None
        assert estimator.n_components_ == pca.n_components_ == min(X.shape)
        for name in ("explained_variance_", "explained_variance_ratio_"):
            assert_allclose(getattr(estimator, name), getattr(pca, name), atol=1e-9)
        assert estimator.explained_variance_ratio_.sum() == pytest.approx(1.0)
        assert estimator.noise_variance_ == pca.noise_variance_ == 0.0
        assert_allclose(estimator.inverse_transform(estimator.transform(X)), X, atol=1e-9)

    def test_with_a_regularizer(self):
        estimator = short(None, regularizer="denoising", max_epochs=2).fit(curved_rows())
        assert estimator.n_components_ == 5

    @pytest.mark.parametrize(
        "settings", [{}, {"regularizer": "nested"}, {"activation": "identity", "linear_skip": False}]
    )
    def test_is_refused_where_a_network_can_copy(self, settings):
        with pytest.raises(ValueError, match=r"n_components=None is min\(n_samples, n_features\)=5.*can copy"):
            short(None, **settings).fit(curved_rows())

    def test_of_partial_fit_is_that_of_the_first_chunk(self):
        X = normal(60, 8)
        estimator = linear(None).partial_fit(X[:5]).partial_fit(X[5:])
        assert estimator.n_components_ == 5


@pytest.mark.parametrize("value", [0, 0.0, 1.0, 1.5, -1, -0.5, np.nan, "all", (2,)])
def test_other_values_are_refused_as_by_pca(value):
    for estimator in (AutoEncoderTransformer(value), PCA(value)):
        if isinstance(estimator, PCA) and value == 0:
            continue  # scikit-learn gives codes without columns
        with pytest.raises(ValueError, match="The 'n_components' parameter of .* must be an int in the range"):
            estimator.fit(IRIS)


def test_the_estimate_by_likelihood_is_not_offered():
    with pytest.raises(ValueError, match="a str among {'auto'} or None. Got 'mle' instead"):
        AutoEncoderTransformer("mle").fit(IRIS)


def test_a_bool_is_an_int_as_for_pca():
    assert linear(True).fit(IRIS).n_components_ == PCA(True).fit(IRIS).components_.shape[0] == 1


@pytest.mark.parametrize("value", [3, np.int64(3), np.int32(3)])
def test_an_int_is_taken_as_it_is(value):
    X = curved_rows()
    estimator = short(value, max_epochs=2).fit(X)
    assert type(estimator.n_components_) is int
    assert estimator.n_components_ == 3
    assert_array_equal(estimator.transform(X), short(3, max_epochs=2).fit(X).transform(X))


@pytest.mark.parametrize("wanted", CHOSEN)
class TestData:
    def test_with_missing_values(self, wanted):
        X = with_holes(curved_rows(100))
        estimator = short(wanted, allow_nan=True, max_epochs=2).fit(X)
        assert 1 <= estimator.n_components_ <= 5
        assert np.isfinite(estimator.transform(X)).all()
        with pytest.raises(ValueError, match="contains NaN"):
            short(wanted).fit(X)

    def test_sparse_is_the_same_as_dense(self, wanted):
        X = scipy.sparse.random(80, 12, 0.2, random_state=0, format="csr")
        sparse, dense = (linear(wanted, random_state=0).fit(one) for one in (X, X.toarray()))
        assert sparse.n_components_ == dense.n_components_
        assert short(wanted, max_epochs=1).fit(X).transform(X).shape[0] == 80

    def test_integer_weights_are_repetitions(self, wanted):
        X, weights = curved_rows(), np.random.RandomState(0).randint(0, 4, 60)
        weighted = short(wanted).fit(X, sample_weight=weights)
        repeated = short(wanted).fit(np.repeat(X, weights, axis=0))
        assert weighted.n_components_ == repeated.n_components_
        assert_allclose(weighted.transform(X), repeated.transform(X), atol=1e-6)

    def test_samples_without_weight_have_no_effect(self, wanted):
        X = curved_rows()
        both = np.concatenate([X, 100.0 * normal(60, 5)])
        weighted = linear(wanted, random_state=0).fit(both, sample_weight=np.repeat([1.0, 0.0], 60))
        assert weighted.n_components_ == linear(wanted, random_state=0).fit(X).n_components_

    def test_groups_are_on_one_side(self, wanted):
        """Copies in another group would be explained as the training samples are."""
        X = np.repeat(normal(40, 20), 10, axis=0)
        groups, random = np.repeat(np.arange(40), 10), np.random.RandomState(0)
        X = X + 0.3 * random.standard_normal(X.shape)
        grouped = linear(wanted, random_state=0).fit(X, groups=groups)
        by_splitter = linear(wanted, validation_split=GroupKFold(5)).fit(X, groups=groups)
        apart = linear(wanted, random_state=0).fit(X, groups=np.arange(400))
        if wanted != "auto":
            assert min(grouped.n_components_, by_splitter.n_components_) > apart.n_components_

    def test_float32_is_kept(self, wanted):
        X = curved_rows().astype(np.float32)
        assert short(wanted, max_epochs=2).fit_transform(X).dtype == np.float32

    @pytest.mark.parametrize(
        "settings",
        [
            {"loss": "absolute_error"},
            {"regularizer": "variational"},
            {"regularizer": Denoising(0.1)},
            {"architecture": "tied"},
            {"ordered": False},
            {"regularizer": "nested"},
            {"whiten": True},
            {"optimizer": "lbfgs"},
        ],
        ids=str,
    )
    def test_with_other_parameters(self, wanted, settings):
        X = curved_rows()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "n_components=0.8: 5 codes", UserWarning)
            codes = short(wanted, **{"max_epochs": 1, **settings}).fit_transform(X)
        assert 1 <= codes.shape[1] <= 5

    def test_needs_held_out_samples(self, wanted):
        with pytest.raises(ValueError, match="chosen by held-out samples, of which early_stopping=False has none"):
            short(wanted, early_stopping=False).fit(curved_rows())
        with pytest.raises(ValueError, match="cannot be chosen: none of the 1 samples can be held out. Pass n_comp"):
            short(wanted).partial_fit(curved_rows()[:1])

    def test_weights_of_nested_need_a_number(self, wanted):
        with pytest.raises(ValueError, match="of Nested are one for each code, but n_components=.* does not say"):
            short(wanted, regularizer=Nested(weights=[2, 1])).fit(curved_rows())

    def test_a_failed_fit_changes_nothing(self, fits, wanted):
        estimator = pickle.loads(pickle.dumps(fits[wanted]))
        with pytest.raises(ValueError, match="has none"):
            estimator.set_params(early_stopping=False).fit(curved_rows())
        assert_array_equal(estimator.transform(curved_rows()), fits[wanted].transform(curved_rows()))


@pytest.mark.parametrize("wanted", CHOSEN)
class TestContinued:
    def test_first_chunk_fixes_the_size(self, wanted):
        X = curved_rows(300)
        estimator = short(wanted).partial_fit(X[:100])
        n_components = estimator.n_components_
        expected = short(n_components).partial_fit(X[:100])
        for chunk in (X[100:200], X[200:210], noise_rows(90, 5)):
            estimator.partial_fit(chunk)
            expected.partial_fit(chunk)
        assert estimator.n_components_ == n_components
        assert_array_equal(estimator.transform(X), expected.transform(X))
        assert estimator.explained_variance_ratio_.shape == (n_components,)

    def test_goes_on_from_pickles_and_files(self, wanted, path):
        X = curved_rows(120)
        estimator = short(wanted, max_epochs=1).partial_fit(X[:60])
        skae.save(estimator, path)
        copies = pickle.loads(pickle.dumps(estimator)), skae.load(path)
        expected = estimator.partial_fit(X[60:]).transform(X)
        for one in copies:
            assert one.n_components == wanted
            assert_array_equal(one.partial_fit(X[60:]).transform(X), expected)

    def test_after_fit_keeps_the_size(self, fits, wanted):
        estimator = pickle.loads(pickle.dumps(fits[wanted]))
        assert estimator.partial_fit(noise_rows(60, 5)).n_components_ == fits[wanted].n_components_

    @pytest.mark.filterwarnings("ignore:n_components=0.8. . codes explain only:UserWarning")
    @pytest.mark.parametrize("n_samples", [2, 3])
    def test_tiny_first_chunks(self, wanted, n_samples):
        estimator = short(wanted).partial_fit(curved_rows()[:n_samples])
        assert 1 <= estimator.n_components_ < n_samples

    def test_needs_held_out_samples(self, wanted):
        with pytest.raises(ValueError, match="early_stopping=False has none"):
            short(wanted, early_stopping=False).partial_fit(curved_rows())

    def test_warm_start_keeps_the_size(self, fits, wanted):
        estimator = pickle.loads(pickle.dumps(fits[wanted])).set_params(warm_start=True)
        assert estimator.fit(noise_rows(100, 5)).n_components_ == fits[wanted].n_components_
        assert estimator.set_params(n_components=estimator.n_components_).fit(curved_rows()).n_components == (
            fits[wanted].n_components_
        )

    def test_truncated(self, fits, wanted):
        estimator = short(3).fit(curved_rows()) if fits[wanted].n_components_ == 1 else fits[wanted]
        first = truncate(estimator, 1)
        assert first.n_components == first.n_components_ == 1
        assert first.transform(curved_rows()).shape == (60, 1)

    def test_pickles_and_files(self, fits, wanted, path):
        skae.save(fits[wanted], path)
        for one in pickle.loads(pickle.dumps(fits[wanted])), skae.load(path):
            assert one.n_components == wanted
            assert_array_equal(one.transform(curved_rows()), fits[wanted].transform(curved_rows()))


class TestComposition:
    def test_grid_search(self):
        X = curved_rows(100)
        search = GridSearchCV(linear(2, random_state=0), {"n_components": [2, 0.8, "auto", None]}, cv=2).fit(X)
        assert search.best_params_ == {"n_components": None}  # all components explain all
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()

    def test_pipeline_and_set_output(self):
        pipeline = make_pipeline(StandardScaler(), linear(0.8, random_state=0)).set_output(transform="pandas")
        frame = pipeline.fit_transform(IRIS)
        n_components = pipeline[-1].n_components_
        assert list(frame.columns) == [f"autoencodertransformer{index}" for index in range(n_components)]
        assert list(pipeline.get_feature_names_out()) == list(frame.columns)

    @pytest.mark.parametrize("wanted", [0.6, "auto"])
    def test_detector(self, wanted):
        X = noise_rows(100, 6)
        detector = AutoEncoderOutlierDetector(linear(wanted, random_state=0)).fit(X)
        assert 1 <= detector.estimator_.n_components_ < 6
        assert detector.predict(X).shape == (100,)

    @pytest.mark.parametrize("wanted", CHOSEN)
    def test_callbacks_and_bars_are_those_of_the_last_fit(self, wanted, capsys):
        X = curved_rows()
        short(wanted, verbose=2, max_epochs=2).fit(X)
        printed = capsys.readouterr().out
        assert printed.count("train_loss") <= 1
