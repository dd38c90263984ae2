"""Outlier detection by reconstruction errors."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context, clone
from sklearn.model_selection import GroupShuffleSplit
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_array, check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import FLOAT_DTYPES, asarray_like, float_dtypes, is_float64, to_numpy
from skae._data.containers import as_samples
from skae._data.duplicates import duplicate_groups
from skae._data.sample import Sample
from skae._data.validation import validated_samples, values_missing
from skae._network.state import OF_DETECTOR, check_detector, checked, stamped
from skae._pca.missing import ImputedRows, mean_of_present
from skae._utils import Documented, FollowedMixin

# The threshold is found with one sample in this many, which the autoencoder has not seen.
UNSEEN_PART = 5
# Errors of up to this many units in the last place are rounding errors. Measured with exact linear relations in single
# and double precision, with offsets up to 1e4, scales from 1e-6 to 1e6, and 8 to 4000 features: the largest was 10.
ROUNDING = 30.0


class AutoEncoderOutlierDetector(FollowedMixin, Documented, OutlierMixin, BaseEstimator):
    """Detect outliers by the reconstruction error of an autoencoder.

    An autoencoder reconstructs samples that are similar to its training samples well, and other samples badly.

    Parameters
    ----------
    estimator : AutoEncoderTransformer, other estimator with score_samples, or None, default=None
        The autoencoder, a pipeline that ends with one, or a search such as `GridSearchCV` over either. A clone of it is
        fitted. None is an autoencoder with default parameters and ``n_components`` codes.
    n_components : "auto" or int, default="auto"
        Number of codes if ``estimator`` is None. "auto" is a quarter of the number of features, from 1 to 16.
    contamination : "auto" or float, default="auto"
        Fraction of outliers in the training samples, at most 0.5, which determines the threshold. With "auto", a second
        autoencoder is fitted without a fifth of the samples, and the threshold is determined from their errors: an
        outlier has an error that exceeds their upper quartile by more than three times their interquartile range.
    random_state : int, RandomState instance or None, default=None
        Determines the fifth of the samples, and is the ``random_state`` of the autoencoder if ``estimator`` is None.
        Pass an int for reproducible results.

    Attributes
    ----------
    estimator_ : AutoEncoderTransformer or other estimator
        The fitted clone of ``estimator``.
    offset_ : float
        Threshold: samples whose `score_samples` is less are outliers.
    n_features_in_ : int
        Number of features seen during `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of features seen during `fit`. Defined only if X has feature names that are all strings.

    See Also
    --------
    AutoEncoderTransformer : The autoencoder.
    ReconstructionErrorDisplay : Plot of the errors of the features of outliers.
    sklearn.ensemble.IsolationForest : Outlier detection with random trees.

    Notes
    -----
    The error of a sample is averaged over the features. Standardize features with different units, for example in a
    pipeline that is passed as ``estimator``.

    Errors that are as small as rounding errors, which are some units in the last place of the values, are set to zero:
    samples that satisfy an exact linear relation are inliers.

    With ``array_api_dispatch=True``, scores and labels of torch tensors and other arrays that follow the array API
    standard are arrays of the same library on the same device.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer
    >>> X = load_digits().data
    >>> detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(16, max_epochs=40), random_state=0).fit(X[:500])
    >>> noise = np.random.RandomState(0).permutation(X[500:600].ravel()).reshape(100, -1)
    >>> bool(np.median(detector.decision_function(noise)) < 0 < np.median(detector.decision_function(X[500:])))
    True

    The errors of the pixels show why a sample is an outlier:

    >>> sample = X[500:501].copy()
    >>> sample[0, 10] += 50.0
    >>> detector.predict(sample), detector.reconstruction_errors(sample).argmax(axis=1)
    (array([-1]), array([10]))
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit"]), None],
        "n_components": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_components: Any = "auto",
        contamination: Any = "auto",
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.n_components = n_components
        self.contamination = contamination
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any = None) -> "AutoEncoderOutlierDetector":
        """Fit the autoencoder and determine the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Training samples, at least two.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        AutoEncoderOutlierDetector
            The estimator itself.

        Raises
        ------
        ValueError
            If a parameter or X is invalid.
        TypeError
            If ``estimator`` has no ``score_samples``.
        """
        estimator = self.estimator
        if estimator is not None and not hasattr(estimator, "score_samples"):
            raise TypeError(
                f"estimator={estimator!r} has no score_samples, by which outliers are told. Pass an "
                "AutoEncoderTransformer, a pipeline whose last step is one, or a search with refit=True around either."
            )
        X = self._validated(X, reset=True)
        if estimator is None:
            automatic = self.n_components == "auto"
            n_components = int(np.clip(X.shape[1] // 4, 1, min(16, X.shape[0]))) if automatic else self.n_components
            estimator = AutoEncoderTransformer(n_components, random_state=self.random_state)
        fitted = clone(estimator).fit(X)
        self.offset_ = self._threshold(estimator, fitted, X)
        self.estimator_ = fitted
        return self

    def score_samples(self, X: Any) -> Any:
        """Return minus the mean squared reconstruction error of each sample.

        Errors that may be rounding errors are set to zero. If ``estimator`` does not end with an autoencoder, these are
        the scores of ``estimator``.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            The scores, in squared units of X or of the input of the autoencoder in a pipeline. Outliers have low
            scores.
        """
        check_is_fitted(self)
        return _scores(self.estimator_, self._validated(X, reset=False))

    def reconstruction_errors(self, X: Any) -> Any:
        """Return the squared reconstruction error of each feature of each sample.

        The errors show why a sample is an outlier: their mean over the features is minus the score that `score_samples`
        returns. They are squared errors for every loss of the autoencoder.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The errors, in the squared units of `score_samples`. Features are those of the input of the autoencoder,
            which the steps of a pipeline before it may have transformed. NaN where a value is missing, which is not
            counted in the mean.

        Raises
        ------
        TypeError
            If ``estimator`` does not end with an autoencoder.
        """
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        fitted, inputs = scorer_and_inputs(self.estimator_, X)
        if not _scores_errors(fitted):
            raise TypeError(
                f"{fitted!r} scores samples by other means than reconstruction errors. Pass an AutoEncoderTransformer, "
                "or a pipeline whose last step is one, as estimator."
            )
        samples = validated_samples(fitted, inputs, "reconstruction_errors")
        scores, rows = to_numpy(_scores(fitted, inputs)), to_numpy(samples)
        errors = np.square(fitted._map(rows, "reconstruct", rows.shape[1], np.float64) - rows[:])
        errors[(scores == 0)[:, np.newaxis] & ~np.isnan(errors)] = 0.0  # rounding errors
        return asarray_like(errors, samples)

    def decision_function(self, X: Any) -> Any:
        """Return `score_samples` minus the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            The shifted scores, in the units of `score_samples`. Negative scores are those of outliers.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Any:
        """Predict whether samples are outliers.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            -1 for outliers and 1 for inliers.
        """
        decision = self.decision_function(X)
        return asarray_like(np.where(to_numpy(decision) < 0, -1, 1), decision)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        of_estimator = get_tags(AutoEncoderTransformer() if self.estimator is None else _searched(self.estimator))
        tags.array_api_support, tags.input_tags = of_estimator.array_api_support, of_estimator.input_tags
        return tags

    def __getstate__(self) -> dict:
        return stamped(super().__getstate__())

    def __setstate__(self, state: dict) -> None:
        state = checked(self, state, OF_DETECTOR)
        if "estimator_" in state:
            check_detector(state)
        super().__setstate__(state)

    def _validated(self, X: Any, reset: bool) -> Any:
        """Validate X as the estimator does; the first step of a pipeline may accept data frames or texts."""
        min_samples = 2 if reset else 1
        if isinstance(_searched(self.estimator), Pipeline):
            if reset:  # later, the first step checks the features
                validate_data(self, X, skip_check_array=True)
            if _num_samples(X) < min_samples:
                raise ValueError(
                    f"X has {_num_samples(X)} sample(s), but {type(self).__name__} needs at least {min_samples}."
                )
            return X
        X = X.detach() if isinstance(X, torch.Tensor) else X
        tags = self.__sklearn_tags__().input_tags
        finite = "allow-nan" if tags.allow_nan else True
        checks: dict = {"accept_sparse": "csr" if tags.sparse else False, "ensure_all_finite": finite}
        return validate_data(self, X, reset=reset, dtype=float_dtypes(X), ensure_min_samples=min_samples, **checks)

    @np.errstate(under="ignore")
    def _threshold(self, estimator: Any, fitted: Any, X: Any) -> float:
        """Determine the score below which samples are outliers."""
        if self.contamination != "auto":
            return float(np.percentile(to_numpy(_scores(fitted, X)), 100.0 * self.contamination))
        # A network reconstructs its training samples better than other samples of the same distribution.
        random_state, n_samples = check_random_state(self.random_state), _num_samples(X)
        last, inputs = scorer_and_inputs(fitted, X)
        groups = _copies(inputs)
        if groups is None:
            unseen, seen = np.split(random_state.permutation(n_samples), [n_samples // UNSEEN_PART])
        else:  # copies of a sample are either all seen or all unseen
            splitter = GroupShuffleSplit(1, test_size=1 / UNSEEN_PART, random_state=random_state)
            seen, unseen = next(splitter.split(groups, groups=groups))
        if len(seen) <= getattr(last, "n_components_", 0) or len(unseen) < 2:
            seen = unseen = np.arange(n_samples)
        other = clone(estimator).fit(_safe_indexing(X, seen))
        lower, upper = np.percentile(to_numpy(_scores(other, _safe_indexing(X, unseen))), [25, 75])
        return float(lower - 3.0 * (upper - lower))


def _searched(estimator: Any) -> Any:
    """Return the estimator of a search, and any other estimator unchanged."""
    return _searched(estimator.estimator) if isinstance(estimator, BaseSearchCV) else estimator


def scorer_and_inputs(fitted: Any, X: Any) -> tuple[Any, Any]:
    """Return the fitted estimator that scores, in a search or pipeline, and X transformed by the steps before it."""
    if isinstance(fitted, BaseSearchCV):
        return scorer_and_inputs(fitted.best_estimator_, X)
    if isinstance(fitted, Pipeline):
        return scorer_and_inputs(fitted[-1], fitted[:-1].transform(X) if len(fitted) > 1 else X)
    return fitted, X


def _copies(X: Any) -> NDArray | None:
    """Return labels that are the same for identical samples and near copies, or None if there are no copies."""
    checks: dict = {"accept_sparse": "csr", "ensure_all_finite": "allow-nan", "dtype": FLOAT_DTYPES}
    sample = Sample(as_samples(check_array(to_numpy(X), **checks)))
    if values_missing(sample):
        sample = sample.of(ImputedRows(sample.X, mean_of_present(sample)[0]))
    return duplicate_groups(sample)


def _scores_errors(fitted: Any) -> bool:
    """Return whether the scores of an estimator are the reconstruction errors of an autoencoder."""
    return getattr(type(fitted), "score_samples", None) is AutoEncoderTransformer.score_samples


def _scores(fitted: Any, X: Any) -> Any:
    """Return the scores of a fitted estimator, with the rounding errors of an autoencoder set to zero."""
    fitted, X = scorer_and_inputs(fitted, X)
    if not _scores_errors(fitted):
        return fitted.score_samples(X)
    X = validated_samples(fitted, X, "score_samples")
    errors, offsets = to_numpy(fitted._mean_squares(X)).T
    factor, constant = resolution(fitted.net_.module_, is_float64(X))
    return asarray_like(np.where(errors > factor * (offsets + constant), -errors, 0.0), X)


def resolution(module: Any, double: bool) -> tuple[float, float]:
    """Compute the largest mean squared error of a sample that may be a rounding error.

    Samples and mean are rounded to the lower of the precisions of the samples and of the network. The rounding error of
    the components is proportional to the size of the training samples.

    Parameters
    ----------
    module : ScaledAutoEncoder
        The network.
    double : bool
        Whether the samples are in double precision.

    Returns
    -------
    factor, constant : float
        The largest error of a sample with mean squared offset s from the mean is ``factor * (s + constant)``.
    """
    precision = torch.float64 if double else torch.float32
    eps = max(torch.finfo(precision).eps, torch.finfo(module.mean.dtype).eps)
    constant = module.mean.double().square().mean() + module.divisor.double().square().mean()
    return (ROUNDING * eps) ** 2, float(constant)
