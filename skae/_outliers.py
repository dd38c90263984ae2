"""The outlier detector: samples that an autoencoder cannot reconstruct."""

from numbers import Integral, Real

import numpy as np
import torch
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

# One sample in so many is not seen by the autoencoder that the threshold is found with.
UNSEEN_PART = 5
# Errors up to this many units of the last place are rounding. Measured on exact linear relations, single and double
# precision, offsets to 1e4, scales from 1e-6 to 1e6, 8 to 4000 features: the largest was 10.
ROUNDING = 30.0


class AutoEncoderOutlierDetector(FollowedMixin, Documented, OutlierMixin, BaseEstimator):
    """Tell samples that are like the training samples from those that are not, by their reconstruction error.

    An autoencoder knows only the kind of data that it was trained on: it reconstructs that, and other data badly.

    Parameters
    ----------
    estimator : AutoEncoderTransformer, other estimator with score_samples, or None, default=None
        The autoencoder, of which a clone is fitted, or a pipeline that ends in one, or a search such as `GridSearchCV`
        around either. None is an autoencoder with defaults and ``n_components`` codes.
    n_components : "auto" or int, default="auto"
        Size of the bottleneck where ``estimator`` is None. "auto" is a quarter of the features, from 1 to 16.
    contamination : "auto" or float, default="auto"
        Fraction of outliers among the training samples, at most a half, which sets the threshold. "auto" sets it by
        samples that an autoencoder of their complement has not seen, a fifth of all: an outlier has an error above
        their upper quartile by more than three times the distance of the quartiles. That takes a second fit.
    random_state : int, RandomState instance or None, default=None
        Chooses the fifth of the samples, and is handed to the autoencoder where ``estimator`` is None.

    Attributes
    ----------
    estimator_ : AutoEncoderTransformer or other estimator
        The fitted clone of ``estimator``.
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
    Errors are pooled over the features in units of the data: standardize features of different units first, for
    example in a pipeline that is the ``estimator``.

    An error that is no larger than what the arithmetic rounds off, some units of the last place of the values, is no
    evidence, and counts as zero: samples of an exact linear relation are ordinary, whatever their last bits.

    With ``array_api_dispatch=True`` torch tensors and other arrays of the array API give scores and labels of their
    kind, on their device.

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
        "estimator": [HasMethods(["fit"]), None],
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
        TypeError
            If ``estimator`` has no ``score_samples``.
        """
        _check_scores(self.estimator)
        X = self._validated(X, reset=True, ensure_min_samples=2)
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

        An error that rounding could have made counts as zero. Of an ``estimator`` that does not end in an autoencoder
        these are its own scores.

        Parameters
        ----------
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples in the units of the training samples.

        Returns
        -------
        ndarray of shape (n_samples,)
            In squared units of X, or of what reaches the autoencoder in a pipeline.
        """
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        return _resolved_scores(self.estimator_, X)

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
        decision = self.decision_function(X)
        return asarray_like(np.where(to_numpy(decision) < 0, -1, 1), decision)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        of_estimator = get_tags(AutoEncoderTransformer() if self.estimator is None else _searched(self.estimator))
        tags.array_api_support = of_estimator.array_api_support
        for name in ("allow_nan", "positive_only", "sparse"):
            setattr(tags.input_tags, name, getattr(of_estimator.input_tags, name))
        return tags

    def __getstate__(self):
        return stamped(super().__getstate__())

    def __setstate__(self, state):
        state = checked(self, state, OF_DETECTOR)
        if "estimator_" in state:
            check_detector(state)
        super().__setstate__(state)

    def _validated(self, X, reset, ensure_min_samples=1):
        """Validate X as the estimator would; leave it to the first step of a pipeline."""
        if isinstance(_searched(self.estimator), Pipeline):  # its first step may be for data frames or texts
            if reset:  # later on that step checks the features itself
                validate_data(self, X, skip_check_array=True)
            if _num_samples(X) < ensure_min_samples:
                raise ValueError(
                    f"X has {_num_samples(X)} sample(s), but {type(self).__name__} needs at least {ensure_min_samples}."
                )
            return X
        X = X.detach() if isinstance(X, torch.Tensor) else X
        input_tags = self.__sklearn_tags__().input_tags
        return validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr" if input_tags.sparse else False,
            dtype=float_dtypes(X),
            ensure_all_finite="allow-nan" if input_tags.allow_nan else True,
            ensure_min_samples=ensure_min_samples,
        )

    @np.errstate(under="ignore")
    def _threshold(self, estimator, fitted, X):
        """Below which score a sample is an outlier."""
        if self.contamination != "auto":
            return float(np.percentile(to_numpy(_resolved_scores(fitted, X)), 100.0 * self.contamination))
        # A network reconstructs the samples that it was trained on better than others like them.
        random_state, n_samples = check_random_state(self.random_state), _num_samples(X)
        groups = _copies(fitted, X)
        if groups is None:
            order = random_state.permutation(n_samples)
            unseen, seen = np.split(order, [n_samples // UNSEEN_PART])
        else:  # an unseen copy of a sample that was seen would say nothing
            splitter = GroupShuffleSplit(1, test_size=1 / UNSEEN_PART, random_state=random_state)
            seen, unseen = next(splitter.split(groups, groups=groups))
        if len(seen) <= getattr(last_estimator(fitted), "n_components_", 0) or len(unseen) < 2:
            seen = unseen = np.arange(n_samples)
        other = clone(estimator).fit(_safe_indexing(X, seen))
        lower, upper = np.percentile(to_numpy(_resolved_scores(other, _safe_indexing(X, unseen))), [25, 75])
        return float(lower - 3.0 * (upper - lower))


def _check_scores(estimator):
    """Refuse an estimator that cannot say how well it reconstructs a sample, before anything is fitted."""
    if estimator is not None and not hasattr(estimator, "score_samples"):
        raise TypeError(
            f"estimator={estimator!r} has no score_samples, by which outliers are told. Pass an "
            "AutoEncoderTransformer, a pipeline whose last step is one, or a search with refit=True around either."
        )


def _searched(estimator):
    """Return what a search tries candidates of, and any other estimator as it is."""
    return _searched(estimator.estimator) if isinstance(estimator, BaseSearchCV) else estimator


def last_estimator(fitted):
    """Return the fitted estimator that scores: of a search that of the best candidate, of a pipeline the last step."""
    if isinstance(fitted, BaseSearchCV):
        return last_estimator(fitted.best_estimator_)
    return last_estimator(fitted[-1]) if isinstance(fitted, Pipeline) else fitted


def _copies(fitted, X):
    """Return labels of identical samples and near copies, as the autoencoder sees them; None if there are none."""
    if isinstance(fitted, BaseSearchCV):
        return _copies(fitted.best_estimator_, X)
    if isinstance(fitted, Pipeline):
        return _copies(fitted[-1], fitted[:-1].transform(X) if len(fitted) > 1 else X)
    checks: dict = {"accept_sparse": "csr", "ensure_all_finite": "allow-nan", "dtype": FLOAT_DTYPES}
    sample = Sample(as_samples(check_array(to_numpy(X), **checks)))
    if values_missing(sample):
        sample = sample.of(ImputedRows(sample.X, mean_of_present(sample)[0]))
    return duplicate_groups(sample)


def _resolved_scores(fitted, X):
    """Return what `score_samples` of a fitted estimator does, zero where an autoencoder's error may be rounding."""
    if isinstance(fitted, BaseSearchCV):
        return _resolved_scores(fitted.best_estimator_, X)
    if isinstance(fitted, Pipeline):
        return _resolved_scores(fitted[-1], fitted[:-1].transform(X) if len(fitted) > 1 else X)
    if getattr(type(fitted), "score_samples", None) is not AutoEncoderTransformer.score_samples:
        return fitted.score_samples(X)
    X = validated_samples(fitted, X, "score_samples")
    errors, offsets = to_numpy(fitted._mean_squares(X)).T
    factor, constant = resolution(fitted.net_.module_, is_float64(X))
    return asarray_like(np.where(errors > factor * (offsets + constant), -errors, 0.0), X)


def resolution(module, double):
    """Give the largest mean squared error that may be rounding, of a sample whose mean squared offset is s.

    The samples and the mean are rounded in the precision of the samples or in that of the network, whichever is lower;
    what the directions are off counts by the size of the training samples.

    Parameters
    ----------
    module : ScaledAutoEncoder
        The network.
    double : bool
        Whether the samples are in double precision.

    Returns
    -------
    factor, constant : float
        The error is ``factor * (s + constant)``.
    """
    precision = torch.float64 if double else torch.float32
    eps = max(torch.finfo(precision).eps, torch.finfo(module.mean.dtype).eps)
    constant = module.mean.double().square().mean() + module.scale.double().square()
    return (ROUNDING * eps) ** 2, float(constant)
