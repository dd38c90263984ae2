"""Samples drawn from a variational autoencoder, and standard deviations of its codes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import to_numpy
from skae._data.dataset import apply_in_batches
from skae._data.validation import validated_samples


def sample(estimator: AutoEncoderTransformer, n_samples: int = 1, random_state: Any = None) -> NDArray:
    """Draw new samples from a variational autoencoder.

    Codes are drawn from the standard normal distribution and decoded. The regularizer makes the distribution of the
    codes similar to the standard normal distribution.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Autoencoder fitted with ``regularizer="variational"``.
    n_samples : int, default=1
        Number of samples to draw.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of the random codes. Pass an int for reproducible samples.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        New samples: the reconstructions of the codes, in the units and the dtype of the training samples.

    Raises
    ------
    ValueError
        If the autoencoder is not variational, or ``n_samples`` is less than 1.
    TypeError
        If ``estimator`` is not an AutoEncoderTransformer.
    NotFittedError
        If ``estimator`` is not fitted.

    See Also
    --------
    Variational : Regularizer of variational autoencoders.
    transform_std : Standard deviations of codes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, sample
    >>> X = load_digits().data[:200]
    >>> autoencoder = AutoEncoderTransformer(4, regularizer="variational", max_epochs=3, random_state=0).fit(X)
    >>> sample(autoencoder, 2, random_state=0).shape
    (2, 64)
    """
    module = _variational_module(estimator)
    if n_samples < 1:
        raise ValueError(f"n_samples={n_samples} must be at least 1.")
    codes = check_random_state(random_state).standard_normal((n_samples, estimator.n_components_))
    dtype = np.float64 if module.mean.dtype == torch.float64 else np.float32
    return apply_in_batches(module.decode_unit, codes, estimator.n_features_in_, module.mean, dtype)


def transform_std(estimator: AutoEncoderTransformer, X: Any) -> NDArray:
    """Compute the standard deviation of each code of each sample.

    A variational encoder maps a sample to a normal distribution of codes, whose mean is returned by
    `AutoEncoderTransformer.transform`.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Autoencoder fitted with ``regularizer="variational"``.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        Samples in the units of the training samples.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        Standard deviations in the units of the codes.

    Raises
    ------
    ValueError
        If the autoencoder is not variational, or X does not have the features of the training samples.
    TypeError
        If ``estimator`` is not an AutoEncoderTransformer.
    NotFittedError
        If ``estimator`` is not fitted.

    See Also
    --------
    Variational : Regularizer of variational autoencoders.
    sample : Draw new samples.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, transform_std
    >>> X = load_digits().data[:200]
    >>> autoencoder = AutoEncoderTransformer(4, regularizer="variational", max_epochs=3, random_state=0).fit(X)
    >>> transform_std(autoencoder, X).shape
    (200, 4)
    """
    module = _variational_module(estimator)
    X = to_numpy(validated_samples(estimator, X, "transform_std"))
    return np.exp(0.5 * apply_in_batches(module.log_variance, X, estimator.n_components_, module.mean, X.dtype))


def _variational_module(estimator: Any) -> Any:
    """Return the network of a fitted variational autoencoder."""
    if not isinstance(estimator, AutoEncoderTransformer):
        raise TypeError(f"estimator must be an AutoEncoderTransformer, got {estimator!r}.")
    check_is_fitted(estimator)
    module = estimator.net_.module_
    if not module.architecture.variational:
        raise ValueError(
            f"{type(estimator).__name__} was fitted with regularizer={estimator.regularizer!r}, whose codes have no "
            "distribution. Fit it with regularizer='variational'."
        )
    return module
