"""Every architecture with every loss and every regularizer keeps the same contract."""

import pickle

import numpy as np
import pytest
import torch
from helpers import TwoLayers
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from torch import nn

from skae import (
    AutoEncoderTransformer,
    ColumnLosses,
    Contractive,
    Denoising,
    Huber,
    Sparse,
    Variational,
)

ARCHITECTURES = {
    "dense": {},
    "asymmetric": {"hidden_layer_sizes": (16, 8), "decoder_layer_sizes": 12},
    "linear": {"activation": "identity", "linear_skip": False, "hidden_layer_sizes": []},
    "tied": {"architecture": "tied"},
    "tied, no PCA": {"architecture": "tied", "linear_skip": False},
    "conv": {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (4, 6, 16)},
    "series": {"architecture": "conv", "input_shape": (2, 32), "hidden_layer_sizes": (4, 6, 16)},
    "batch": {"normalization": "batch"},
    "layer, dropout": {"normalization": "layer", "dropout": 0.2},
    "conv, batch, dropout": {
        "architecture": "conv",
        "input_shape": (1, 8, 8),
        "hidden_layer_sizes": (4, 16),
        "normalization": "batch",
        "dropout": 0.1,
    },
    "module": {"module": TwoLayers},
    "module, no PCA": {"module": TwoLayers, "linear_skip": False},
}
LOSSES = {
    name: {"loss": name}
    for name in ("squared_error", "absolute_error", "huber", "binary_cross_entropy", "poisson", "cosine")
} | {
    "torch's": {"loss": nn.SmoothL1Loss(reduction="none")},
    "columns": {
        "loss": ColumnLosses(
            [("pixels", "binary_cross_entropy", slice(0, 20)), ("counts", "poisson", [30, 25, 40])], remainder="huber"
        )
    },
}
REGULARIZERS = {
    "none": {},
    "denoising": {"regularizer": "denoising"},
    "masking": {"regularizer": Denoising(0.2, "masking")},
    "sparse": {"regularizer": "sparse"},
    "contractive": {"regularizer": "contractive"},
    "variational": {"regularizer": "variational"},
    "nested": {"regularizer": "nested"},
    "neighbors": {"regularizer": "neighbors"},
    "supervised": {"regularizer": "supervised"},
    "several": {"regularizer": [Denoising(0.2, "swap"), Sparse(kind="kl"), Contractive(n_probes=1)]},
}
LABELS = load_digits().target[:64]
SMALL = {"n_components": 3, "hidden_layer_sizes": (16, 8), "max_epochs": 2, "random_state": 0, "early_stopping": False}


class Gradients(Callback):
    """Notes which parameters get a gradient, and which of them ever get one that is not zero."""

    def __init__(self, seen):
        self.seen = seen

    def on_grad_computed(self, net, named_parameters, **kwargs):
        for name, parameter in named_parameters:
            moved = parameter.grad is not None and bool((parameter.grad != 0).any())
            self.seen[name] = self.seen.get(name, False) or moved


@pytest.fixture(scope="module")
def images():
    return (load_digits().data[:64] / 16).astype(np.float32)


def build(*parts):
    parameters = dict(SMALL)
    for part in parts:
        parameters |= part
    return AutoEncoderTransformer(**parameters)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
def test_contract_over_architecture_loss_and_regularizer(architecture, loss, regularizer, images):
    seen = {}
    estimator = build(architecture, loss, regularizer).set_params(callbacks=[Gradients(seen)])
    before = torch.random.get_rng_state()
    codes = estimator.fit_transform(images, LABELS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert seen
    assert all(seen.values()), f"no gradient: {[name for name, moved in seen.items() if not moved]}"
    assert codes.shape == (64, 3)
    assert codes.dtype == np.float32
    assert np.isfinite(codes).all()
    reconstruction = estimator.inverse_transform(codes)
    assert reconstruction.shape == images.shape
    assert reconstruction.dtype == np.float32
    assert np.isfinite(reconstruction).all()
    np.testing.assert_array_equal(codes, estimator.transform(images))


EACH = {
    **{f"architecture {name}": parameters for name, parameters in ARCHITECTURES.items()},
    **{f"loss {name}": parameters for name, parameters in LOSSES.items()},
    **{f"regularizer {name}": parameters for name, parameters in REGULARIZERS.items()},
}


@pytest.mark.parametrize("parameters", EACH.values(), ids=EACH)
def test_each_one_is_repeated_pickled_and_searched(parameters, images):
    for early_stopping in (True, False):
        estimator = build(parameters).set_params(early_stopping=early_stopping, batch_size=8).fit(images, LABELS)
        copy = pickle.loads(pickle.dumps(estimator))
        codes = estimator.transform(images)
        np.testing.assert_array_equal(copy.transform(images), codes)
        np.testing.assert_array_equal(clone(estimator).fit(images, LABELS).transform(images), codes)
        np.testing.assert_array_equal(copy.inverse_transform(codes), estimator.inverse_transform(codes))
    search = GridSearchCV(build(parameters), {"n_components": [2, 4]}, cv=2, error_score="raise").fit(images, LABELS)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("parameters", EACH.values(), ids=EACH)
def test_each_one_computes_in_double_precision(parameters, images):
    X = images.astype(np.float64)
    estimator = build(parameters).fit(X, LABELS)
    codes = estimator.transform(X)
    assert codes.dtype == np.float64
    np.testing.assert_allclose(codes[:5], estimator.transform(X[:5]), rtol=1e-9, atol=1e-12)


def test_parameters_of_regularizers_and_losses_are_searched(images):
    grid = {"regularizer__noise": [0.1, 0.5], "loss__delta": [0.5, 2.0]}
    model = build({"regularizer": Denoising(), "loss": Huber()})
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(images)
    assert set(search.best_params_) == set(grid)


@pytest.mark.parametrize("kind", ["identity", "normalization", "dropout"])
def test_threads_do_not_disturb_each_other(kind, images):
    from joblib import Parallel, delayed

    parameters = {"normalization": "batch"} if kind == "normalization" else {"dropout": 0.3 if kind == "dropout" else 0}
    estimator = build(parameters, {"regularizer": [Denoising(), Variational()]})
    alone = estimator.fit(images).transform(images)
    fits = Parallel(4, backend="threading")(delayed(clone(estimator).fit)(images) for _ in range(8))
    for fitted in fits:
        np.testing.assert_array_equal(fitted.transform(images), alone)
