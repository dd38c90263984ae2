"""Codes in the order of their importance, and what each of them explains."""

import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import TRAINED, TwoLayers, curved_rows, noise_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from torch import nn

import skae
from skae import AutoEncoderTransformer, Nested

OF_PCA = ("components_", "explained_variance_", "explained_variance_ratio_", "noise_variance_")
DIGITS = load_digits().data
# Enough for the first code of curved samples to be worth that of PCA.
ORDERED = {"hidden_layer_sizes": 16, "max_epochs": 60, "batch_size": 20, "early_stopping": False, "random_state": 0}


def prefix_scores(estimator, X):
    """The fraction of the variance of X that the first codes explain, for each number of them."""
    return np.array([skae.truncate(estimator, 1 + index).score(X) for index in range(estimator.n_components_)])


def pca_scores(train, test, n_components):
    """The same of PCA of each size."""
    sizes = range(1, n_components + 1)
    return np.array([AutoEncoderTransformer(size, max_epochs=0).fit(train).score(test) for size in sizes])


class Watched(nn.Module):
    """A small network that notes which codes are zero in training."""

    seen: list = []

    def __init__(self, n_features, n_components):
        super().__init__()
        self.inside = nn.Linear(n_features, n_components)
        self.outside = nn.Linear(n_components, n_features)

    def encode(self, x):
        return self.inside(x)

    def decode(self, z):
        if self.training:
            self.seen.append((z == 0).numpy(force=True))
        return self.outside(z)


class TestTraining:
    """Some samples keep only their first codes."""

    def cut(self, **parameters):
        """Whether each code of each sample in training is zero."""
        Watched.seen.clear()
        parameters = {"module": Watched, "max_epochs": 4, "early_stopping": False, "random_state": 0, **parameters}
        AutoEncoderTransformer(4, **parameters).fit(curved_rows(1000))
        return np.concatenate(Watched.seen)

    @pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
    @pytest.mark.parametrize("loss", ["squared_error", "huber"])
    def test_last_codes_are_cut(self, optimizer, loss):
        cut = self.cut(optimizer=optimizer, loss=loss, max_epochs=2)
        assert (np.diff(cut.astype(int), axis=1) >= 0).all()
        if optimizer == "adam":
            fractions = cut.mean(axis=0)
            assert fractions[0] == 0
            assert (np.diff(fractions) > 0).all()
            assert fractions[-1] == pytest.approx(0.225, abs=0.05)

    def test_fewer_at_the_end(self):
        cut = self.cut(max_epochs=10)[:, -1]
        assert cut[:2000].mean() > cut[-2000:].mean() + 0.03

    @pytest.mark.parametrize("regularizer", [None, "denoising", "sparse"])
    def test_none_is_without_order(self, regularizer):
        assert not self.cut(ordered=False, regularizer=regularizer).any()
        assert self.cut(regularizer=regularizer).any()

    def test_as_many_as_asked_for(self):
        cut = self.cut(regularizer=Nested(fraction=0.8, weights=[0, 3, 0, 1]))
        assert not cut[:, :2].any()
        assert_array_equal(cut[:, 2], cut[:, 3])
        assert cut[:, 3].mean() == pytest.approx(0.8 * 0.75, abs=0.03)

    def test_a_regularizer_orders_where_nothing_else_does(self):
        assert self.cut(ordered=False, regularizer="nested")[:, -1].mean() == pytest.approx(0.5, abs=0.05)

    def test_beside_other_regularizers(self):
        cut = self.cut(regularizer=[Nested(fraction=1.0, weights=[1, 0, 0, 0]), "sparse"])
        assert cut[:, 1:].mean() > 0.99  # in the first pass the shapes of layers are tried

    def test_a_single_code_is_never_cut(self):
        bits = [
            AutoEncoderTransformer(1, **TRAINED, ordered=ordered).fit(curved_rows()).transform(curved_rows())
            for ordered in (True, False)
        ]
        assert_array_equal(*bits)

    def test_is_seeded(self):
        X = curved_rows()
        codes = [
            AutoEncoderTransformer(3, **TRAINED, ordered=ordered).fit_transform(X)
            for ordered in (True, True, False, False)
        ]
        assert_array_equal(codes[0], codes[1])
        assert_array_equal(codes[2], codes[3])
        assert not np.array_equal(codes[0], codes[2])


