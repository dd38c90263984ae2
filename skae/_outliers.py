"""The outlier detector: samples that an autoencoder cannot reconstruct."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context, clone
from sklearn.utils import check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import FLOAT_DTYPES
from skae._utils import Documented

# One sample in so many is not seen by the autoencoder that the threshold is found with.
UNSEEN_PART = 5


class AutoEncoderOutlierDetector(Documented, OutlierMixin, BaseEstimator):
    """Tell samples that are like the training samples from those that are not, by their reconstruction error.

    An autoencoder knows only the kind of data that it was trained on: it reconstructs that, and other data badly.

    Parameters
    ----------
    estimator : AutoEncoderTransformer or None, default=None
        The autoencoder, of which a clone is fitted. None is one with defaults and ``n_components`` codes.
    n_components : "auto" or int, default="auto"
        Size of the bottleneck where ``estimator`` is None. "auto" is a quarter of the features, from 1 to 16.
    contamination : "auto" or float, default="auto"
        Fraction of outliers among the training samples, at most a half, which sets the threshold. "auto" sets it by samples
        that an autoencoder of their complement has not seen, a fifth of all: an outlier has an error above their
        upper quartile by more than three times the distance of the quartiles. That takes a second fit.
    random_state : int, RandomState instance or None, default=None
        Chooses the fifth of the samples, and is handed to the autoencoder where ``estimator`` is None.

    Attributes
    ----------
    estimator_ : AutoEncoderTransformer
        The fitted autoencoder.
    offset_ : float
        Threshold: samples whose `score_samples` is below are outliers.
    n_features_in_ : int
        Number of features seen during `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X had names that are all strings.

    See Also
    --------
    AutoEncoderTransformer : The autoencoder itself.
    sklearn.ensemble.IsolationForest : Outliers by random cuts.

    Notes
    -----
    Errors are pooled over the features in units of the data: standardize features of different units first.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderOutlierDetector
    >>> X = load_digits().data
    >>> detector = AutoEncoderOutlierDetector(random_state=0).fit(X[:500])
    >>> noise = np.random.RandomState(0).permutation(X[500:600].ravel()).reshape(100, -1)
    >>> bool(np.median(detector.decision_function(noise)) < 0 < np.median(detector.decision_function(X[500:])))
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "score_samples"]), None],
        "n_components": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, *, n_components="auto", contamination="auto", random_state=None):
        self.estimator = estimator
        self.n_components = n_components
        self.contamination = contamination
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the autoencoder and find the threshold.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Training samples, at least two.
        y : Ignored
            Not used, present for scikit-learn's sake.

        Returns
        -------
        AutoEncoderOutlierDetector
            The estimator itself.

        Raises
        ------
        ValueError
            If a parameter or X is not as described.
        """
        X = self.validate_samples(X, ensure_min_samples=2)
        estimator = self.estimator
        if estimator is None:
            n_components = self.n_components
            if n_components == "auto":
                n_components = int(np.clip(X.shape[1] // 4, 1, min(16, X.shape[0])))
            estimator = AutoEncoderTransformer(n_components, random_state=self.random_state)
        fitted = clone(estimator).fit(X)
        self.offset_ = self._threshold(estimator, fitted, X)
        self.estimator_ = fitted
        return self

    def score_samples(self, X):
        """Return minus the mean squared reconstruction error of each sample: the lower, the more of an outlier.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            In squared units of X.
        """
        check_is_fitted(self)
        X = self.validate_samples(X, reset=False)
        return self.estimator_.score_samples(X)

    def decision_function(self, X):
        """Return `score_samples` less the threshold: negative for outliers.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            In squared units of X.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Say which samples are outliers.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            -1 for outliers, 1 for others.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if self.estimator is not None:
            of_estimator = get_tags(self.estimator).input_tags
            tags.input_tags.allow_nan = of_estimator.allow_nan
            tags.input_tags.positive_only = of_estimator.positive_only
        tags.input_tags.sparse = True
        return tags

    def validate_samples(self, X, **options):
        """Samples in floating point, with NaN where the autoencoder takes it."""
        finite = "allow-nan" if self.__sklearn_tags__().input_tags.allow_nan else True
        return validate_data(self, X, accept_sparse="csr", dtype=FLOAT_DTYPES, ensure_all_finite=finite, **options)

    def _threshold(self, estimator, fitted, X):
        """Below which score a sample is an outlier."""
        if self.contamination != "auto":
            return float(np.percentile(fitted.score_samples(X), 100.0 * self.contamination))
        # A network reconstructs the samples that it was trained on better than others like them.
        order = check_random_state(self.random_state).permutation(X.shape[0])
        unseen, seen = np.split(order, [len(order) // UNSEEN_PART])
        if len(seen) <= fitted.n_components_ or len(unseen) < 2:
            seen = unseen = order
        lower, upper = np.percentile(clone(estimator).fit(X[seen]).score_samples(X[unseen]), [25, 75])
        return float(lower - 3.0 * (upper - lower))
