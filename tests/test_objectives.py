"""Losses and regularizers: each does what it is for, on real digits, and says what it cannot take."""

import numpy as np
import pytest
import torch
from helpers import curved_rows, losses_of, noise_rows, pca_score
from scipy.stats import ks_2samp
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from skae import (
    AutoEncoderTransformer,
    Contractive,
    Cosine,
    Denoising,
    Huber,
    Sparse,
    Variational,
    sample,
    transform_std,
)

LONG = {
    "hidden_layer_sizes": (100, 50),
    "max_epochs": 40,
    "early_stopping": False,
    "batch_size": 64,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split((X / 16).astype(np.float32), y, random_state=0)


@pytest.fixture(scope="module")
def plain(digits):
    return AutoEncoderTransformer(8, **LONG).fit(digits[0])


def reconstruction(model, X):
    return model.inverse_transform(model.transform(X))


def fitted(digits, **parameters):
    return AutoEncoderTransformer(8, **{**LONG, **parameters}).fit(digits[0])


def test_denoising_restores_noisy_digits_better_than_pca(digits):
    train, test, *_ = digits
    noisy = (test + np.random.RandomState(0).standard_normal(test.shape) * 0.25).astype(np.float32)
    restored = np.square(reconstruction(fitted(digits, regularizer=Denoising(0.5)), noisy) - test).mean()
    by_pca = min(np.square(reconstruction(PCA(k).fit(train), noisy) - test).mean() for k in (4, 8, 16, 32))
    assert restored < 0.85 * by_pca


def test_denoising_masked_digits_beats_the_plain_network(digits):
    """That is what its encoder learns: the projection goes by all values, masked ones too."""
    train, test, *_ = digits
    hidden = np.random.RandomState(0).uniform(size=test.shape) < 0.3
    masked = np.where(hidden, train.mean(axis=0), test).astype(np.float32)
    errors = [
        np.square(reconstruction(model, masked) - test).mean()
        for model in (fitted(digits, regularizer=one, projection_steps=0) for one in (Denoising(0.3, "masking"), None))
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("kind", ["l1", "kl"])
def test_sparse_codes_are_sparse_and_still_separate_the_digits(kind, digits, plain):
    train, test, y_train, y_test = digits
    sparse = fitted(digits, regularizer=Sparse(kind=kind))

    def share_near_zero(model):
        """Share of the codes below a tenth of the largest of their row, each in parts of its root mean square."""
        codes = model.transform(test)
        sizes = np.abs(codes) / np.sqrt(np.square(codes).mean(axis=0))
        return np.mean(sizes < 0.1 * sizes.max(axis=1, keepdims=True))

    def accuracy(model):
        classifier = LogisticRegression(max_iter=3000).fit(model.transform(train), y_train)
        return classifier.score(model.transform(test), y_test)

    assert share_near_zero(sparse) > 2 * share_near_zero(plain)
    assert accuracy(sparse) > accuracy(plain) - 0.03


def test_contractive_codes_move_less(digits, plain):
    train, test, *_ = digits
    noise = 0.1 * train.std(axis=0) * np.random.RandomState(0).standard_normal(test.shape)

    def movement(model):
        codes = model.transform(test)
        return np.median(np.square((model.transform((test + noise).astype(np.float32)) - codes) / codes.std(axis=0)))

    contractive = fitted(digits, regularizer=Contractive(), max_epochs=15)
    assert movement(contractive) < 0.7 * movement(plain)
    assert contractive.score(test) > pca_score(PCA(8).fit(train), test)


def test_estimated_contraction_is_like_the_exact_one(digits):
    scores = [fitted(digits, regularizer=Contractive(n_probes=n), max_epochs=3).score(digits[1]) for n in (0, 4)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def test_variational_codes_are_like_their_prior(digits):
    """Two samples: codes of held-out digits, drawn from their distributions, and the standard normal prior."""
    train, test, *_ = digits
    model = fitted(digits, regularizer=Variational(), max_epochs=60)
    random = np.random.RandomState(0)
    means, std = model.transform(test), transform_std(model, test)

    def drawn():
        return (means + std * random.standard_normal(means.shape)) / model.net_.module_.code_unit.numpy()

    statistics = [ks_2samp(column, random.standard_normal(20_000)) for column in drawn().T]
    assert min(statistic.pvalue for statistic in statistics) > 1e-3
    assert np.abs(np.corrcoef(drawn().T) - np.eye(8)).max() < 0.25

    def told_apart(draw):
        """How well nearest neighbours tell codes from normal ones, over ten draws: one half is not at all."""
        accuracies = []
        for _ in range(10):
            both = np.concatenate([draw(), random.standard_normal(means.shape)])
            labels = np.repeat([0, 1], len(means))
            accuracies.append(cross_val_score(KNeighborsClassifier(15), both, labels, cv=5).mean())
        return np.mean(accuracies)

    others = fitted(digits, ordered=False).transform(test)  # cut codes are nearer to normal, too
    assert told_apart(drawn) < told_apart(lambda: (others - others.mean(axis=0)) / others.std(axis=0))


def test_samples_are_like_digits(digits):
    """New rows are nearer to real digits than rows that PCA's codes, drawn as widely, are decoded to."""
    train, test, *_ = digits
    model = fitted(digits, regularizer="variational")
    rows = sample(model, 300, random_state=0)
    assert rows.shape == (300, 64)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, sample(model, 300, random_state=0))
    pca = PCA(8, whiten=True).fit(train)
    by_pca = pca.inverse_transform(np.random.RandomState(0).standard_normal((300, 8)))

    def distance(new):
        return np.mean(np.sqrt(np.square(new[:, None] - test[None]).sum(axis=2)).min(axis=1))

    assert distance(rows) < distance(by_pca)
    assert rows.std(axis=0).mean() > 0.5 * test.std(axis=0).mean()


def test_transform_of_a_variational_one_is_the_mean_and_deterministic(digits):
    model = fitted(digits, regularizer="variational", max_epochs=3)
    np.testing.assert_array_equal(model.transform(digits[1]), model.transform(digits[1]))
    std = transform_std(model, digits[1])
    assert std.shape == (450, 8)
    assert (std > 0).all()


def test_only_variational_codes_have_a_distribution(digits):
    model = AutoEncoderTransformer(2, max_epochs=0).fit(digits[0])
    with pytest.raises(ValueError, match="regularizer=None, whose codes have no distribution. Fit it with"):
        sample(model)
    with pytest.raises(TypeError, match="must be an AutoEncoderTransformer"):
        sample(PCA())


def test_no_rows_cannot_be_sampled(digits):
    with pytest.raises(ValueError, match="n_samples=0 must be at least 1"):
        sample(fitted(digits, regularizer="variational", max_epochs=1), 0)


def test_a_code_wider_than_the_rows_needs_a_regularizer():
    X = curved_rows()
    with pytest.raises(ValueError, match="a bottleneck wider than the input can copy it"):
        AutoEncoderTransformer(8).fit(X)
    model = AutoEncoderTransformer(8, regularizer="sparse", max_epochs=5, random_state=0).fit(X)
    assert model.transform(X).shape == (60, 8)
    assert model.score(X) > 0.9


def test_the_squared_error_is_the_default(digits):
    models = [AutoEncoderTransformer(4, max_epochs=2, random_state=0, loss=loss) for loss in ("squared_error", square)]
    scores = [model.fit(digits[0]).score(digits[1]) for model in models]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def square(x_hat, x):
    return (x_hat - x).square()


def test_each_loss_is_best_at_its_own_measure(digits):
    test = digits[1]
    models = {loss: fitted(digits, loss=loss) for loss in ("squared_error", "absolute_error", "cosine")}
    measures = {
        "absolute_error": lambda X_hat: np.abs(X_hat - test).mean(),
        "cosine": lambda X_hat: 1 - np.mean(np.diag(cosine_similarity(X_hat, test))),
    }
    for loss, measure in measures.items():
        assert measure(reconstruction(models[loss], test)) < measure(reconstruction(models["squared_error"], test))


def test_probabilities_are_between_zero_and_one(digits):
    X_hat = reconstruction(fitted(digits, loss="binary_cross_entropy", max_epochs=10), digits[1])
    assert X_hat.min() >= 0.0
    assert X_hat.max() <= 1.0


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "poisson"])
def test_before_training_a_reconstruction_is_pcas_within_its_range(loss, digits):
    train, test, *_ = digits
    model = AutoEncoderTransformer(8, loss=loss, max_epochs=0).fit(train)
    expected = reconstruction(PCA(8, svd_solver="full").fit(train), test)
    expected = expected.clip(0, 1 if loss == "binary_cross_entropy" else None)
    np.testing.assert_allclose(reconstruction(model, test), expected, atol=2e-5)
    assert reconstruction(model, test).min() == 0.0