class TestPrefixes:
    """The first codes alone are worth as much as PCA of their size."""

    def test_of_digits_are_not_below_pca(self):
        train, test = DIGITS[:800].astype(np.float32), DIGITS[800:].astype(np.float32)
        estimator = AutoEncoderTransformer(5, hidden_layer_sizes=32, random_state=0).fit(train)
        assert estimator.best_epoch_ > 0
        scores = prefix_scores(estimator, test)
        assert (scores > pca_scores(train, test, 5) - 0.001).all()
        assert scores[-1] == pytest.approx(estimator.score(test), abs=1e-5)

    def test_without_order_they_may_be(self):
        train, test = curved_rows(400), curved_rows(300, seed=1)
        settings = {"hidden_layer_sizes": 16, "max_epochs": 300, "random_state": 0}
        estimator = AutoEncoderTransformer(3, **settings, ordered=False).fit(train)
        scores, expected = prefix_scores(estimator, test), pca_scores(train, test, 3)
        assert scores[0] < expected[0] - 0.02
        assert scores[-1] > expected[-1] + 0.1

    def test_runs_go_on_until_codes_are_ordered(self):
        """What the first run finds reconstructs better than ordered codes do, and is left all the same."""
        train, test = curved_rows(400), curved_rows(300, seed=1)
        estimator = AutoEncoderTransformer(3, hidden_layer_sizes=16, random_state=0).fit(train)
        scores, expected = prefix_scores(estimator, test), pca_scores(train, test, 3)
        assert (scores > expected - 0.001).all()
        assert scores[-1] > expected[-1] + 0.1

    def test_pca_is_kept_where_there_is_no_time_to_order_them(self):
        train = curved_rows(400)
        settings = {"hidden_layer_sizes": 16, "max_epochs": 30, "batch_size": 50, "lr": 0.01, "random_state": 3}
        ordered, free = (AutoEncoderTransformer(2, **settings, ordered=ordered).fit(train) for ordered in (True, False))
        assert free.best_epoch_ > 0
        assert prefix_scores(free, train)[0] < free.fit(train).score(train)
        assert (prefix_scores(ordered, train) > pca_scores(train, train, 2) - 0.001).all()

    @pytest.mark.parametrize("parameters", [{"linear_skip": False}, {"regularizer": "variational"}], ids=str)
    def test_without_a_floor_codes_are_ordered_all_the_same(self, parameters):
        X, settings = curved_rows(200), {**ORDERED, **parameters, "batch_size": 50}
        ordered, nested, free = (
            AutoEncoderTransformer(3, **{**settings, **chosen}).fit(X)
            for chosen in ({}, {"regularizer": [*_regularizers(parameters), Nested()]}, {"ordered": False})
        )
        first = [prefix_scores(one, X)[0] for one in (free, ordered, nested)]
        assert first[0] < max(first[1:])
        assert first[1] > 0.4
        assert ordered.explained_variance_ratio_.sum() == pytest.approx(ordered.score(X), abs=1e-5)

    def test_of_more_codes_than_features(self):
        X = curved_rows(200)
        estimator = AutoEncoderTransformer(8, **TRAINED, regularizer="denoising").fit(X)
        assert estimator.explained_variance_ratio_.shape == estimator.explained_variance_.shape == (8,)
        assert estimator.components_.shape == (8, 5)
        assert estimator.explained_variance_ratio_.sum() == pytest.approx(estimator.score(X), abs=1e-5)
        assert estimator.noise_variance_ == 0.0

    def test_those_of_a_variational_encoder_are_its_means(self):
        X = curved_rows(200)
        estimator = AutoEncoderTransformer(3, **TRAINED, regularizer="variational").fit(X)
        module = estimator.net_.module_
        means = module.truncated(2).project(torch.as_tensor(X))
        assert_array_equal(means.detach().numpy(), module.encode(torch.as_tensor(X)).detach().numpy()[:, :2])


