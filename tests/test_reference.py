"""Against PCA: equal at the start, equal where linear, better where there is something to learn, never worse."""

import numpy as np
import pytest
from helpers import TINY, curved_rows, noise_rows, pca_score
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skae import AutoEncoderTransformer

STARTS = {
    "no epochs": {"max_epochs": 0},
    "no epochs, all rows": {"max_epochs": 0, "early_stopping": False},
    "linear": {"activation": "identity"},
    "linear, all rows": {"activation": "identity", "early_stopping": False},
    "lbfgs": {"max_epochs": 0, "optimizer": "lbfgs"},
    "sizes": {"max_epochs": 0, "hidden_layer_sizes": (7, 3), "decoder_layer_sizes": 5, "activation": "tanh"},
}
DATA = {
    "tall": noise_rows(),
    "wide": noise_rows(15, 40),
    "curved": curved_rows(),
    "wine": load_wine().data,
    "cancer": load_breast_cancer().data,
    "digits": load_digits().data[:300],
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("X", DATA.values(), ids=DATA)
class TestStart:
    """Where nothing is trained, everything is PCA's, signs included."""

    def test_codes(self, X, start):
        for n_components in (1, 2, 4):
            codes = AutoEncoderTransformer(n_components, **start).fit_transform(X)
            expected = PCA(n_components, svd_solver="full").fit_transform(X)
            np.testing.assert_allclose(codes, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())

    def test_white_codes(self, X, start):
        codes = AutoEncoderTransformer(3, whiten=True, **start).fit_transform(X)
        expected = PCA(3, whiten=True, svd_solver="full").fit_transform(X)
        np.testing.assert_allclose(codes, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(codes.std(axis=0, ddof=1), 1.0, rtol=1e-6)

    @pytest.mark.parametrize("whiten", [False, True])
    def test_reconstruction_of_rows_held_out(self, X, start, whiten):
        train, test = train_test_split(X, random_state=0)
        pca = PCA(3, svd_solver="full").fit(train)
        estimator = AutoEncoderTransformer(3, whiten=whiten, **start).fit(train)
        expected = pca.inverse_transform(pca.transform(test))
        reconstruction = estimator.inverse_transform(estimator.transform(test))
        np.testing.assert_allclose(reconstruction, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert estimator.score(test) == pytest.approx(pca_score(pca, test), rel=1e-9)


class TestNoise:
    """Where nothing can be learnt from so few rows, PCA is kept.

    From 150 rows a manifold of three codes learns to fill noise better than a plane does: it explains .11 of fresh
    noise of fifty columns, of which PCA explains .06.
    """

    @pytest.mark.parametrize(("seed", "whiten"), [(0, False), (1, True)])
    def test_codes_are_pcas(self, seed, whiten):
        X = np.random.RandomState(seed).standard_normal((60, 60)) + 3.0
        estimator = AutoEncoderTransformer(2, whiten=whiten, max_epochs=150, random_state=seed).fit(X)
        assert estimator.best_epoch_ == 0
        assert estimator.n_iter_ > 0
        expected = PCA(2, whiten=whiten, svd_solver="full").fit_transform(X)
        np.testing.assert_allclose(estimator.transform(X), expected, rtol=1e-6, atol=1e-6)


class TestLinear:
    def test_held_out_reconstruction_and_subspace(self):
        train, test = train_test_split(load_digits().data, random_state=0)
        estimator, pca = AutoEncoderTransformer(8, activation="identity").fit(train), PCA(8).fit(train)
        expected = pca.inverse_transform(pca.transform(test))
        reconstruction = estimator.inverse_transform(estimator.transform(test))
        assert np.linalg.norm(reconstruction - expected) < 1e-5 * np.linalg.norm(expected)
        directions = estimator.inverse_transform(np.eye(8)) - estimator.mean_
        cosines = np.linalg.svd(np.linalg.qr(directions.T)[0].T @ pca.components_.T, compute_uv=False)
        np.testing.assert_allclose(cosines, 1.0, atol=1e-10)

    def test_trained_without_the_linear_path_it_stays_below_pca(self):
        """Gradient descent on a linear network ends at or below the best linear map, as Baldi and Hornik proved."""
        X = curved_rows(200)
        parameters = {"linear_skip": False, "activation": "identity", "early_stopping": False, "max_epochs": 60}
        estimator = AutoEncoderTransformer(2, hidden_layer_sizes=(), optimizer="lbfgs", random_state=0, **parameters)
        best = pca_score(PCA(2).fit(X), X)
        score = estimator.fit(X).score(X)
        assert best - 0.01 < score <= best + 1e-9


class TestScore:
    def test_equals_r2_weighted_by_variance(self):
        """On the training rows, whose mean is the reference."""
        X = noise_rows()
        estimator = AutoEncoderTransformer(2, **TINY).fit(X)
        reconstruction = estimator.inverse_transform(estimator.transform(X))
        assert estimator.score(X) == pytest.approx(r2_score(X, reconstruction, multioutput="variance_weighted"))

    def test_equals_the_explained_variance_ratio_of_pca(self):
        X = noise_rows()
        ratio = PCA(3).fit(X).explained_variance_ratio_.sum()
        assert AutoEncoderTransformer(3, max_epochs=0).fit(X).score(X) == pytest.approx(ratio, rel=1e-10)


class TestQuality:
    def test_digits(self):
        digits = load_digits()
        accuracies = []
        for seed in range(2):
            train, test, y_train, y_test = train_test_split(digits.data, digits.target, random_state=seed)
            models = PCA(8).fit(train), AutoEncoderTransformer(8, max_epochs=45, random_state=seed).fit(train)
            assert models[1].score(test) >= pca_score(models[0], test) + 0.15
            neighbours = [KNeighborsClassifier(1).fit(model.transform(train), y_train) for model in models]
            accuracies.append([one.score(m.transform(test), y_test) for one, m in zip(neighbours, models, strict=True)])
        of_pca, ours = np.transpose(accuracies)
        assert np.all(ours >= of_pca - 0.01)
        assert ours.mean() >= of_pca.mean()

    @pytest.mark.parametrize("X", [DATA["wine"], DATA["cancer"]], ids=["wine", "cancer"])
    def test_never_far_below_pca(self, X):
        train, test = train_test_split(X, random_state=0)
        for n_components in (2, 5):
            estimator = AutoEncoderTransformer(n_components, max_epochs=12, random_state=0).fit(train)
            assert estimator.score(test) > pca_score(PCA(n_components).fit(train), test) - 0.01

    @pytest.mark.parametrize(
        "name, stride, n_components, margin",
        [("olivetti", 8, 2, -0.01), ("madelon", 1, 5, -0.005), ("usps", 1, 8, 0.05)],
    )
    def test_real_data(self, name, stride, n_components, margin, data_folder):
        with np.load(data_folder / f"{name}.npz") as file:
            train, test = (file[part][:1000, ::stride].astype(np.float32) for part in ("X_train", "X_test"))
        estimator = AutoEncoderTransformer(n_components, max_epochs=10, random_state=0).fit(train)
        assert (
            estimator.score(test) > pca_score(PCA(n_components).fit(train.astype(float)), test.astype(float)) + margin
        )


def random_array(draw):
    """Any shape, scale, dtype; some columns constant, some equal, some huge."""
    n_samples, n_features = draw(st.integers(2, 30)), draw(st.integers(1, 8))
    random = np.random.RandomState(draw(st.integers(0, 2**31)))
    X = random.standard_normal((n_samples, n_features)) * 10.0 ** draw(st.integers(-12, 12))
    for column in range(n_features):
        kind = draw(st.sampled_from(["plain"] * 4 + ["constant", "zero", "twin", "large", "binary"]))
        if kind == "constant":
            X[:, column] = X[0, column]
        elif kind == "zero":
            X[:, column] = 0.0
        elif kind == "twin":
            X[:, column] = X[:, 0]
        elif kind == "large":
            X[:, column] *= 1e3
        elif kind == "binary":
            X[:, column] = np.sign(X[:, column])
    return X.astype(draw(st.sampled_from([np.float32, np.float64])))


arrays = st.composite(random_array)()
widths = st.floats(0.0, 1.0)
properties = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def width_of(X, width):
    return 1 + round(width * (min(X.shape) - 1))


class TestProperties:
    @properties
    @given(arrays, widths)
    def test_without_epochs_it_is_pca(self, X, width):
        n_components = width_of(X, width)
        estimator = AutoEncoderTransformer(n_components, max_epochs=0).fit(X)
        with np.errstate(invalid="ignore"):  # where nothing varies, PCA divides zero by zero for the shares
            pca = PCA(n_components, svd_solver="full").fit(X.astype(np.float64))
        expected = pca.inverse_transform(pca.transform(X.astype(np.float64)))
        tolerance = (1e-4 if X.dtype == np.float32 else 1e-8) * np.abs(X).max() + np.finfo(X.dtype).tiny
        reconstruction = estimator.inverse_transform(estimator.transform(X))
        # Where directions share one variance PCA's choice among them is no better than another.
        errors = np.linalg.norm(X - reconstruction), np.linalg.norm(X - expected)
        assert abs(errors[0] - errors[1]) <= tolerance * np.sqrt(X.size)

    @properties
    @given(arrays, widths, st.booleans(), st.booleans(), st.booleans())
    def test_trained_it_is_finite_and_keeps_shapes_and_dtypes(self, X, width, early_stopping, linear_skip, whiten):
        n_components = width_of(X, width)
        parameters = {"early_stopping": early_stopping, "linear_skip": linear_skip, "whiten": whiten}
        estimator = AutoEncoderTransformer(n_components, **TINY, **parameters).fit(X)
        codes = estimator.transform(X)
        reconstruction = estimator.inverse_transform(codes)
        assert codes.shape == (len(X), n_components)
        assert reconstruction.shape == X.shape
        assert codes.dtype == reconstruction.dtype == X.dtype
        assert np.isfinite(codes).all()
        assert np.isfinite(reconstruction).all()
        assert np.isfinite(estimator.score_samples(X)).all()
        assert estimator.score(X) <= 1.0

    @properties
    @given(arrays)
    def test_at_full_width_nothing_is_lost(self, X):
        if len(X) <= X.shape[1]:
            X = np.repeat(X, 5, axis=0)
        estimator = AutoEncoderTransformer(X.shape[1], **TINY).fit(X)
        tolerance = 1e-4 if X.dtype == np.float32 else 1e-9
        reconstruction = estimator.inverse_transform(estimator.transform(X))
        np.testing.assert_allclose(reconstruction, X, rtol=0, atol=tolerance * np.abs(X).max())

    @properties
    @given(arrays, widths)
    def test_training_on_all_rows_never_ends_below_pca(self, X, width):
        n_components = width_of(X, width)
        estimator = AutoEncoderTransformer(n_components, **TINY, early_stopping=False).fit(X)
        start = AutoEncoderTransformer(n_components, max_epochs=0).fit(X)
        assert estimator.score(X) >= start.score(X) - (1e-4 if X.dtype == np.float32 else 1e-6)
