"""What drives the codes and how exact they are: loadings, contributions of the features, standard deviations."""

import contextlib
import importlib.util
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.validation import check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import asarray_like, to_numpy
from skae._data.dataset import apply_in_batches
from skae._data.validation import validated_samples
from skae._network.projection import average_jacobian, decoder_jacobians


def loadings(estimator: Any, X: Any = None) -> Any:
    """Compute how the reconstruction depends on each code, as the ``components_`` of PCA do.

    The loadings are the Jacobian of the decoder, averaged over codes: the change of each feature of the reconstruction
    per unit of each code. Without X they are ``components_`` of the autoencoder, in a table with the names of the
    features. If the autoencoder is linear, they are those of PCA.

    Parameters
    ----------
    estimator : AutoEncoderTransformer or Pipeline
        Fitted autoencoder, or fitted pipeline whose last step is an autoencoder. Features are those of the input of the
        autoencoder.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features), default=None
        Samples in the units of the training samples, over whose codes the Jacobian is averaged. None returns
        ``components_``: the average over up to 256 training samples, for codes in the units of X even if
        ``whiten=True``.

    Returns
    -------
    DataFrame or ndarray of shape (n_components, n_features)
        The loadings. A DataFrame if the features have names and pandas is installed: its rows are the codes by the
        names of ``get_feature_names_out``, its columns the features. Otherwise, an array in the dtype of the training
        samples.

    Raises
    ------
    ValueError
        If X does not have the features of the estimator.
    TypeError
        If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    NotFittedError
        If the autoencoder is not fitted.

    See Also
    --------
    LatentLoadingsDisplay : Plot of the loadings, also per standard deviation or as root mean squares.
    attributions : Contributions of the features to the codes of single samples.

    Notes
    -----
    The average describes an effect that is similar for all samples. Effects with different signs for different samples
    cancel; ``LatentLoadingsDisplay`` with ``average="rms"`` shows whether they do.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AutoEncoderTransformer, loadings
    >>> X = load_diabetes(as_frame=True).data
    >>> autoencoder = AutoEncoderTransformer(2, max_epochs=0).fit(X)
    >>> loadings(autoencoder).round(2)[["age", "bmi", "s1"]]
                              age   bmi    s1
    autoencodertransformer0  0.22  0.30  0.34
    autoencodertransformer1  0.04 -0.16  0.57
    """
    before, autoencoder = parts(estimator)
    if X is None:
        table = to_numpy(autoencoder.components_).copy()
    else:
        codes = codes_of(autoencoder, validated_samples(autoencoder, before.transform(X), "transform"))
        table = decoder_loadings(autoencoder, codes).T.to(autoencoder.net_.module_.mean.dtype).cpu().numpy()
    names = feature_names_of(estimator)
    if names is None or importlib.util.find_spec("pandas") is None:
        return table
    import pandas as pd

    return pd.DataFrame(table, index=autoencoder.get_feature_names_out(), columns=names)


def attributions(estimator: Any, X: Any) -> Any:
    """Compute the contribution of each feature to each code of each sample.

    The contribution of feature j to code c is ``(dz_c / dx_j) * (x_j - mean_j)``: the derivative of the code by the
    feature at the sample, times the deviation of the feature from ``mean_``. If the autoencoder is linear, the
    derivatives are the ``components_`` of PCA, and the contributions to a code sum to the code.

    Parameters
    ----------
    estimator : AutoEncoderTransformer or Pipeline
        Fitted autoencoder, or fitted pipeline whose last step is an autoencoder. Features are those of the input of the
        autoencoder.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        Samples in the units of the training samples.

    Returns
    -------
    ndarray of shape (n_samples, n_components, n_features)
        The contributions, in the units of the codes and the dtype of X. They are zero where a value is missing, whose
        imputed value comes from the other features.

    Raises
    ------
    ValueError
        If X does not have the features of the estimator.
    TypeError
        If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    NotFittedError
        If the autoencoder is not fitted.

    See Also
    --------
    AttributionDisplay : Plot of the contributions.
    loadings : Average effects of the codes on the features.
    AutoEncoderOutlierDetector.reconstruction_errors : Error of each feature of each sample.

    Notes
    -----
    The code of a sample is that of the nearest point of the decoder's manifold, so that its derivative follows from the
    decoder alone, by the implicit function theorem. With the Gauss-Newton matrix in place of the second derivatives of
    the squared error, it is ``(J^T J)^-1 J^T``, where J is the Jacobian of the decoder at the code: the deviation is
    projected onto the tangent plane of the manifold. Values that are missing are left out of J, and the precision of
    the prior on the codes is added to ``J^T J``.

    For a sample on the manifold, this is the derivative of ``transform``. For held-out digits, which are far from it,
    the contributions differ from those by finite differences of ``transform``, relative to their norm and in the median
    over the samples, by 0.2 with 16 codes, 0.3 with 8, 0.4 with 4 and 0.5 with 2. The same formula is used with all
    losses, and the penalties of regularizers are left out. With losses that are not similar to a squared error, such as
    "absolute_error" and "poisson", ``transform`` has steeper derivatives.

    Where ``transform`` does not project, as with ``projection_steps=0`` or a variational autoencoder, the derivative is
    that of the encoder.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skae import AutoEncoderTransformer, attributions
    >>> X = load_diabetes(as_frame=True).data
    >>> autoencoder = AutoEncoderTransformer(2, max_epochs=5, random_state=0).fit(X)
    >>> contributions = attributions(autoencoder, X[:20])
    >>> contributions.shape
    (20, 2, 10)
    >>> X.columns[contributions[0, 0].argmax()]
    'bmi'
    """
    before, autoencoder = parts(estimator)
    samples = validated_samples(autoencoder, before.transform(X), "transform")
    shape = autoencoder.n_components_, autoencoder.n_features_in_
    flat = autoencoder._map(to_numpy(samples), "contributions", shape[0] * shape[1])
    return asarray_like(flat.reshape(-1, *shape), samples)