def _regularizers(parameters):
    return [parameters["regularizer"]] if "regularizer" in parameters else []


class TestNested:
    def test_the_first_code_gains_what_all_codes_lose(self):
        """With more and more weight on the shortest prefixes."""
        X, settings = curved_rows(200), {**ORDERED, "batch_size": 50}
        weightings = [None, Nested(), Nested(0.9, [1, 0, 0])]
        scores = [prefix_scores(AutoEncoderTransformer(3, **settings, regularizer=one).fit(X), X) for one in weightings]
        first, last = np.transpose(scores)[[0, -1]]
        assert (np.diff(first) > 0.01).all()
        assert last[0] > last[2]

    def test_two_are_refused(self):
        with pytest.raises(ValueError, match="regularizer has 2 Nested.*Pass one"):
            AutoEncoderTransformer(2, regularizer=[Nested(), Nested(0.2)]).fit(curved_rows())

    def test_name(self):
        X = curved_rows()
        by_name, by_object = (
            AutoEncoderTransformer(2, **TRAINED, regularizer=one).fit_transform(X) for one in ("nested", Nested())
        )
        assert_array_equal(by_name, by_object)

    def test_is_no_regularizer_of_the_loss(self):
        """Samples are projected, and PCA is kept where nothing is better."""
        estimator = AutoEncoderTransformer(2, **TRAINED, regularizer="nested").fit(curved_rows())
        assert estimator.net_.module_.projection.n_steps > 0
        assert estimator.net_.module_.projection.penalties == ()
        noise = AutoEncoderTransformer(2, **TRAINED, regularizer="nested").fit(noise_rows(20, 40))
        assert noise.score(noise_rows(20, 40)) >= PCA(2).fit(noise_rows(20, 40)).explained_variance_ratio_.sum() - 1e-6
        linear = AutoEncoderTransformer(2, activation="identity", regularizer="nested").fit(noise_rows())
        assert_allclose(linear.components_, PCA(2).fit(noise_rows()).components_, atol=1e-6)

    @pytest.mark.parametrize("fraction", [-0.1, 1.5, np.nan])
    def test_fraction_that_is_none(self, fraction):
        estimator = AutoEncoderTransformer(2, regularizer=Nested(fraction))
        with pytest.raises(ValueError, match=rf"fraction.*{fraction}|{fraction}.*fraction"):
            estimator.fit(curved_rows())

    @pytest.mark.parametrize("weights", [[], [-1, 1], [0, 0], 1.0, [[1, 1]], [np.nan, 1]])
    def test_weights_that_are_none(self, weights):
        estimator = AutoEncoderTransformer(2, regularizer=Nested(weights=weights))
        with pytest.raises(ValueError, match="weights.*must be a list of numbers of at least 0, not all of them 0"):
            estimator.fit(curved_rows())

    @pytest.mark.parametrize("weights", [[1], [1, 1, 1]])
    def test_weights_of_another_number_of_codes(self, weights):
        estimator = AutoEncoderTransformer(2, regularizer=Nested(weights=weights))
        with pytest.raises(ValueError, match="weights.*must be as many as n_components=2"):
            estimator.fit(curved_rows())

    def test_parameters(self):
        nested = Nested(0.25, [1, 2])
        assert nested.get_params() == {"fraction": 0.25, "weights": [1, 2]}
        assert clone(nested).get_params() == nested.get_params()
        estimator = AutoEncoderTransformer(2, **TRAINED, regularizer=Nested())
        search = GridSearchCV(estimator, {"regularizer__fraction": [0.1, 1.0]}, cv=2).fit(curved_rows())
        assert len(set(search.cv_results_["mean_test_score"])) == 2
        assert search.best_estimator_.regularizer.fraction == search.best_params_["regularizer__fraction"]


def with_missing(X):
    X = X.copy()
    X[np.random.RandomState(0).uniform(size=X.shape) < 0.1] = np.nan
    return X


