"""scikit-learn's own checks, over many configurations; nothing is expected to fail."""

import numpy as np
import pytest
import torch
from helpers import SMALL
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from skae import AutoEncoderTransformer, Contractive, Huber, Sparse

CONFIGURATIONS = {
    "defaults": {"max_epochs": 3},
    "linear": {"activation": "identity"},
    "no_early_stopping": {"early_stopping": False, **SMALL},
    "no_refit": {"max_epochs": 3, "hidden_layer_sizes": 8, "validation_fraction": 0.3},
    "no_skip": {"linear_skip": False, "max_epochs": 3, "hidden_layer_sizes": 16},
    "lbfgs": {"optimizer": "lbfgs", "max_epochs": 1, "hidden_layer_sizes": 8, "early_stopping": False},
    "whiten": {"whiten": True, **SMALL, "n_components": 1},
    "tied": {"architecture": "tied", **SMALL},
    "normalised": {"normalization": "batch", "dropout": 0.1, **SMALL},
    "variational": {"regularizer": "variational", **SMALL},
    "counts": {"loss": "poisson", "regularizer": "denoising", **SMALL},
    "several": {"loss": Huber(), "regularizer": [Sparse(), Contractive()], "max_epochs": 1, "hidden_layer_sizes": 8},
    "missing": {"allow_nan": True, **SMALL},
    "neighbors": {"regularizer": "neighbors", **SMALL},
    "supervised": {"regularizer": "supervised", **SMALL},
}
# These take the same paths through scikit-learn's checks as others do; the contract below is tested for all.
ONLY_IN_CONTRACT = {
    "asymmetric": {"hidden_layer_sizes": (16, 8), "decoder_layer_sizes": 12, "max_epochs": 2, "n_components": 1},
    "no_skip_linear": {"linear_skip": False, "activation": "identity", "hidden_layer_sizes": [], "max_epochs": 2},
    "deep_and_narrow": {"hidden_layer_sizes": (6, 5, 4, 3, 3, 2), "max_epochs": 1, "activation": "tanh"},
    "sgd": {"optimizer": "sgd", "alpha": 1e-3, **SMALL, "activation": "relu"},
    "lbfgs_searched": {"optimizer": "lbfgs", **SMALL},
    "adamw": {"optimizer": "adamw", "alpha": 1e-2, **SMALL, "activation": "silu"},
    "torch_class": {"optimizer": torch.optim.RMSprop, "lr": 1e-3, **SMALL},
    "small_batches": {"batch_size": 7, **SMALL, "device": "auto"},
    "elu": {"activation": "elu", **SMALL, "whiten": True},
    "logistic": {"activation": "logistic", **SMALL, "linear_skip": False},
}
EVERYTHING = CONFIGURATIONS | ONLY_IN_CONTRACT
# What scikit-learn runs on its own transformers, but `check_estimator` leaves out.
BESIDES = (
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_set_output_transform_polars",
    "check_global_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_get_feature_names_out_error",
    "check_dataframe_column_names_consistency",
    "check_inplace_ensure_writeable",
    "check_param_validation",
)


# Before 1.9 scikit-learn hands pytest a generator, about which pytest warns.
all_checks = parametrize_with_checks([AutoEncoderTransformer(**parameters) for parameters in CONFIGURATIONS.values()])


@pytest.mark.parametrize(all_checks.args[0], list(all_checks.args[1]), **all_checks.kwargs)
def test_sklearn_compatible_estimator(estimator, check):
    if getattr(check, "keywords", {}).get("device") == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU, which scikit-learn 1.7 overlooks where torch is built for one")
    check(estimator)


# The checks themselves mix arrays and DataFrames between `fit` and `transform`, and get scikit-learn's usual warning.
@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names:UserWarning")
@pytest.mark.parametrize("check", BESIDES)
@pytest.mark.parametrize("name", ["defaults", "linear", "no_skip"])
def test_sklearn_checks_of_its_own_transformers(name, check):
    pytest.importorskip("pandas" if "pandas" in check else "polars" if "polars" in check else "numpy")
    estimator = AutoEncoderTransformer(**CONFIGURATIONS[name])
    getattr(estimator_checks, check)(type(estimator).__name__, estimator)


def test_nothing_is_said_to_be_non_deterministic():
    tags = AutoEncoderTransformer().__sklearn_tags__()
    assert not tags.non_deterministic
    assert not tags._skip_test
    assert tags.transformer_tags.preserves_dtype == ["float64", "float32"]


@pytest.mark.parametrize("parameters", EVERYTHING.values(), ids=EVERYTHING)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_contract_over_configurations(parameters, dtype, curved):
    """Shapes, dtypes, finite values and agreement of the methods with one another."""
    X = (np.abs(curved) if parameters.get("loss") == "poisson" else curved).astype(dtype)
    y = X[:, 0] > np.median(X[:, 0])
    estimator = AutoEncoderTransformer(**{"random_state": 0, **parameters})
    codes = estimator.fit_transform(X, y)
    n_components = estimator.n_components
    assert codes.shape == (len(X), n_components)
    assert codes.dtype == dtype
    reconstruction = estimator.inverse_transform(codes)
    assert reconstruction.shape == X.shape
    assert reconstruction.dtype == dtype
    assert np.isfinite(codes).all()
    assert np.isfinite(reconstruction).all()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-9, "atol": 1e-10}
    np.testing.assert_array_equal(codes, estimator.transform(X))
    np.testing.assert_array_equal(codes, clone(estimator).fit(X, y).transform(X))
    errors = np.square(reconstruction.astype(np.float64) - X).mean(axis=1)
    np.testing.assert_allclose(-estimator.score_samples(X), errors, **tolerance)
    offsets = np.square(X - estimator.mean_.astype(np.float64)).mean(axis=1)
    assert estimator.score(X) == pytest.approx(1.0 - errors.sum() / offsets.sum(), rel=1e-4, abs=1e-5)
