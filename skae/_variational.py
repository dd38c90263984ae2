"""Draw samples from a variational autoencoder, and return the standard deviation of its codes."""

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import to_numpy
from skae._data.dataset import apply_in_batches
from skae._data.validation import validated_samples


def sample(estimator, n_samples=1, random_state=None):
    """Draw new samples from a variational autoencoder.

    Codes are drawn from the standard normal distribution, which training has made them look like, and decoded.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Fitted with ``regularizer="variational"``.
    n_samples : int, default=1
        Number of samples.
    random_state : int, RandomState instance or None, default=None
        Draws the codes.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        Means of new samples, in the units and the dtype of the training samples.

    Raises
    ------
    ValueError
        If the autoencoder is not variational, or ``n_samples`` is below one.
    TypeError
        If ``estimator`` is no AutoEncoderTransformer.

    See Also
    --------
    Variational : The regularizer.
    transform_std : The spread of codes.

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


def transform_std(estimator, X):
    """Return the standard deviation of each code of each sample.

    `AutoEncoderTransformer.transform` returns the mean.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Fitted with ``regularizer="variational"``.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        Samples in the units of the training samples.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        In the units of the codes.

    Raises
    ------
    ValueError
        If the autoencoder is not variational, or X does not have its features.
    TypeError
        If ``estimator`` is no AutoEncoderTransformer.

    See Also
    --------
    Variational : The regularizer.
    sample : New samples.

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


def _variational_module(estimator):
    """The network of a fitted variational autoencoder."""
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