CURVED, COUNTS = curved_rows(100), np.random.RandomState(0).poisson(np.exp(curved_rows(100))).astype(float)
UNIT = (CURVED - CURVED.min(axis=0)) / np.ptp(CURVED, axis=0)
KINDS = {
    "dense": (CURVED, {}),
    "whitened": (CURVED, {"whiten": True}),
    "float32": (CURVED.astype(np.float32), {}),
    "sparse": (scipy.sparse.csr_matrix(np.where(CURVED > 0, CURVED, 0.0)), {}),
    "missing": (with_missing(CURVED), {"allow_nan": True}),
    "tied": (CURVED, {"architecture": "tied"}),
    "images": (DIGITS[:60], {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (2, 8)}),
    "module": (CURVED, {"module": TwoLayers}),
    "cross-entropy": (UNIT, {"loss": "binary_cross_entropy"}),
    "poisson": (COUNTS, {"loss": "poisson"}),
    "absolute": (CURVED, {"loss": "absolute_error"}),
    "cosine": (CURVED, {"loss": "cosine"}),
    "without order": (CURVED, {"ordered": False}),
    "without projection": (CURVED, {"projection_steps": 0}),
    "batch normalization": (CURVED, {"normalization": "batch"}),
    "sparse codes": (CURVED, {"regularizer": "sparse"}),
    "variational": (CURVED, {"regularizer": "variational"}),
    "no linear path": (CURVED, {"linear_skip": False}),
    "nothing trained": (UNIT, {"max_epochs": 0, "loss": "binary_cross_entropy"}),
}


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS)
def fitted(request):
    X, parameters = request.param
    return X, AutoEncoderTransformer(3, **{**TRAINED, **parameters}).fit(X)


@pytest.fixture(scope="module")
def chunks():
    return np.split(curved_rows(600), 6)


class TestExplainedVariance:
    def test_shapes_and_dtypes(self, fitted):
        X, estimator = fitted
        assert estimator.explained_variance_ratio_.shape == estimator.explained_variance_.shape == (3,)
        assert estimator.components_.shape == (3, X.shape[1])
        assert isinstance(estimator.noise_variance_, float)
        for name in OF_PCA[:-1]:
            assert getattr(estimator, name).dtype == X.dtype
            assert np.isfinite(getattr(estimator, name)).all()

    def test_sum_is_the_score(self, fitted):
        X, estimator = fitted
        assert estimator.explained_variance_ratio_.sum() == pytest.approx(estimator.score(X), abs=1e-4)

    def test_each_is_what_its_code_adds(self, fitted):
        X, estimator = fitted
        scores = prefix_scores(estimator, X)
        # By three steps of the projection, which are enough for a squared error with a linear path.
        plain = estimator.get_params(deep=False).items() >= {"loss": "squared_error", "linear_skip": True}.items()
        tolerance = 0.001 if plain and estimator.regularizer is None and not estimator.allow_nan else 0.06
        assert_allclose(estimator.explained_variance_ratio_, np.diff(scores, prepend=0.0), atol=tolerance)

    def test_in_units_of_the_data(self, fitted):
        X, estimator = fitted
        dense = X.toarray() if scipy.sparse.issparse(X) else X
        if np.isnan(dense).any():
            return
        total = float(dense.var(axis=0, ddof=1).sum())
        assert_allclose(estimator.explained_variance_, total * estimator.explained_variance_ratio_, rtol=1e-4)
        left = total * (1.0 - estimator.explained_variance_ratio_.sum()) / (min(X.shape) - 3)
        assert estimator.noise_variance_ == pytest.approx(max(left, 0.0), abs=1e-4 * total)

    def test_pickles_and_files_keep_all(self, fitted, tmp_path):
        _, estimator = fitted
        copies = [pickle.loads(pickle.dumps(estimator))]
        if estimator.module is None:
            skae.save(estimator, tmp_path / "one.skae")
            copies.append(skae.load(tmp_path / "one.skae"))
        for copy in copies:
            for name in OF_PCA:
                assert_array_equal(getattr(copy, name), getattr(estimator, name))

    @pytest.mark.parametrize("trained", [True, False])
    @pytest.mark.parametrize("weights", [np.arange(100) % 3, np.linspace(0.01, 3.0, 100)], ids=["counts", "relative"])
    def test_weights(self, weights, trained):
        settings = TRAINED if trained else {"max_epochs": 0}
        estimator = AutoEncoderTransformer(3, **settings).fit(CURVED, sample_weight=weights)
        assert (estimator.best_epoch_ > 0) == trained
        score = estimator.score(CURVED, sample_weight=weights)
        assert estimator.explained_variance_ratio_.sum() == pytest.approx(score, abs=1e-6)
        if weights.dtype == int:
            repeated = AutoEncoderTransformer(3, **settings).fit(np.repeat(CURVED, weights, axis=0))
            for name in OF_PCA:
                assert_allclose(getattr(estimator, name), getattr(repeated, name), rtol=1e-6)

    def test_on_many_samples(self):
        """It is the score of some of them then."""
        X = curved_rows(6000)
        estimator = AutoEncoderTransformer(3, **{**TRAINED, "max_epochs": 1, "batch_size": 200}).fit(X)
        assert estimator.best_epoch_ > 0
        assert estimator.explained_variance_ratio_.sum() == pytest.approx(estimator.score(X), abs=0.01)
        assert estimator.explained_variance_ratio_.sum() != estimator.score(X)

    def test_codes_that_add_less_than_nothing(self):
        """Without order, the first code alone may be worse than the mean."""
        X = curved_rows(100)
        estimator = AutoEncoderTransformer(3, **{**ORDERED, "linear_skip": False, "ordered": False}).fit(X)
        assert estimator.explained_variance_ratio_.sum() == pytest.approx(estimator.score(X), abs=1e-6)


