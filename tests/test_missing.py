"""Missing values: allowed on request, filled in, and counted in nothing."""

import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import TINY, TRAINED, curved_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderTransformer
from skae._data.sample import Sample
from skae._pca.exact import principal_components
from skae._pca.missing import PPCAImputer


def with_holes(X, share=0.2, seed=0):
    """A copy with a share of the values missing at random, and where they were."""
    missing = np.random.RandomState(seed).uniform(size=X.shape) < share
    return np.where(missing, np.nan, X), missing


def imputed(estimator, X):
    return np.where(np.isnan(X), estimator.inverse_transform(estimator.transform(X)), X)


def test_refused_unless_asked_for(curved):
    holes, _ = with_holes(curved)
    assert not AutoEncoderTransformer().__sklearn_tags__().input_tags.allow_nan
    assert AutoEncoderTransformer(allow_nan=True).__sklearn_tags__().input_tags.allow_nan
    with pytest.raises(ValueError, match="contains NaN"):
        AutoEncoderTransformer(2, **TINY).fit(holes)
    estimator = AutoEncoderTransformer(2, **TINY).fit(curved)
    for method in (estimator.transform, estimator.score, estimator.score_samples):
        with pytest.raises(ValueError, match="contains NaN"):
            method(holes)


def test_infinity_is_never_allowed(curved):
    curved[3, 1] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        AutoEncoderTransformer(2, allow_nan=True, **TINY).fit(curved)


@pytest.mark.parametrize(
    "parameters", [{}, {"loss": "huber"}, {"regularizer": "sparse"}, {"linear_skip": False}], ids=str
)
def test_complete_rows_are_treated_as_ever(curved, parameters):
    allowed, refused = (
        AutoEncoderTransformer(2, allow_nan=allow, **TRAINED, **parameters).fit(curved) for allow in (True, False)
    )
    assert_array_equal(allowed.transform(curved), refused.transform(curved))
    assert allowed.score(curved) == refused.score(curved)
    assert_array_equal(allowed.score_samples(curved), refused.score_samples(curved))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"loss": "huber"},
        {"loss": "poisson"},
        {"loss": "cosine"},
        {"regularizer": ["denoising", "contractive"]},
        {"regularizer": "variational"},
        {"linear_skip": False},
        {"activation": "identity"},
        {"optimizer": "lbfgs"},
        {"whiten": True, "architecture": "tied"},
    ],
    ids=str,
)
def test_results_have_no_holes(curved, parameters, dtype):
    complete = np.abs(curved).astype(dtype)
    X, missing = with_holes(complete)
    estimator = AutoEncoderTransformer(2, allow_nan=True, **TINY, **parameters).fit(X)
    codes = estimator.transform(X)
    assert codes.dtype == dtype
    assert np.isfinite(codes).all()
    filled = estimator.inverse_transform(codes)
    assert np.isfinite(filled).all()
    assert np.isfinite(estimator.loss_curve_).all()
    assert_array_equal(clone(estimator).fit(X).transform(X), codes)
    errors = np.where(missing, 0.0, np.square(filled.astype(np.float64) - complete))
    means = errors.sum(axis=1) / (~missing).sum(axis=1).clip(1)
    assert_allclose(-estimator.score_samples(X), means, rtol=1e-3, atol=1e-6)
    offsets = np.where(missing, 0.0, np.square(complete - estimator.mean_.astype(np.float64)))
    assert estimator.score(X) == pytest.approx(1 - errors.sum() / offsets.sum(), abs=1e-5)


def test_each_row_is_filled_in_by_itself(curved):
    X, _ = with_holes(curved)
    estimator = AutoEncoderTransformer(2, allow_nan=True, **TRAINED).fit(X)
    assert estimator.best_epoch_ > 0
    alone = np.vstack([estimator.transform(row[np.newaxis]) for row in X[:9]])
    assert_allclose(alone, estimator.transform(X)[:9], rtol=1e-10, atol=1e-12)


def test_linear_filling_recovers_a_plane():
    """Samples on a plane have only one value that fits, so long as more values are there than directions."""
    random = np.random.RandomState(0)
    complete = random.standard_normal((200, 2)) @ random.standard_normal((2, 8)) + 3.0
    X, missing = with_holes(complete, 0.15)
    estimator = AutoEncoderTransformer(2, activation="identity", allow_nan=True).fit(X)
    error = np.square(imputed(estimator, X) - complete)[missing].mean()
    assert error < 0.02 * np.var(complete)
    angles = np.linalg.svd(PCA(2).fit(complete).components_ @ estimator.net_.module_.network.pca_encoding.numpy().T)[1]
    assert angles.min() / angles.max() > 0.5


@pytest.mark.parametrize(("load", "share"), [(load_breast_cancer, 0.1), (load_digits, 0.5)])
def test_better_than_the_mean_and_than_pca(load, share):
    complete = StandardScaler(with_std=load is load_breast_cancer).fit_transform(load().data[:1000])
    X, missing = with_holes(complete, share)
    pca = AutoEncoderTransformer(4, allow_nan=True, max_epochs=0).fit(X)
    trained = AutoEncoderTransformer(4, allow_nan=True, max_epochs=60, batch_size=32, random_state=0).fit(X)
    by_mean, by_pca, by_network = (
        np.square(filled - complete)[missing].mean()
        for filled in (np.where(missing, np.nanmean(X, axis=0), X), imputed(pca, X), imputed(trained, X))
    )
    assert by_network < 0.95 * by_pca < 0.75 * by_mean


