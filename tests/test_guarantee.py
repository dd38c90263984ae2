"""The exact parts of docs/guarantee.rst, over random shapes, scales and degenerate inputs."""

import numpy as np
from helpers import curved_rows, noise_rows
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.model_selection import PredefinedSplit

from skae import AutoEncoderTransformer

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def tables(draw):
    """Samples on a curved surface plus noise, with columns of any scale, some constant, some rows repeated or wild."""
    n_samples, n_features = draw(st.integers(4, 60)), draw(st.integers(2, 12))
    random = np.random.RandomState(draw(st.integers(0, 2**16)))
    hidden = random.uniform(-1, 1, (n_samples, 2))
    X = np.sin(3 * hidden @ random.standard_normal((2, n_features)))
    X += draw(st.sampled_from([0.0, 0.1, 1.0])) * random.standard_normal(X.shape)
    X = X * 10.0 ** random.uniform(-3, 3, n_features) ** draw(st.sampled_from([0, 1]))
    if draw(st.booleans()):
        X[:, 0] = draw(st.sampled_from([0.0, 1.0, 1e6]))
    if draw(st.booleans()):
        X[n_samples // 2 :] = X[: n_samples - n_samples // 2]
    if draw(st.booleans()):
        X[0] *= 1e3
    return X * draw(st.sampled_from([1e-9, 1.0, 1e9])), draw(st.integers(1, min(n_samples, n_features)))


def pca_score(X, k):
    """Share of the variance of X that its own PCA explains."""
    pca = PCA(k, svd_solver="full").fit(X)
    X_hat = pca.inverse_transform(pca.transform(X))
    total = np.square(X - X.mean(axis=0)).sum()
    return 1 - np.square(X - X_hat).sum() / total if total > 0 else 1.0


@EXAMPLES
@given(table=tables(), early_stopping=st.booleans(), lr=st.sampled_from([3e-3, 0.3]))
def test_training_rows_are_at_least_as_good_as_with_pca(table, early_stopping, lr):
    X, k = table
    estimator = AutoEncoderTransformer(
        k, hidden_layer_sizes=16, early_stopping=early_stopping, max_epochs=8, lr=lr, random_state=0
    )
    assert estimator.fit(X).score(X) >= pca_score(X, k) - 1e-5


def check_validation_samples(X, k, lr):
    """Compare a fit with PCA of the samples that train, on those that are held out, and return the fitted estimator."""
    held_out = np.arange(len(X)) % 3 == 0
    train, valid = X[~held_out], X[held_out]
    k = min(k, np.linalg.matrix_rank(train - train.mean(axis=0)))  # beyond the rank PCA's components are arbitrary
    parameters = {"hidden_layer_sizes": 16, "max_epochs": 20, "lr": lr, "random_state": 0}
    split = PredefinedSplit(np.where(held_out, 0, -1))
    estimator = AutoEncoderTransformer(k, validation_split=split, **parameters).fit(X)
    pca = PCA(k, svd_solver="full").fit(train)
    start_losses = np.square(valid - pca.inverse_transform(pca.transform(valid))).mean(axis=1)
    gains = start_losses + estimator.score_samples(valid)
    rounding = 1e-5 * max(train.var(axis=0).mean(), start_losses.mean())
    margin = 2 * gains.std() / np.sqrt(len(gains)) if estimator.best_epoch_ > 0 else 0.0
    assert gains.mean() >= margin - rounding
    return estimator


@EXAMPLES
@given(table=tables(), lr=st.sampled_from([0.03, 0.3]))
def test_validation_samples_are_at_least_as_good_as_with_pca_of_the_others(table, lr):
    X, k = table
    assume(np.ptp(np.delete(X, slice(None, None, 3), axis=0), axis=0).any())
    check_validation_samples(X, k, lr)


def test_validation_samples_keep_a_network_that_is_better_and_refuse_one_that_is_not():
    assert check_validation_samples(curved_rows(300), 2, lr=0.03).best_epoch_ > 0
    assert check_validation_samples(noise_rows(150), 2, lr=0.03).best_epoch_ == 0