def test_rates_of_counts(digits):
    counts = np.random.RandomState(0).poisson(4 * digits[0]).astype(np.float32)
    model = AutoEncoderTransformer(8, loss="poisson", **LONG).fit(counts)
    rates = reconstruction(model, counts)
    assert (rates > -1e-6).all()
    assert model.score(counts) > pca_score(PCA(8).fit(counts), counts)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", "cosine"])
@pytest.mark.parametrize("early_stopping", [True, False])
def test_the_start_is_the_floor_of_the_loss_that_is_trained(loss, early_stopping):
    X = curved_rows(400, noise=0.05)
    X[:20] *= 8.0  # what a robust loss would rather ignore
    parameters = {"random_state": 0, "early_stopping": early_stopping}
    trained, start = (
        AutoEncoderTransformer(2, loss=loss, max_epochs=n_epochs, **parameters).fit(X) for n_epochs in (20, 0)
    )
    of_trained, of_start = (losses_of(model, X, reconstruction(model, X)).mean() for model in (trained, start))
    assert of_trained <= (1 + 1e-6) * of_start


@pytest.mark.parametrize("loss", ["squared_error", "huber"])
def test_a_regularizer_may_cost_more_than_pca(loss):
    """Asked for sparse codes of what has none, it gives them, though PCA reconstructs better."""
    X = noise_rows(300)
    parameters = {"max_epochs": 60, "hidden_layer_sizes": 64, "random_state": 0}
    model = AutoEncoderTransformer(5, loss=loss, regularizer=Sparse(3.0), **parameters).fit(X)
    assert model.best_epoch_ > 0
    assert model.score(X) < pca_score(PCA(5).fit(X), X)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("binary_cross_entropy", "needs values between 0 and 1, but X ranges from -1.* Scale X"),
        ("poisson", "needs counts of at least 0, but X has values down to -1"),
        (Huber(delta=0.0), "delta must be above 0"),
        (Cosine(length_weight=-1.0), "length_weight must be at least 0"),
        (
            nn.MSELoss(),
            "Return the loss of each value or of each sample as a tensor; torch's losses do so with",
        ),
        (lambda x_hat, x: 3.0, "returned float for samples of shape"),
    ],
)
def test_data_and_results_that_a_loss_cannot_take(loss, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoderTransformer(2, loss=loss, max_epochs=2).fit(curved_rows())


def test_a_loss_class_has_to_be_called():
    with pytest.raises(TypeError, match="got the class L1Loss. Pass an instance"):
        AutoEncoderTransformer(2, loss=nn.L1Loss).fit(curved_rows())


@pytest.mark.parametrize(
    ("regularizer", "message"),
    [
        (Denoising(kind="salt"), "kind must be one of 'gaussian', 'masking', 'swap'"),
        (Denoising(1.5, kind="masking"), "noise is a fraction of values, from 0 to 1"),
        (Denoising(-0.5), r"Denoising\(noise=-0.5\): noise must be at least 0"),
        (Sparse(kind="l2"), "kind must be one of 'l1', 'kl'"),
        (Sparse(target=1.0), "target must be between 0 and 1, both excluded"),
        (Contractive(n_probes=1.5), "n_probes must be 'auto' or an int of at least 0"),
        (Variational(weight=-1), "weight must be at least 0"),
    ],
)
def test_parameters_that_a_regularizer_cannot_take(regularizer, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoderTransformer(2, regularizer=regularizer).fit(curved_rows())


@pytest.mark.parametrize("regularizer", [["sparse", "dropout"], [torch.nn.Dropout()]])
def test_what_is_no_regularizer(regularizer):
    with pytest.raises(TypeError, match="regularizer must be one of 'denoising', 'sparse', 'contractive'"):
        AutoEncoderTransformer(2, regularizer=regularizer).fit(curved_rows())
