"""The code of a sample is that of the nearest point of the decoder's manifold, by the loss that was trained."""

import copy
import functools
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers import curved_rows, losses_of, noise_rows
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA

from skae import AutoEncoderTransformer, Sparse

TRAINED = {"hidden_layer_sizes": 16, "max_epochs": 30, "batch_size": 32, "early_stopping": False, "random_state": 0}


def wide_rows(n_samples=240, seed=0):
    """Samples of twelve features, functions of four hidden variables."""
    random = np.random.RandomState(seed)
    hidden = random.uniform(-1.0, 1.0, (n_samples, 4))
    mixing = np.random.RandomState(100).standard_normal((2, 4, 12))
    return hidden @ mixing[0] + np.sin(2 * hidden @ mixing[1]) + 0.05 * random.standard_normal((n_samples, 12))


def images(n_samples=240, seed=0):
    """Soft spots in images of eight by eight pixels."""
    y, x = np.mgrid[:8, :8]
    centers = np.random.RandomState(seed).uniform(0, 7, (n_samples, 2, 1, 1))
    return np.exp(-(np.square(y - centers[:, 0]) + np.square(x - centers[:, 1])) / 8).reshape(n_samples, -1)


def counts(n_samples=240, seed=0):
    """Counts whose rates lie on a bent surface."""
    return np.random.RandomState(seed).poisson(20 * np.exp(curved_rows(n_samples, seed))).astype(float)


# Parameters, samples that train, and others.
FITS = {
    "dense": ({"n_components": 2}, curved_rows(240), curved_rows(90, seed=1)),
    "four codes": ({"n_components": 4}, wide_rows(), wide_rows(90, seed=1)),
    "tied": ({"n_components": 2, "architecture": "tied"}, curved_rows(240), curved_rows(90, seed=1)),
    "conv": (
        {"n_components": 2, "architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (4, 16)},
        images(),
        images(90, seed=1),
    ),
    "poisson": ({"n_components": 2, "loss": "poisson"}, counts(), counts(90, seed=1)),
    "absolute error": ({"n_components": 2, "loss": "absolute_error"}, curved_rows(240), curved_rows(90, seed=1)),
    "cosine": ({"n_components": 4, "loss": "cosine"}, wide_rows(), wide_rows(90, seed=1)),
    "sparse": ({"n_components": 4, "regularizer": Sparse(0.1)}, wide_rows(), wide_rows(90, seed=1)),
}


@functools.cache
def trained(name, dtype=np.float64):
    """The estimator of this name."""
    parameters, X, _ = FITS[name]
    return AutoEncoderTransformer(**{**TRAINED, **parameters}).fit(X.astype(dtype))


@pytest.fixture(scope="module", params=FITS)
def fit(request):
    """Name of a fit, the fitted estimator and samples that it has not seen, some of them far outside."""
    _, X, fresh = FITS[request.param]
    estimator = trained(request.param)
    assert np.abs(estimator.transform(X) - PCA(estimator.n_components).fit_transform(X)).max() > 1e-3  # PCA was left
    far = X.mean(axis=0) + 5 * (fresh[:10] - X.mean(axis=0)) if request.param != "poisson" else 5 * fresh[:10]
    return request.param, estimator, np.vstack([fresh, far])


def encoder_codes(estimator, X):
    """Codes of the encoder alone."""
    module = estimator.net_.module_
    return module.encode(torch.as_tensor(X, dtype=module.mean.dtype)).detach().numpy()


def pca_codes(estimator, X):
    """PCA's codes, in the units of the estimator's."""
    module = estimator.net_.module_
    with torch.no_grad():
        z = (torch.as_tensor(X) - module.mean) / module.scale @ module.network.pca_encoding.T * module.code_unit
    return z.numpy()


def minimized(estimator, X, codes):
    """What the projection minimizes: the loss of each sample, and what a regularizer adds for its code."""
    module = estimator.net_.module_
    with torch.no_grad():
        penalties = module.code_penalties(torch.as_tensor(codes) / module.code_unit).numpy()
    return losses_of(estimator, X, estimator.inverse_transform(codes)) / float(module.loss_unit) + penalties


@pytest.mark.parametrize("codes", [encoder_codes, pca_codes])
def test_no_sample_has_a_larger_loss_than_by_a_code_that_was_guessed(fit, codes):
    _, estimator, X = fit
    by_projection, by_guess = (minimized(estimator, X, one) for one in (estimator.transform(X), codes(estimator, X)))
    assert (by_projection <= by_guess * (1 + 1e-9) + 1e-12).all()
    assert by_projection.mean() < by_guess.mean()


@pytest.mark.parametrize("n_components", [1, 2])
def test_the_nearest_fold_is_found(n_components):
    """With few codes, no sample has a larger error than by the code of any training sample.

    The samples lie on a manifold that is folded so much that the encoder chooses the wrong fold for some.
    """
    random, directions = np.random.RandomState(0), np.random.RandomState(100).standard_normal((4, 12))
    X, fresh = (np.sin(8 * random.uniform(-1.0, 1.0, (n_samples, 4)) @ directions) for n_samples in (240, 90))
    estimator = AutoEncoderTransformer(n_components, **TRAINED).fit(X)
    points = estimator.inverse_transform(encoder_codes(estimator, X))
    nearest = np.square(fresh[:, np.newaxis] - points).mean(axis=2).min(axis=1)
    assert (-estimator.score_samples(fresh) <= nearest * (1 + 1e-6)).all()  # rounding of the training samples


def test_more_steps_come_nearer(fit):
    """Each step only lowers the loss of a sample, so that no number of steps is worse than a smaller one."""
    _, estimator, X = fit
    module = copy.deepcopy(estimator.net_.module_)
    losses = []
    for n_steps in (1, 4, 16):
        module.projection = replace(module.projection, n_steps=n_steps)
        losses.append(minimized(estimator, X, module.project(torch.as_tensor(X)).numpy()))
    assert (np.diff(losses, axis=0) <= 1e-9 * losses[0] + 1e-12).all()
    assert losses[2].mean() < losses[0].mean()


@pytest.mark.parametrize("fit", [name for name in FITS if name != "sparse"], indirect=True)
def test_a_reconstruction_is_reconstructed(fit):
    """Not where a penalty of the codes moves points of the manifold, too."""
    name, estimator, X = fit
    X = X[:90]  # far outside, sixteen steps may not reach the nearest point
    reconstruction = estimator.inverse_transform(estimator.transform(X))
    again = estimator.inverse_transform(estimator.transform(reconstruction))
    variance = np.square(X - X.mean(axis=0)).mean()
    tolerance = 2e-4 if name == "absolute error" else 1e-8  # gradients of its size up to the minimum
    assert np.square(again - reconstruction).mean() < tolerance * variance


@pytest.mark.parametrize("fit", ["four codes"], indirect=True)
def test_codes_come_back(fit):
    """Two codes of a surface that is bent much may have a point in common."""
    _, estimator, X = fit
    codes = estimator.transform(X)
    again = estimator.transform(estimator.inverse_transform(codes))
    assert np.median(np.abs(again - codes) / codes.std(axis=0)) < 1e-3


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 1e-6), (np.float64, 1e-9)])
@pytest.mark.parametrize(
    "others",
    [
        lambda transform, X: np.vstack([transform(sample[np.newaxis]) for sample in X]),
        lambda transform, X: np.vstack([transform(part) for part in np.array_split(X, 7)]),
        lambda transform, X: transform(X[::-1])[::-1],
        lambda transform, X: transform(np.repeat(X, 30, axis=0))[::30],
        lambda transform, X: transform(np.asfortranarray(X)),
        lambda transform, X: transform(scipy.sparse.csr_array(X)),
    ],
    ids=["one by one", "parts", "reversed", "many", "in another order in memory", "sparse matrix"],
)
def test_codes_are_those_of_the_sample_alone(fit, others, dtype, rtol):
    name, _, X = fit
    estimator = trained(name, dtype)
    X = X.astype(dtype)
    codes = estimator.transform(X)
    assert codes.dtype == dtype
    assert_allclose(others(estimator.transform, X), codes, rtol=0, atol=rtol * np.abs(codes).max())


