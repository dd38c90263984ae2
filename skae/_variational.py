"""Samples drawn from a variational autoencoder."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._data.dataset import apply_in_batches


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
    transform_std : Standard deviations of the codes of samples.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, sample
    >>> X = load_digits().data[:200]
    >>> autoencoder = AutoEncoderTransformer(4, regularizer="variational", max_epochs=3, random_state=0).fit(X)
    >>> sample(autoencoder, 2, random_state=0).shape
    (2, 64)
    """
    if not isinstance(estimator, AutoEncoderTransformer):
        raise TypeError(f"estimator must be an AutoEncoderTransformer, got {estimator!r}.")
    check_is_fitted(estimator)
    module = estimator.net_.module_
    if not module.architecture.variational:
        raise ValueError(
            f"{type(estimator).__name__} was fitted with regularizer={estimator.regularizer!r}, whose codes have no "
            "distribution. Fit it with regularizer='variational'."
        )
    if n_samples < 1:
        raise ValueError(f"n_samples={n_samples} must be at least 1.")
    codes = check_random_state(random_state).standard_normal((n_samples, estimator.n_components_))
    dtype = np.float64 if module.mean.dtype == torch.float64 else np.float32
    return apply_in_batches(module.decode_unit, codes, estimator.n_features_in_, module.mean, dtype)