def transform_std(estimator: Any, X: Any) -> Any:
    """Compute the standard deviation of each code of each sample.

    The codes that `AutoEncoderTransformer.transform` returns are estimates: noise in a sample moves them. A variational
    encoder maps a sample to a normal distribution of codes, whose standard deviations are returned. For all other
    autoencoders, the standard deviations are those of a nonlinear least-squares estimate.

    Parameters
    ----------
    estimator : AutoEncoderTransformer or Pipeline
        Fitted autoencoder, or fitted pipeline whose last step is an autoencoder.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        Samples in the units of the training samples.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        Standard deviations in the units of the codes and the dtype of X. They are infinite for codes on which the
        reconstruction does not depend.

    Raises
    ------
    ValueError
        If X does not have the features of the estimator.
    TypeError
        If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    NotFittedError
        If the autoencoder is not fitted.

    See Also
    --------
    AutoEncoderTransformer.transform : The codes.
    sample : Draw new samples from a variational autoencoder.
    sklearn.gaussian_process.GaussianProcessRegressor.predict : Standard deviations of predictions.

    Notes
    -----
    The code of a sample minimizes the squared error of the reconstruction, so that its covariance is
    ``noise_variance_ * (J^T J)^-1``, where J is the Jacobian of the decoder at the code [1]_. Noise is assumed to be
    the same and independent in all features. Values that are missing are left out of J, and the precision of the prior
    on the codes is added to ``J^T J``, so that codes are less certain the more values are missing. Where ``transform``
    does not project, as with ``projection_steps=0``, derivatives of the encoder are used.

    The standard deviations describe by how much the code of another measurement of the same sample would differ. They
    do not describe how well the manifold is known: on other training samples, another one would have been learned. With
    losses other than the squared error they are approximate.

    References
    ----------
    .. [1] G. A. F. Seber, C. J. Wild, "Nonlinear regression", Wiley 1989. :doi:`10.1002/0471725315`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, transform_std
    >>> X = load_digits().data
    >>> autoencoder = AutoEncoderTransformer(4, max_epochs=3, random_state=0).fit(X[:500])
    >>> transform_std(autoencoder, X[500:]).shape
    (1297, 4)
    """
    before, autoencoder = parts(estimator)
    samples = validated_samples(autoencoder, before.transform(X), "transform_std")
    rows, width, module = to_numpy(samples), autoencoder.n_components_, autoencoder.net_.module_
    if module.architecture.variational:
        std = np.exp(0.5 * apply_in_batches(module.log_variance, rows, width, module.mean, rows.dtype))
    else:
        std = autoencoder._map(rows, "code_std", width)
        std = np.where(std > 0, std * np.sqrt(autoencoder.noise_variance_), np.inf).astype(rows.dtype)
    return asarray_like(std, samples)


def codes_of(autoencoder: AutoEncoderTransformer, samples: Any) -> torch.Tensor:
    """Return the codes of validated samples, in the precision and on the device in which they are differentiated."""
    codes = to_numpy(autoencoder._map(samples, "project", autoencoder.n_components_))
    return torch.from_numpy(codes).to(autoencoder.net_.module_.in_double().mean)


def decoder_loadings(autoencoder: AutoEncoderTransformer, codes: torch.Tensor, signed: bool = True) -> torch.Tensor:
    """Average the decoder's Jacobian over codes, of shape (n_features, n_components), as `average_jacobian` does."""
    decode = autoencoder.net_.module_.in_double().decode
    return average_jacobian(decoder_jacobians, decode, codes, autoencoder.n_features_in_, signed)


def autoencoder_of(estimator: Any) -> AutoEncoderTransformer:
    """Return the autoencoder, which is the estimator itself or the last step of a pipeline.

    Raises
    ------
    TypeError
        If the estimator is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    """
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, AutoEncoderTransformer):
        raise TypeError(
            f"estimator must be an AutoEncoderTransformer or a Pipeline that ends with one, got {estimator!r}. Pass "
            "the steps of a pipeline up to it, best_estimator_ of a search, or estimator_ of an outlier detector."
        )
    return last


def parts(estimator: Any) -> tuple[Pipeline, AutoEncoderTransformer]:
    """Split a fitted estimator into the steps before the autoencoder, which may do nothing, and the autoencoder.

    Raises
    ------
    TypeError
        If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
    NotFittedError
        If the autoencoder is not fitted.
    """
    autoencoder = autoencoder_of(estimator)
    check_is_fitted(autoencoder)
    several = isinstance(estimator, Pipeline) and len(estimator) > 1
    return estimator[:-1] if several else make_pipeline("passthrough"), autoencoder


def feature_names_of(estimator: Any) -> Any:
    """Return the names of the input features of the last step of a fitted estimator, or None if they have none.

    The names are those seen during `fit`, or those that the steps before give to their output. The names x0, x1, ...
    that scikit-learn gives to features without names are not returned.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    if not isinstance(estimator, Pipeline):
        return getattr(estimator, "feature_names_in_", None)
    names = feature_names_of(estimator[-1])
    if names is None and len(estimator) > 1:
        with contextlib.suppress(AttributeError):  # raised if a step does not name its features
            names = estimator[:-1].get_feature_names_out()
    generated = names is not None and list(names) == [f"x{index}" for index in range(len(names))]
    return None if generated else names
