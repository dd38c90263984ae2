"""A truncated estimator is a fitted one with the first codes only."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import TINY, TRAINED, TwoLayers, curved_rows, noise_rows, pca_score
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, Nested, truncate


def with_holes(X):
    return np.where(np.random.RandomState(0).uniform(size=X.shape) < 0.1, np.nan, X)


X = load_digits().data[:60] / 16.0
CONFIGURATIONS = {
    "dense": {},
    "dense, no PCA": {"linear_skip": False, "normalization": "batch"},
    "tied": {"architecture": "tied", "whiten": True},
    "conv": {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (2, 3, 8)},
    "module": {"module": TwoLayers},
    "instance": {"module": TwoLayers(64, 5)},
    "PCA": {"activation": "identity", "whiten": True},
    "rates": {"loss": "poisson"},
    "encoder": {"projection_steps": 0},
    "variational": {"regularizer": "variational"},
    "missing": {"allow_nan": True},
    "unordered": {"ordered": False},
}


@pytest.fixture(params=CONFIGURATIONS, scope="module")
def fitted(request):
    """An autoencoder with five codes, and its training samples."""
    samples = with_holes(X) if request.param == "missing" else X
    samples = samples.astype(np.float32) if request.param in ("tied", "encoder") else samples
    return AutoEncoderTransformer(5, **{**TRAINED, "max_epochs": 2, **CONFIGURATIONS[request.param]}).fit(
        samples
    ), samples


def values_of(estimator, X):
    """What the methods of an estimator return."""
    Z = estimator.transform(X)
    return [Z, estimator.inverse_transform(Z), estimator.score_samples(X), np.array(estimator.score(X))]


class TestResult:
    def test_is_an_estimator_with_fewer_codes(self, fitted):
        estimator, samples = fitted
        short = truncate(estimator, 2)
        Z, X_hat, *_ = values_of(short, samples)
        assert Z.shape == (60, 2) and X_hat.shape == (60, 64) and Z.dtype == X_hat.dtype == samples.dtype
        assert np.isfinite(X_hat).all()
        assert short.n_components == short.n_components_ == 2 and len(short.components_) == 2
        assert_array_equal(short.explained_variance_ratio_, estimator.explained_variance_ratio_[:2])
        assert_array_equal(short.explained_variance_, estimator.explained_variance_[:2])
        assert list(short.get_feature_names_out()) == [f"autoencodertransformer{index}" for index in (0, 1)]
        assert short.loss_curve_ == estimator.loss_curve_ and len(short.net_.history) == len(estimator.net_.history)
        assert clone(short).get_params().keys() == clone(estimator).get_params().keys()

    def test_codes_are_those_of_a_decoder_whose_other_codes_are_zero(self, fitted):
        estimator, samples = fitted
        short = truncate(estimator, 3)
        Z = short.transform(samples)
        padded = np.concatenate([Z, np.zeros((60, 2), dtype=Z.dtype)], axis=1)
        assert_allclose(short.inverse_transform(Z), estimator.inverse_transform(padded), rtol=1e-5, atol=1e-6)

    def test_all_codes_are_the_same_to_the_last_bit(self, fitted):
        estimator, samples = fitted
        same = truncate(estimator, 5)
        for value, expected in zip(values_of(same, samples), values_of(estimator, samples), strict=True):
            assert_array_equal(value, expected)
        assert same.noise_variance_ == pytest.approx(estimator.noise_variance_)

    def test_again_is_the_same_as_once(self, fitted):
        estimator, samples = fitted
        once, twice = truncate(estimator, 2), truncate(truncate(estimator, 4), 2)
        assert_allclose(twice.transform(samples), once.transform(samples), rtol=1e-3, atol=1e-4)
        assert twice.noise_variance_ == pytest.approx(once.noise_variance_)

    def test_leaves_the_original_unchanged(self, fitted):
        estimator, samples = fitted
        estimator = copy.deepcopy(estimator)
        before = values_of(estimator, samples)
        short = truncate(estimator, 2)
        for tensor in short.net_.module_.state_dict().values():
            tensor.zero_()
        for name in ("components_", "explained_variance_ratio_", "mean_"):
            getattr(short, name)[:] = 0.0
        truncate(estimator, 2).set_params(warm_start=True, max_epochs=1).fit(samples)
        for value, expected in zip(values_of(estimator, samples), before, strict=True):
            assert_array_equal(value, expected)
        assert estimator.n_components == estimator.n_components_ == 5
        assert estimator.components_.any(axis=1).all() and estimator.mean_.any()

    def test_fits_in_pickles_and_files(self, fitted, path):
        estimator, samples = fitted
        short = truncate(estimator, 2)
        copies = [pickle.loads(pickle.dumps(short))]
        if estimator.module is None:  # files have no code
            skae.save(short, path)
            copies.append(skae.load(path))
        for other in copies:
            for value, expected in zip(values_of(other, samples), values_of(short, samples), strict=True):
                assert_array_equal(value, expected)

    @pytest.mark.parametrize("fitted", ["dense", "conv", "instance", "missing"], indirect=True)
    def test_is_converted_to_onnx(self, fitted, path):
        runtime, skl2onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("skl2onnx")
        estimator, samples = fitted
        short = truncate(estimator, 2)
        skae.onnx.register()
        model, Z = skl2onnx.to_onnx(short, samples[:1]).SerializeToString(), short.transform(samples)
        (codes,) = runtime.InferenceSession(model).run(None, {"X": samples})
        assert_allclose(codes, Z, rtol=1e-5, atol=1e-5 * np.abs(Z).max())
        skae.onnx.export_decoder(short, path)
        (X_hat,) = runtime.InferenceSession(path).run(["X"], {"codes": Z})
        assert_allclose(X_hat, short.inverse_transform(Z), rtol=1e-5, atol=1e-5)


class TestVariance:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize(("n_samples", "n_codes"), [(60, 5), (60, 60), (200, 60)])  # the last has no variance left
    def test_is_that_of_pca_where_pca_was_kept(self, dtype, n_samples, n_codes):
        samples = load_digits().data[:n_samples].astype(dtype)
        estimator = AutoEncoderTransformer(n_codes, max_epochs=0).fit(samples)
        for k in {1, 4, n_codes}:
            short, pca = truncate(estimator, k), PCA(k, svd_solver="full").fit(samples.astype(float))
            tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-9}
            assert_allclose(
                short.inverse_transform(short.transform(samples)),
                pca.inverse_transform(pca.transform(samples.astype(float))),
                **tolerance,
            )
            assert_allclose(short.transform(samples)[:, :4], pca.transform(samples.astype(float))[:, :4], **tolerance)
            assert_allclose(short.explained_variance_ratio_, pca.explained_variance_ratio_, **tolerance)
            assert_allclose(short.components_[:4], pca.components_[:4], **tolerance)
            assert_allclose(short.noise_variance_, pca.noise_variance_, **tolerance)
            assert short.components_.dtype == dtype and short.n_samples_ == pca.n_samples_

    def test_what_is_left_is_noise(self):
        samples = curved_rows(200)
        estimator = AutoEncoderTransformer(4, **TRAINED).fit(samples)
        left = samples.var(axis=0, ddof=1).sum() * (1 - np.cumsum(estimator.explained_variance_ratio_))
        found = [truncate(estimator, k).noise_variance_ for k in (1, 2, 3, 4)]
        assert_allclose(found, left / [4, 3, 2, 1])


@pytest.mark.parametrize(
    ("load", "n_codes", "settings"),
    [
        (load_digits, 8, {"max_epochs": 40}),
        (load_breast_cancer, 4, {"max_epochs": 20, "batch_size": 64, "hidden_layer_sizes": 64}),
    ],
)
def test_explains_more_than_pca(load, n_codes, settings):
    """Of data that were not seen, at any size."""
    samples = StandardScaler().fit_transform(load().data)[:500]
    seen, unseen = samples[::2], samples[1::2]
    estimator = AutoEncoderTransformer(n_codes, random_state=0, **settings).fit(seen)
    sizes = range(1, n_codes + 1)
    gains = [truncate(estimator, k).score(unseen) - pca_score(PCA(k).fit(seen), unseen) for k in sizes]
    assert estimator.best_epoch_ > 0
    assert min(gains) > -0.001 and max(gains) > 0.01


class TestFitting:
    def test_a_clone_begins_from_scratch(self):
        samples = curved_rows()
        estimator = AutoEncoderTransformer(4, **TINY).fit(samples)
        refitted, fresh = clone(truncate(estimator, 2)).fit(samples), AutoEncoderTransformer(2, **TINY).fit(samples)
        assert_array_equal(refitted.transform(samples), fresh.transform(samples))
        again = truncate(estimator, 2).fit(samples)
        assert_array_equal(again.transform(samples), fresh.transform(samples))

    def test_warm_start_goes_on(self, fitted):
        estimator, samples = fitted
        short = truncate(estimator, 2).set_params(warm_start=True, max_epochs=0)
        before = values_of(short, samples)
        if not estimator.allow_nan:  # missing values are imputed by fewer components
            for value, expected in zip(values_of(short.fit(samples), samples), before, strict=True):
                assert_allclose(value, expected, rtol=1e-3, atol=1e-4)
        trained = truncate(estimator, 2).set_params(warm_start=True, max_epochs=3).fit(samples)
        assert trained.components_.shape == (2, 64) and trained.n_iter_ == 3 * (trained.activation != "identity")
        if trained.linear_skip and trained.loss == "squared_error" and trained.regularizer is None:
            assert trained.score(samples) >= before[-1] - 1e-3
        assert truncate(trained, 1).transform(samples).shape == (60, 1)

    def test_warm_start_of_many_codes_keeps_the_layers(self):
        samples = np.random.RandomState(0).standard_normal((150, 140))
        estimator = AutoEncoderTransformer(100, max_epochs=1, early_stopping=False, random_state=0).fit(samples)
        short = truncate(estimator, 3).set_params(warm_start=True).fit(samples)
        assert "-100-" in repr(short.net_) and short.transform(samples).shape == (150, 3)

    def test_warm_start_with_other_data_begins_at_pca(self):
        estimator = AutoEncoderTransformer(4, **TRAINED).fit(curved_rows(noise=0.1))
        other = noise_rows(n_features=5)
        short = truncate(estimator, 2).set_params(warm_start=True, max_epochs=0).fit(other)
        assert_allclose(short.transform(other), PCA(2).fit_transform(other), atol=1e-6)
        assert short.score(other) == pytest.approx(PCA(2).fit(other).explained_variance_ratio_.sum())

    def test_warm_start_with_yet_another_size_is_refused(self):
        estimator = truncate(AutoEncoderTransformer(4, **TINY).fit(curved_rows()), 2)
        with pytest.raises(ValueError, match="warm_start=True needs the network of the previous fit"):
            estimator.set_params(warm_start=True, n_components=3).fit(curved_rows())

    def test_partial_fit_goes_on(self):
        chunks = np.split(curved_rows(400), 4)
        estimator = AutoEncoderTransformer(4, random_state=0).partial_fit(chunks[0]).partial_fit(chunks[1])
        assert 150 < estimator.n_samples_ < estimator.n_samples_seen_ == 200  # without those held out
        short = truncate(estimator, 2)
        assert not hasattr(short, "n_samples_seen_")
        short.partial_fit(chunks[2])
        other = pickle.loads(pickle.dumps(short))
        for one in (short, other):
            one.partial_fit(chunks[3])
            assert one.n_samples_seen_ == 200 and one.transform(chunks[0]).shape == (100, 2)
        assert_array_equal(short.transform(chunks[0]), other.transform(chunks[0]))
        estimator.partial_fit(chunks[2])
        assert estimator.n_samples_seen_ == 300 and estimator.n_components_ == 4


class TestInput:
    def test_variational_functions(self):
        estimator = AutoEncoderTransformer(4, regularizer="variational", **TINY).fit(X)
        short = truncate(estimator, 2)
        assert_array_equal(skae.transform_std(short, X), skae.transform_std(estimator, X)[:, :2])
        assert skae.sample(short, 3, random_state=0).shape == (3, 64)
        assert_allclose(short.transform(X), estimator.transform(X)[:, :2])  # the means are not projected

    def test_sparse(self):
        samples = scipy.sparse.csr_array(np.where(X > 0.5, X, 0.0))
        short = truncate(AutoEncoderTransformer(4, **TINY).fit(samples), 2)
        assert_allclose(short.transform(samples), short.transform(samples.toarray()))

    def test_weights_of_nested_dropout_belong_to_a_size(self):
        estimator = AutoEncoderTransformer(3, regularizer=Nested(weights=[3, 2, 1]), **TINY).fit(curved_rows())
        short = truncate(estimator, 2)
        with pytest.raises(ValueError, match="must be as many as n_components=2"):
            short.fit(curved_rows())

    @pytest.mark.parametrize("k", [0, 5, -1, 2.0, "2", None, True])
    def test_wrong_size(self, k):
        estimator = AutoEncoderTransformer(4, **TINY).fit(curved_rows())
        with pytest.raises(ValueError, match=rf"k={k!r} must be an integer from 1 to n_components_=4. Choose one"):
            truncate(estimator, k)

    def test_wrong_estimator(self):
        estimator = AutoEncoderTransformer(2, **TINY)
        pipeline, search = make_pipeline(estimator), GridSearchCV(estimator, {"alpha": [0.0]}, cv=2)
        for other in (pipeline, search, AutoEncoderOutlierDetector(estimator), PCA(2)):
            with pytest.raises(TypeError, match=r"(?s)must be an AutoEncoderTransformer, got .*Pass the last step of"):
                truncate(other, 1)
        with pytest.raises(NotFittedError):
            truncate(estimator, 1)

    def test_integer_of_numpy_and_no_gradients(self):
        estimator = AutoEncoderTransformer(4, **TINY).fit(curved_rows())
        with torch.inference_mode():
            short = truncate(estimator, np.int64(2))
        assert type(short.n_components) is int
        assert short.set_params(warm_start=True).fit(curved_rows()).n_components_ == 2
