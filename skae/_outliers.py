"""Outlier detection by reconstructions."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, _fit_context, clone
from sklearn.metrics.pairwise import euclidean_distances, nan_euclidean_distances
from sklearn.model_selection import GroupShuffleSplit
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_array, check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import FLOAT_DTYPES, asarray_like, float_dtypes, is_float64, to_numpy
from skae._data.containers import Samples, as_samples, chunks_of
from skae._data.duplicates import duplicate_groups
from skae._data.sample import Sample
from skae._data.validation import validated_samples, values_missing
from skae._network.state import OF_DETECTOR, check_detector, checked, stamped
from skae._pca.missing import ImputedRows, mean_of_present
from skae._utils import Documented, FollowedMixin

# The threshold is found with one sample in this many, which the autoencoder has not seen.
UNSEEN_PART = 5
# Largest number of training samples whose codes are kept.
MOST_CODES = 2048
# Number of nearest reconstructions, and that for training samples with outliers, some of which are kept too. On the 43
# sets of `examples/benchmarks/outliers.py --adbench` (one seed), the mean ROC AUC with 1, 3, 8 and 64 is .863, .862,
# .858 and .839 without outliers among the training samples; with their natural fraction 3 and 64 give .730 and .776.
N_NEIGHBORS, N_NEIGHBORS_OF_CONTAMINATED = 3, 64
# Number of distances and of values that are computed at a time.
CHUNK_VALUES = 2_000_000
# Errors of up to this many units in the last place are rounding errors. Measured with exact linear relations in single
# and double precision, with offsets up to 1e4, scales from 1e-6 to 1e6, and 8 to 4000 features: the largest was 10.
ROUNDING = 30.0


class AutoEncoderOutlierDetector(FollowedMixin, Documented, OutlierMixin, BaseEstimator):
    """Detect outliers by reconstructions of an autoencoder.

    An autoencoder reconstructs samples that are similar to its training samples well, and other samples badly. Some of
    these are still close to its manifold, but far from all training samples. The score of a sample is therefore its
    distance from the nearest reconstructions of training samples, which increases with both.

    Parameters
    ----------
    estimator : AutoEncoderTransformer, other estimator with score_samples, or None, default=None
        The autoencoder, a pipeline that ends with one, or a search such as `GridSearchCV` over either. A clone of it is
        fitted. None is an autoencoder with default parameters and ``n_components`` codes.
    n_components : "auto" or int, default="auto"
        Number of codes if ``estimator`` is None. "auto" is half the number of features, from 1 to 16, and a quarter for
        ``method="reconstruction"``.
    method : {"neighbors", "reconstruction"}, default="neighbors"
        "neighbors" scores samples by the mean squared distance from the nearest reconstructions of up to 2,048 training
        samples, and "reconstruction" by the squared error of their own reconstruction alone.
    n_neighbors : "auto" or int, default="auto"
        Number of nearest reconstructions, at most half of those that are kept. "auto" is 3, and 64 if ``contamination``
        is a number: outliers among the training samples are then neighbors of other outliers.
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
    codes_ : ndarray of shape (n_kept, n_components) or None
        Codes of the training samples that are kept. None for ``method="reconstruction"``, or if ``estimator`` does not
        end with an autoencoder.
    n_neighbors_ : int or None
        Number of nearest reconstructions; None without ``codes_``.
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
    Distances and errors are averaged over the features. Standardize features with different units, for example in a
    pipeline that is passed as ``estimator``.

    With ``method="reconstruction"``, errors that are as small as rounding errors, which are some units in the last
    place of the values, are set to zero: samples that satisfy an exact linear relation are inliers.

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
        "method": [StrOptions({"neighbors", "reconstruction"})],
        "n_neighbors": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_components: Any = "auto",
        method: str = "neighbors",
        n_neighbors: Any = "auto",
        contamination: Any = "auto",
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.n_components = n_components
        self.method = method
        self.n_neighbors = n_neighbors
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
            automatic, divisor = self.n_components == "auto", 2 if self.method == "neighbors" else 4
            most = min(16, X.shape[0])
            n_components = int(np.clip(X.shape[1] // divisor, 1, most)) if automatic else self.n_components
            estimator = AutoEncoderTransformer(n_components, random_state=self.random_state)
        fitted = clone(estimator).fit(X)
        self.codes_, self.n_neighbors_ = self._kept(fitted, X)
        self.offset_ = self._threshold(estimator, fitted, X)
        self.estimator_ = fitted
        return self

    def score_samples(self, X: Any) -> Any:
        """Return minus the mean squared distance of each sample from the nearest reconstructions.

        With ``method="reconstruction"``, it is minus the mean squared error of its own reconstruction, and errors that
        may be rounding errors are set to zero. If ``estimator`` does not end with an autoencoder, these are the scores
        of ``estimator``.

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
        return _scores(self.estimator_, self._validated(X, reset=False), self.codes_, self.n_neighbors_)

    def reconstruction_errors(self, X: Any) -> Any:
        """Return the squared error of each feature of each sample.

        The errors show why a sample is an outlier: their mean over the features is minus the score that `score_samples`
        returns. They are squared differences from the nearest reconstructions, averaged over these, or from its own
        reconstruction with ``method="reconstruction"``, for every loss of the autoencoder.

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
        rows = to_numpy(samples)
        if self.n_neighbors_ is None:
            scores = to_numpy(_scores(fitted, inputs, None, None))
            errors = np.square(fitted._map(rows, "reconstruct", rows.shape[1], np.float64) - rows[:])
            errors[(scores == 0)[:, np.newaxis] & ~np.isnan(errors)] = 0.0  # rounding errors
        else:
            found = _neighbors(fitted, rows, self.codes_, self.n_neighbors_)
            of_chunks = [sum(np.square(values - one) for one in nearest) for values, nearest, _ in found]
            errors = np.concatenate(of_chunks) / self.n_neighbors_
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
            check_detector(state, _last(state["estimator_"]))
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
            scores = to_numpy(_scores(fitted, X, self.codes_, self.n_neighbors_))
            return float(np.percentile(scores, 100.0 * self.contamination))
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
        seen = _safe_indexing(X, seen)
        other = clone(estimator).fit(seen)
        scores = _scores(other, _safe_indexing(X, unseen), *self._kept(other, seen))
        lower, upper = np.percentile(to_numpy(scores), [25, 75])
        return float(lower - 3.0 * (upper - lower))

    def _kept(self, fitted: Any, X: Any) -> tuple[Any, int | None]:
        """Return codes of some training samples and the number of neighbors, or None for both without neighbors."""
        fitted, inputs = scorer_and_inputs(fitted, X)
        if self.method == "reconstruction" or not _scores_errors(fitted):
            return None, None
        samples = validated_samples(fitted, inputs, "transform")
        kept = to_numpy(samples)[np.linspace(0, len(samples) - 1, min(len(samples), MOST_CODES), dtype=int)]
        n_neighbors = self.n_neighbors
        if n_neighbors == "auto":
            n_neighbors = N_NEIGHBORS if self.contamination == "auto" else N_NEIGHBORS_OF_CONTAMINATED
        codes = asarray_like(fitted._map(kept, "project", fitted.n_components_), samples)
        return codes, min(n_neighbors, max(len(kept) // 2, 1))


def _searched(estimator: Any) -> Any:
    """Return the estimator of a search, and any other estimator unchanged."""
    return _searched(estimator.estimator) if isinstance(estimator, BaseSearchCV) else estimator


def _last(fitted: Any) -> Any:
    """Return the last step of a fitted pipeline, or of the best one of a search."""
    if isinstance(fitted, BaseSearchCV):
        return _last(getattr(fitted, "best_estimator_", None))
    return _last(fitted.steps[-1][-1]) if isinstance(fitted, Pipeline) else fitted


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


@np.errstate(under="ignore")
def _scores(fitted: Any, X: Any, codes: Any, n_neighbors: int | None) -> Any:
    """Return the scores by a fitted estimator, with its kept codes or by reconstruction errors."""
    fitted, X = scorer_and_inputs(fitted, X)
    if not _scores_errors(fitted):
        return fitted.score_samples(X)
    X = validated_samples(fitted, X, "score_samples")
    if n_neighbors is None:
        errors, offsets = to_numpy(fitted._mean_squares(X)).T
        factor, constant = resolution(fitted.net_.module_, is_float64(X))
        errors = np.where(errors > factor * (offsets + constant), errors, 0.0)
    else:
        found = _neighbors(fitted, to_numpy(X), codes, n_neighbors)
        errors = np.concatenate([distances for _, _, distances in found])
    return asarray_like(-errors, X)


def reconstructions(fitted: AutoEncoderTransformer, codes: Any) -> NDArray:
    """Decode kept codes in double precision."""
    return fitted._map(to_numpy(codes), "decode", fitted.n_features_in_, np.float64)


def _neighbors(
    fitted: AutoEncoderTransformer, X: Samples, codes: Any, n_neighbors: int
) -> Iterator[tuple[NDArray, Iterator[NDArray], NDArray]]:
    """Find the nearest reconstructions of kept codes for some samples at a time.

    Yields
    ------
    samples : ndarray of shape (n, n_features)
        Consecutive samples.
    nearest : iterator over ndarray of shape (n, n_features)
        Their nearest reconstructions, in any order.
    distances : ndarray of shape (n,)
        Mean squared distance of each sample from them, per feature that is not missing.
    """
    center = to_numpy(fitted.mean_).astype(np.float64)  # products of large values would be inexact
    kept = reconstructions(fitted, codes)
    for chunk in chunks_of(X, CHUNK_VALUES * X.shape[1] // max(X.shape[1], len(kept))):
        samples = X[chunk].astype(np.float64)
        distance = nan_euclidean_distances if np.isnan(samples).any() else euclidean_distances
        with np.errstate(over="ignore", invalid="ignore"):
            squares = distance(samples - center, kept - center, squared=True) / X.shape[1]
        squares[np.isnan(samples).all(axis=1)] = 0.0
        finite = np.isfinite(squares).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"X is too large: squared differences of sample {chunk.start + finite.argmin()} overflow float64. "
                "Rescale X, for example with StandardScaler."
            )
        indices = np.argpartition(squares, n_neighbors - 1, axis=1)[:, :n_neighbors]
        yield samples, (kept[one] for one in indices.T), np.take_along_axis(squares, indices, axis=1).mean(axis=1)


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
