"""Samples as they are drawn, and their reconstructions by a fitted autoencoder and by PCA."""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import to_numpy
from skae._data.dataset import apply_in_batches
from skae._data.validation import validated_samples
from skae._inspection import autoencoder_of as autoencoder_of
from skae._inspection import feature_names_of
from skae._inspection import parts as parts


def dense(samples: Any) -> NDArray:
    """Convert samples in any container to a dense floating-point array."""
    array = np.asarray(samples.toarray() if scipy.sparse.issparse(samples) else samples)
    return array if array.dtype.kind == "f" else array.astype(float)


def first_samples(X: Any, n_samples: int) -> Any:
    """Return the first samples of X, in the container of X."""
    return _safe_indexing(X, np.arange(min(n_samples, _num_samples(X))))


def drawn_samples(before: Pipeline, X: Any, inputs: Any, n_samples: int) -> tuple[NDArray, bool]:
    """Select the first samples in the units in which images are drawn.

    Parameters
    ----------
    before : Pipeline
        Steps before the autoencoder.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        The samples.
    inputs : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        The samples transformed by the steps.
    n_samples : int
        Number of samples to select.

    Returns
    -------
    samples : ndarray of shape (n_samples, n_features)
        The samples in the units of X if ``invertible``, otherwise in those of the input of the autoencoder.
    invertible : bool
        Whether X is numeric and the steps have an inverse transform.
    """
    first = first_samples(X, n_samples)
    dtype = first.dtype if scipy.sparse.issparse(first) else np.asarray(first).dtype
    invertible = hasattr(before, "inverse_transform") and dtype.kind in "biuf"
    return dense(first if invertible else first_samples(inputs, n_samples)), invertible


def feature_names(estimator: Any, names: Any, n_features: int) -> Any:
    """Return names of features, by default those of the fitted estimator, or None if it has none.

    Raises
    ------
    ValueError
        If there is not one name for each feature.
    """
    names = feature_names_of(estimator) if names is None else names
    if names is not None and len(names) != n_features:
        raise ValueError(
            f"feature_names has {len(names)} names, but there are {n_features} features. Pass one for each feature."
        )
    return names


def reconstructed(autoencoder: AutoEncoderTransformer, X: Any) -> NDArray:
    """Return the reconstruction of X as an array, for any output container of the estimator."""
    return np.asarray(autoencoder.inverse_transform(np.asarray(autoencoder.transform(X))))


def pca_baseline(autoencoder: AutoEncoderTransformer, n_components: Any) -> AutoEncoderTransformer:
    """Create an estimator that computes PCA and accepts the same input as the autoencoder."""
    return AutoEncoderTransformer(n_components, activation="identity", max_epochs=0, allow_nan=autoencoder.allow_nan)


def has_pca(autoencoder: AutoEncoderTransformer) -> bool:
    """Return whether the network contains the PCA from which it was initialized."""
    return autoencoder.net_.module_.architecture.linear_skip


def initial_pca(autoencoder: AutoEncoderTransformer, X: Any, n_samples: int) -> tuple[NDArray, float]:
    """Apply the PCA from which the network was initialized.

    Parameters
    ----------
    autoencoder : AutoEncoderTransformer
        Fitted autoencoder.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        Input of the autoencoder.
    n_samples : int
        Number of samples to reconstruct.

    Returns
    -------
    X_hat : ndarray of shape (n_samples, n_features)
        Reconstructions of the first samples.
    score : float
        Explained variance ratio of all samples, as returned by `AutoEncoderTransformer.score`.
    """
    module, X = autoencoder.net_.module_, to_numpy(validated_samples(autoencoder, X, "transform"))

    def reconstruct(x: torch.Tensor) -> torch.Tensor:
        codes = module.standardized(x) @ module.network.pca_encoding.T
        codes = codes if module.filling is None else module.shrunk(codes, x, module.pca_shrinkage)
        return torch.addcmul(module.mean, codes @ module.network.pca_decoding, module.scale)

    def squares(x: torch.Tensor) -> torch.Tensor:
        differences = torch.stack([reconstruct(x) - x, x - module.training_mean])
        return differences.masked_fill_(x.isnan(), 0.0).cpu().double().square().sum(dim=2).T

    X_hat = apply_in_batches(reconstruct, X[:n_samples], X.shape[1], module.mean, X.dtype)
    errors, offsets = apply_in_batches(squares, X, 2, module.mean, np.float64).sum(axis=0)
    return X_hat, float(1.0 - errors / offsets) if offsets > 0 else float(errors == 0)