def test_without_training_codes_are_those_of_probabilistic_pca():
    """Decoded, they are the values by which missing ones are imputed before PCA."""
    X, missing = with_holes(load_breast_cancer().data / load_breast_cancer().data.std(axis=0), 0.3)
    estimator = AutoEncoderTransformer(4, allow_nan=True, max_epochs=0).fit(X)
    module = estimator.net_.module_
    rows = torch.from_numpy(X)
    filled = (module.filling((rows - module.mean) / module.divisor) * module.divisor + module.mean).numpy()
    assert_allclose(estimator.inverse_transform(estimator.transform(X))[missing], filled[missing], rtol=1e-9)


def test_sparse_rows_with_holes():
    X = curved_rows(60).repeat(3, axis=1)
    X[np.random.RandomState(1).uniform(size=X.shape) < 0.7] = 0.0
    X = np.where(X == 0, 0.0, with_holes(X, 0.2)[0])
    assert np.isnan(X).any()
    kinds = X, scipy.sparse.csr_array(X)
    estimators = [AutoEncoderTransformer(2, allow_nan=True, **TRAINED).fit(kind) for kind in kinds]
    codes = [estimator.transform(kind) for estimator, kind in zip(estimators, kinds, strict=True)]
    assert_array_equal(*codes)
    assert_array_equal(*(estimator.score_samples(kind) for estimator, kind in zip(estimators, kinds, strict=True)))


def test_an_empty_row_is_the_mean(curved):
    X, _ = with_holes(curved)
    X[7] = np.nan
    pca = AutoEncoderTransformer(2, allow_nan=True, max_epochs=0).fit(X)
    assert_allclose(pca.inverse_transform(pca.transform(X[7:8]))[0], pca.mean_, atol=1e-12)
    trained = AutoEncoderTransformer(2, allow_nan=True, **TRAINED).fit(X)
    module = trained.net_.module_
    assert_array_equal(trained.transform(X[7:8]), module.encode(module.mean[None]).detach().numpy())
    assert trained.score_samples(X)[7] == 0


def test_an_empty_column_is_refused(curved):
    curved[:, [1, 3]] = np.nan
    with pytest.raises(ValueError, match="Feature 1 of X has no observed values, one of 2 such features among"):
        AutoEncoderTransformer(2, allow_nan=True, **TINY).fit(curved)


def test_negative_counts_are_refused_among_holes(curved):
    X, _ = with_holes(curved)
    with pytest.raises(ValueError, match="loss='poisson' needs counts of at least 0"):
        AutoEncoderTransformer(2, loss="poisson", allow_nan=True, **TINY).fit(X)


