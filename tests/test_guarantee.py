"""The exact parts of docs/guarantee.rst, over random shapes, scales and degenerate inputs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

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


@EXAMPLES
@given(table=tables())
def test_held_out_rows_are_at_least_as_good_as_at_the_start(table):
    X, k = table
    estimator = AutoEncoderTransformer(k, hidden_layer_sizes=16, refit=False, max_epochs=8, random_state=0).fit(X)
    scores = estimator.validation_scores_
    assert scores is None or scores[estimator.best_epoch_] >= scores[0]


@EXAMPLES
@given(table=tables())
def test_a_row_far_outside_gets_the_code_of_the_start(table):
    """Up to the units of the codes, which are measured when the training is over."""
    X, k = table
    parameters = {"hidden_layer_sizes": 16, "early_stopping": False, "random_state": 0}
    trained = AutoEncoderTransformer(k, max_epochs=8, **parameters).fit(X)
    start = AutoEncoderTransformer(k, max_epochs=0, **parameters).fit(X)
    reach = np.abs(X - X.mean(axis=0)).max(axis=0)
    far = X.mean(axis=0) + np.outer([50, 80], reach)
    codes, pca = trained.transform(far), start.transform(far)
    np.testing.assert_allclose(codes[0] * pca[1], codes[1] * pca[0], rtol=1e-6, atol=1e-9 * np.abs(codes).max() ** 2)