def test_without_steps_codes_are_those_of_the_encoder(fit):
    name, estimator, X = fit
    parameters, X_train, _ = FITS[name]
    alone = AutoEncoderTransformer(**{**TRAINED, **parameters}, projection_steps=0).fit(X_train)
    assert_allclose(alone.transform(X), encoder_codes(alone, X), rtol=1e-9, atol=1e-12)
    # Training is the same; the units of the codes are measured at the codes that transform returns.
    codes = [encoder_codes(one, X) / one.net_.module_.code_unit.numpy() for one in (alone, estimator)]
    assert_allclose(codes[0], codes[1], rtol=1e-6, atol=1e-9)
    assert np.abs(estimator.transform(X) - alone.transform(X)).max() > 1e-3


@pytest.mark.parametrize("parameters", [{"max_epochs": 0}, {"activation": "identity"}, {}], ids=str)
def test_where_pca_is_kept_codes_are_those_of_pca(parameters):
    """Noise leaves nothing to learn."""
    X = noise_rows()
    estimator = AutoEncoderTransformer(2, random_state=0, **{"hidden_layer_sizes": 8, **parameters}).fit(X)
    assert estimator.best_epoch_ == 0
    codes, others = PCA(2).fit_transform(X), noise_rows(seed=1)
    assert_allclose(np.abs(estimator.transform(X)), np.abs(codes), atol=1e-10)
    assert_array_equal(estimator.transform(others), encoder_codes(estimator, others))
    assert_allclose(estimator.transform(others), pca_codes(estimator, others), atol=1e-12)


def test_codes_of_a_variational_autoencoder_are_those_of_the_encoder():
    X = curved_rows(240)
    estimator = AutoEncoderTransformer(2, **TRAINED, regularizer="variational").fit(X)
    assert estimator.score(X) > 0
    assert_allclose(estimator.transform(X), encoder_codes(estimator, X), rtol=1e-9)