def test_searched_and_chosen_by_what_is_there(curved):
    X, _ = with_holes(np.tile(curved, (3, 1)))
    search = GridSearchCV(AutoEncoderTransformer(allow_nan=True, **TINY), {"n_components": [1, 2]}, cv=2).fit(X)
    assert search.best_params_ == {"n_components": 2}
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
def test_allowed_only_after_fit_is_refused(curved, container):
    holes, _ = with_holes(curved)
    message = r"contains NaN, but this AutoEncoderTransformer was fitted with allow_nan=False.* Call fit again"
    estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved).set_params(allow_nan=True)
    codes = estimator.transform(curved)
    for method in ("transform", "score", "score_samples", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(estimator, method)(container(holes))
    assert_array_equal(estimator.transform(curved), codes)
    stream = AutoEncoderTransformer(2, random_state=0).partial_fit(curved).set_params(allow_nan=True)
    with pytest.raises(ValueError, match=message):
        stream.partial_fit(holes)
    assert np.isfinite(estimator.fit(holes).transform(holes)).all()


@pytest.mark.parametrize(
    "parameters", [{}, {"linear_skip": False}, {"architecture": "tied"}, {"activation": "identity"}], ids=str
)
def test_complete_in_fit_and_missing_later(curved, parameters):
    holes, missing = with_holes(curved, 0.2)
    # Five epochs in which some codes are cut are too few for tied weights to impute better than the mean.
    estimator = AutoEncoderTransformer(2, allow_nan=True, **TRAINED, **parameters, ordered=False).fit(curved)
    assert_array_equal(estimator.transform(curved), clone(estimator).set_params(allow_nan=False).fit_transform(curved))
    codes, filled = estimator.transform(holes), imputed(estimator, holes)
    assert np.isfinite(codes).all()
    assert np.square(filled - curved)[missing].mean() < np.square(curved.mean(axis=0) - curved)[missing].mean()
    errors = np.where(missing, 0.0, np.square(estimator.inverse_transform(codes) - curved)).sum(axis=1)
    assert_allclose(-estimator.score_samples(holes), errors / (~missing).sum(axis=1).clip(1))
    assert 0 < estimator.score(holes) < 1


def ratings(seed):
    """Ratings of 60 things by 400 people with two tastes, most of them noise and 95 % of them missing; and which."""
    random = np.random.default_rng(seed)
    complete = random.normal(size=(400, 2)) @ random.normal(size=(2, 60)) + 2.0 * random.normal(size=(400, 60))
    missing = random.uniform(size=complete.shape) < 0.95
    return complete, np.where(missing, np.nan, complete), missing


@pytest.mark.parametrize("seed", [0, 3])
def test_what_a_network_fills_in_is_not_worse_than_what_pca_does(seed):
    complete, X, missing = ratings(seed)
    network, pca = (
        AutoEncoderTransformer(2, hidden_layer_sizes=64, allow_nan=True, random_state=0, **parameters).fit(X)
        for parameters in ({"max_epochs": 20}, {"max_epochs": 0})
    )
    by_network, by_pca, by_mean = (
        np.sqrt(np.square(filled - complete)[missing].mean())
        for filled in (imputed(network, X), imputed(pca, X), np.where(missing, np.nanmean(X, axis=0), X))
    )
    assert by_network <= by_pca < 1.002 * by_mean


def test_a_network_that_fills_in_better_is_kept():
    random = np.random.RandomState(0)
    complete = np.tile(curved_rows(300), 3) + 0.1 * random.standard_normal((300, 15))
    X, missing = with_holes(complete, 0.6)
    network, pca = (
        # Thirty epochs do not order the codes.
        AutoEncoderTransformer(2, allow_nan=True, max_epochs=n_epochs, random_state=0, ordered=False).fit(X)
        for n_epochs in (30, 0)
    )
    assert network.best_epoch_ > 0
    by_network, by_pca = (np.square(imputed(one, X) - complete)[missing].mean() for one in (network, pca))
    assert by_network < 0.95 * by_pca


def test_too_few_values_to_hide_leave_pca():
    X, _ = with_holes(curved_rows(150), 0.9)
    assert AutoEncoderTransformer(2, hidden_layer_sizes=8, allow_nan=True, random_state=0).fit(X).n_iter_ == 0


def test_features_that_are_never_present_together_leave_pca():
    """What a network makes of them cannot be compared with anything that is known."""
    X = StandardScaler().fit_transform(load_digits().data[:, np.arange(64) % 8 > 1])
    starts = np.random.RandomState(0).randint(X.shape[1], size=(len(X), 1))
    hidden = (np.arange(X.shape[1]) - starts) % X.shape[1] < 0.8 * X.shape[1]
    model = AutoEncoderTransformer(8, allow_nan=True, max_epochs=5, random_state=0).fit(np.where(hidden, np.nan, X))
    assert model.n_iter_ == 0


def test_one_missing_value_changes_little(curved):
    X = np.tile(curved, (3, 1))
    estimator = AutoEncoderTransformer(2, allow_nan=True, max_epochs=10, batch_size=32, random_state=0)
    complete = estimator.fit(X).score(X)
    X[7, 1] = np.nan
    assert estimator.fit(X).best_epoch_ > 0
    assert estimator.score(X) == pytest.approx(complete, abs=0.03)


@pytest.mark.parametrize("n_more", [0, 2])
def test_chunks_with_holes_are_gone_on_with_from_a_file(n_more):
    X, _ = with_holes(np.tile(curved_rows(120), (2, 2)), 0.5)
    X[:5] = curved_rows(5).repeat(2, axis=1)
    estimator = AutoEncoderTransformer(2, hidden_layer_sizes=8, allow_nan=True, random_state=0).partial_fit(X)
    again = pickle.loads(pickle.dumps(estimator))
    for _ in range(n_more):
        estimator.partial_fit(X)
        again.partial_fit(X)
    assert_array_equal(again.transform(X), estimator.transform(X))
    assert again.loss_curve_ == estimator.loss_curve_


def test_chunks_of_ratings_keep_pca():
    complete, X, missing = ratings(0)
    stream = AutoEncoderTransformer(2, hidden_layer_sizes=64, allow_nan=True, random_state=0)
    for _ in range(3):
        stream.partial_fit(X)
    by_mean = np.sqrt(np.square(np.nanmean(X, axis=0) - complete)[missing].mean())
    assert np.sqrt(np.square(imputed(stream, X) - complete)[missing].mean()) < 1.01 * by_mean


@pytest.mark.parametrize("n_components", [1, 3, 4])
def test_first_components_impute_as_those_of_a_smaller_pca(n_components):
    """What the other components explain is noise then."""
    X, _ = with_holes(curved_rows(100), 0.3)
    pca = principal_components(Sample(curved_rows(100)), 4)
    x = torch.as_tensor((X - pca.mean) / pca.scale)
    large, small = PPCAImputer(4, 5, torch.float64), PPCAImputer(n_components, 5, torch.float64)
    large.init_from_pca(pca)
    small.init_from_pca(pca.truncated(n_components))
    assert_allclose(large.truncated(n_components)(x), small(x), rtol=1e-3)
