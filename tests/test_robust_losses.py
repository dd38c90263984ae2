"""Losses that wild samples do not dominate, or to which lengths matter little, are judged by themselves."""

import numpy as np
import pytest
from helpers import curved_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA

from skae import AutoEncoderTransformer

QUICK = {"hidden_layer_sizes": 32, "max_epochs": 80, "batch_size": 32, "lr": 0.01, "random_state": 0}


def median_error(estimator, X):
    """Median over the samples of their mean absolute reconstruction error."""
    return np.median(np.abs(estimator.inverse_transform(estimator.transform(X)) - X).mean(axis=1))


@pytest.mark.parametrize(("loss", "n_broken"), [("absolute_error", 1), ("absolute_error", 4), ("huber", 4)])
def test_ordinary_samples_are_reconstructed_well_beside_broken_ones(loss, n_broken):
    X, fresh = curved_rows(400), curved_rows(400, seed=1)
    broken = X.copy()
    broken[:n_broken] *= 1e3
    estimator = AutoEncoderTransformer(2, loss=loss, **QUICK).fit(broken)
    assert median_error(estimator, fresh) < 0.5 * median_error(PCA(2).fit(broken), fresh)
    assert np.abs(estimator.mean_).max() < 1 < np.abs(broken.mean(axis=0)).max()
    offsets = np.square(broken - broken.mean(axis=0)).sum()
    errors = np.square(broken - estimator.inverse_transform(estimator.transform(broken))).sum()
    assert_allclose(estimator.score(broken), 1 - errors / offsets, atol=1e-6)


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_without_broken_samples_the_start_is_that_of_pca(loss):
    X = curved_rows(200)
    estimators = [AutoEncoderTransformer(2, loss=name, max_epochs=0).fit(X) for name in (loss, "squared_error")]
    assert_array_equal(*(estimator.transform(X) for estimator in estimators))


def test_cosine_of_samples_whose_lengths_differ_a_thousandfold():
    random = np.random.default_rng(0)
    X = curved_rows(400) @ random.normal(size=(5, 12))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    lengths = 10 ** random.uniform(0, 3, (400, 1))

    def cosine(X):
        estimator = AutoEncoderTransformer(3, loss="cosine", **QUICK).fit(X)
        X_hat = estimator.inverse_transform(estimator.transform(X))
        return np.mean((X * X_hat).sum(axis=1) / np.linalg.norm(X, axis=1) / np.linalg.norm(X_hat, axis=1))

    assert cosine(lengths * X) > 0.9 * cosine(X)


def test_poisson_on_counts_of_uneven_depth_is_trained():
    random = np.random.default_rng(0)
    rates = np.exp(curved_rows(400, noise=0.0) @ random.normal(size=(5, 12)))
    depths = 10 ** random.uniform(1, 4, (400, 1))
    X = random.poisson(depths * rates / rates.sum(axis=1, keepdims=True)).astype(float)
    estimator = AutoEncoderTransformer(2, loss="poisson", **QUICK).fit(X)
    assert estimator.n_iter_ > 0
    assert estimator.best_epoch_ > 0
    score_after = dict(zip(estimator.validation_epochs_, estimator.validation_scores_, strict=True))
    assert score_after[estimator.best_epoch_] > score_after[0]
