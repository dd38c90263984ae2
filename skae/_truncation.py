"""Fitted autoencoders with their first codes only."""

import copy
from numbers import Integral

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import to_numpy
from skae._training.net import epochs_of, predicting_net
from skae._utils import gradients_on


def truncate(estimator: AutoEncoderTransformer, k: int) -> AutoEncoderTransformer:
    """Return a copy of a fitted autoencoder that has its first k codes only, without training.

    As with the first components of `sklearn.decomposition.PCA`, the other codes are those of the mean. Where the
    network is PCA, the result is PCA with k components.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Fitted autoencoder, which is not changed.
    k : int
        Number of codes to keep, from 1 to ``n_components_``.

    Returns
    -------
    AutoEncoderTransformer
        Fitted autoencoder with ``n_components=k``. Its attributes with an entry for each code have the first k of
        them, ``noise_variance_`` includes the variance of the others, and those of the training are the same.

    Raises
    ------
    ValueError
        If ``k`` is not an integer from 1 to ``n_components_``.
    TypeError
        If ``estimator`` is not an AutoEncoderTransformer.
    NotFittedError
        If ``estimator`` is not fitted.

    See Also
    --------
    Nested : Regularizer that puts more weight on the first codes.

    Notes
    -----
    `AutoEncoderTransformer.transform` finds the nearest point that k codes can reach, so that its codes differ from the
    first k columns of those of ``estimator``, unless the network is PCA. They keep their units, so that with
    ``whiten=True`` their variances are only close to one.

    With ``ordered=True``, the default, training is kept only if the first codes explain at least as much of the
    validation samples as PCA of that size, less .001 of the variance, where the guarantee given there applies. With
    ``ordered=False`` the first codes are as good as any others.

    A clone of the result is fitted from scratch with k codes. With ``warm_start=True``, `AutoEncoderTransformer.fit`
    trains the truncated network further, and so does `AutoEncoderTransformer.partial_fit`, which estimates mean and
    principal components anew, as after `AutoEncoderTransformer.fit`. The other codes of the network stay zero, so that
    an instance passed as ``module`` is used as it is; the clone needs an instance with k codes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, truncate
    >>> X = load_digits().data[:200]
    >>> autoencoder = AutoEncoderTransformer(8, max_epochs=3, random_state=0).fit(X)
    >>> truncate(autoencoder, 2).transform(X).shape
    (200, 2)
    """
    if not isinstance(estimator, AutoEncoderTransformer):
        raise TypeError(
            f"estimator must be an AutoEncoderTransformer, got {estimator!r}. Pass the last step of a pipeline, or "
            "best_estimator_ of a search. The threshold of an outlier detector is that of all codes: fit another one "
            "with fewer."
        )
    check_is_fitted(estimator)
    if not isinstance(k, Integral) or isinstance(k, bool) or not 1 <= k <= estimator.n_components_:
        raise ValueError(
            f"k={k!r} must be an integer from 1 to n_components_={estimator.n_components_}. Choose one of these, or "
            "fit with a larger n_components."
        )
    short, k = copy.deepcopy(estimator), int(k)
    with gradients_on():
        module = copy.deepcopy(short.net_.module_.truncated(k))
        module.keep_double()
        short.net_ = predicting_net(module, epochs_of(short.net_))
    n_directions = min(short.n_samples_, short.n_features_in_)
    left = short.noise_variance_ * (n_directions - short.n_components_)
    left += float(to_numpy(short.explained_variance_)[k:].sum(dtype=np.float64))
    short.noise_variance_ = max(left, 0.0) / max(n_directions - k, 1)
    for name in ("components_", "explained_variance_", "explained_variance_ratio_"):
        setattr(short, name, getattr(short, name)[:k])
    for name in ("_stream", "n_samples_seen_"):
        vars(short).pop(name, None)
    short.n_components = short.n_components_ = k
    return short