class TestPca:
    """Where the network is PCA, so are these."""

    @pytest.mark.parametrize("whiten", [True, False])
    @pytest.mark.parametrize(
        "parameters",
        [{"activation": "identity"}, {"max_epochs": 0}, {"hidden_layer_sizes": 8, "max_epochs": 5, "random_state": 0}],
        ids=["linear", "not trained", "kept"],
    )
    def test_values(self, parameters, whiten):
        X = noise_rows(400, 30)
        estimator, pca = AutoEncoderTransformer(3, whiten=whiten, **parameters).fit(X), PCA(3).fit(X)
        assert estimator.best_epoch_ == 0
        for name in OF_PCA:
            assert_allclose(getattr(estimator, name), getattr(pca, name), rtol=1e-6, atol=1e-6)

    def test_with_weights(self):
        X, counts = noise_rows(), np.random.RandomState(0).randint(0, 3, 80)
        estimator = AutoEncoderTransformer(3, max_epochs=0).fit(X, sample_weight=counts)
        pca = PCA(3).fit(np.repeat(X, counts, axis=0))
        for name in OF_PCA:
            assert_allclose(getattr(estimator, name), getattr(pca, name), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
    def test_of_streams(self, factor):
        X, weights = noise_rows(), np.random.RandomState(0).uniform(0.1, 2.0, 80)
        stream = AutoEncoderTransformer(3, max_epochs=0, early_stopping=False)
        for chunk in np.split(np.arange(80), 4):
            stream.partial_fit(X[chunk], sample_weight=factor * weights[chunk])
        whole = AutoEncoderTransformer(3, max_epochs=0).fit(X, sample_weight=weights)
        for name in OF_PCA:
            assert_allclose(getattr(stream, name), getattr(whole, name), rtol=1e-6, atol=1e-6)


class TestStreams:
    """After partial_fit they are computed when they are read."""

    def streamed(self, chunks, **parameters):
        estimator = AutoEncoderTransformer(2, hidden_layer_sizes=16, random_state=0, early_stopping=False, **parameters)
        for chunk in [*chunks, *chunks]:
            estimator.partial_fit(chunk)
        return estimator

    @pytest.mark.parametrize(
        "parameters", [{}, {"whiten": True}, {"linear_skip": False}, {"regularizer": "variational"}], ids=str
    )
    def test_are_those_of_the_samples_that_are_kept(self, chunks, parameters):
        X = np.concatenate([*chunks, *chunks])
        estimator = self.streamed(chunks, **parameters)
        assert estimator.best_epoch_ > 0
        assert_allclose(estimator.explained_variance_ratio_, np.diff(prefix_scores(estimator, X), prepend=0), atol=1e-4)
        assert estimator.explained_variance_.sum() == pytest.approx(
            estimator.score(X) * X.var(axis=0, ddof=1).sum(), rel=1e-6
        )
        if "whiten" in parameters:
            assert_allclose(estimator.transform(X).std(axis=0, ddof=1), 1.0, rtol=1e-3)
            plain = self.streamed(chunks)
            for name in OF_PCA:
                assert_allclose(getattr(estimator, name), getattr(plain, name), rtol=1e-6)

    def test_pickles_and_files_keep_them_and_go_on(self, chunks, tmp_path):
        estimator = self.streamed(chunks)
        skae.save(estimator, tmp_path / "one.skae")
        copies = [pickle.loads(pickle.dumps(estimator)), skae.load(tmp_path / "one.skae")]
        for copy in copies:
            for name in OF_PCA:
                assert_array_equal(getattr(copy, name), getattr(estimator, name))
        before = estimator.explained_variance_ratio_
        for one in (estimator, *copies):
            one.partial_fit(chunks[0])
            assert not np.array_equal(one.explained_variance_ratio_, before)
            for name in OF_PCA:
                assert_array_equal(getattr(one, name), getattr(estimator, name))

    def test_a_failed_chunk_leaves_them(self, chunks):
        estimator = self.streamed(chunks)
        before = estimator.explained_variance_ratio_
        with pytest.raises(ValueError, match="NaN"):
            estimator.partial_fit(np.full((3, 5), np.nan))
        assert_array_equal(estimator.explained_variance_ratio_, before)

    def test_fit_replaces_them(self, chunks):
        estimator = self.streamed(chunks).set_params(max_epochs=0).fit(chunks[0])
        assert_allclose(estimator.explained_variance_ratio_, PCA(2).fit(chunks[0]).explained_variance_ratio_)

    def test_another_attribute_is_missing_as_ever(self, chunks):
        estimator = AutoEncoderTransformer()
        for one in (estimator, clone(estimator).partial_fit(chunks[0])):
            with pytest.raises(AttributeError, match="'AutoEncoderTransformer' object has no attribute 'componets_'"):
                _ = one.componets_
        assert not hasattr(estimator, "components_")


class TestComponents:
    @pytest.mark.parametrize("whiten", [True, False])
    def test_are_mean_derivatives_of_the_reconstruction(self, whiten):
        """In units of a code that is not whitened."""
        X = curved_rows(100)
        estimator = AutoEncoderTransformer(2, **TRAINED, whiten=whiten).fit(X)
        plain = AutoEncoderTransformer(2, **TRAINED).fit(X)
        assert plain.best_epoch_ > 0
        assert_allclose(estimator.components_, plain.components_, rtol=1e-6)
        codes = plain.transform(X)
        for component, step in zip(plain.components_, 1e-5 * np.eye(2), strict=True):
            moved = plain.inverse_transform(codes + step) - plain.inverse_transform(codes - step)
            assert_allclose(component, moved.mean(axis=0) / 2e-5, atol=1e-6)
        assert (np.linalg.norm(plain.components_, axis=1) <= 1.0 + 1e-6).all()

    def test_of_a_linear_network_with_another_loss_span_what_it_learnt(self):
        X = curved_rows(100)
        settings = {**TRAINED, "activation": "identity", "loss": "huber"}
        estimator = AutoEncoderTransformer(2, **settings).fit(X)
        codes = estimator.transform(X)
        expected = estimator.inverse_transform(codes) - estimator.inverse_transform(np.zeros((1, 2)))
        assert_allclose(codes @ estimator.components_, expected, atol=1e-5)
