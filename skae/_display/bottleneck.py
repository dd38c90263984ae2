"""The picture of scores over the size of the bottleneck, beside PCA's."""

from collections.abc import Mapping
from numbers import Integral

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import check_cv, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _num_features, check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._display.canvas import COLOURS, one_axes, pyplot
from skae._display.fitted import autoencoder_of, pca_baseline

# Largest bottleneck that is tried unless told otherwise.
LARGEST = 32
# From this ratio of the largest to the smallest size on, their axis is logarithmic; so many get a tick each.
WIDE = 8
MOST_TICKS = 12
SHARE = "held-out share of variance explained"


class BottleneckDisplay:
    """Held-out scores over the size of the bottleneck, with PCA's beside them.

    It is recommended to create one by `from_estimator` or `from_cv_results`. All parameters are stored as attributes.

    Parameters
    ----------
    n_components : array-like of shape (n_sizes,)
        Sizes of the bottleneck.
    scores : array-like of shape (n_sizes, n_folds)
        Score of each fold's held-out rows.
    pca_scores : array-like of shape (n_sizes, n_folds) or None, default=None
        The same of PCA.
    score_name : str, default="score"
        What a score is.

    Attributes
    ----------
    errorbar_ : matplotlib ErrorbarContainer
        Means and standard deviations over the folds.
    pca_errorbar_ : matplotlib ErrorbarContainer or None
        The same of PCA.
    ax_ : matplotlib Axes
        Where they are.
    figure_ : matplotlib Figure
        Where the axes are.

    See Also
    --------
    sklearn.model_selection.ValidationCurveDisplay : Scores over any parameter, without PCA.
    LossCurveDisplay : The losses of one training.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, BottleneckDisplay
    >>> autoencoder = AutoEncoderTransformer(max_epochs=5, random_state=0)
    >>> X = load_digits().data[:300]
    >>> display = BottleneckDisplay.from_estimator(autoencoder, X, n_components=(2, 4), cv=2)
    >>> display.scores.shape, display.pca_scores.shape
    ((2, 2), (2, 2))
    """

    def __init__(self, *, n_components, scores, pca_scores=None, score_name="score"):
        self.n_components = n_components
        self.scores = scores
        self.pca_scores = pca_scores
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, n_components=None, cv=None, scoring=None, pca=True, n_jobs=None, ax=None
    ):
        """Cross-validate clones with bottlenecks of several sizes, and draw their scores.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Need not be fitted; a pipeline ends with the autoencoder.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples, of which each fold is held out in turn.
        y : array-like of shape (n_samples,), default=None
            For splitters and scorers that ask for it.
        n_components : sequence of int, default=None
            Sizes to try. None is 1, 2, 4 and so on, up to half the features and at most 32.
        cv : int, cross-validation generator or iterable of splits, default=None
            As in scikit-learn; None is five folds. All sizes and PCA have the same splits.
        scoring : str or callable, default=None
            As in scikit-learn; None is the estimator's ``score``, the share of variance explained.
        pca : bool, default=True
            Whether to cross-validate PCA too.
        n_jobs : int, default=None
            Folds to fit at the same time.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        BottleneckDisplay
            The picture and its data.

        Raises
        ------
        ValueError
            If a parameter is not as described, or a fit fails.
        TypeError
            If there is no autoencoder.
        ImportError
            If matplotlib is not installed.
        """
        pyplot(f"{cls.__name__}.from_estimator")
        autoencoder_of(estimator)
        step = f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""
        sizes = _sizes(n_components, X)
        options = {"cv": list(check_cv(cv, y).split(X, y)), "scoring": scoring, "n_jobs": n_jobs}
        sized = [clone(estimator).set_params(**{f"{step}n_components": size}) for size in sizes]
        scores = _cross_validated(sized, X, y, options)
        twins = [_with_pca(estimator, f"{step}n_components", size) for size in sizes] if pca else []
        return cls(
            n_components=sizes,
            scores=scores,
            pca_scores=_cross_validated(twins, X, y, options) if pca else None,
            score_name=SHARE if scoring is None else "held-out score",
        ).plot(ax=ax)

    @classmethod
    def from_cv_results(
        cls, cv_results, X=None, y=None, *, cv=None, param_name=None, metric="score", n_jobs=None, ax=None
    ):
        """Draw the scores that a search has found.

        Parameters
        ----------
        cv_results : GridSearchCV, another fitted search, or its ``cv_results_``
            Of several candidates with the same bottleneck the one with the best mean is drawn.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), default=None
            The rows of the search, to cross-validate PCA on: in the place of the autoencoder, with the search's other
            steps and scorer. None draws no PCA.
        y : array-like of shape (n_samples,), default=None
            For splitters, scorers and later steps that ask for it.
        cv : int, cross-validation generator or iterable of splits, default=None
            How PCA is cross-validated. None does as the search did; of bare results only the number of folds is known.
        param_name : str, default=None
            The parameter that is the size of the bottleneck. None finds the one that ends with ``n_components``.
        metric : str, default="score"
            Which test score, where the search had several.
        n_jobs : int, default=None
            Folds to fit at the same time.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        BottleneckDisplay
            The picture and its data.

        Raises
        ------
        ValueError
            If the results do not have the parameter or the metric, or do not tell how to cross-validate PCA.
        TypeError
            If the parameter is not an autoencoder's.
        ImportError
            If matplotlib is not installed.
        """
        pyplot(f"{cls.__name__}.from_cv_results")
        search = cv_results if hasattr(cv_results, "fit") else None
        if search is not None:
            check_is_fitted(search, "cv_results_")
            cv_results = search.cv_results_
        name = _size_parameter(cv_results) if param_name is None else param_name
        sizes, scores = _best_of_each_size(cv_results, name, metric)
        pca_scores = None
        if X is not None:
            estimator = _searched(search, name)
            splitter = check_cv(_folds(search, scores) if cv is None else cv, y, classifier=is_classifier(estimator))
            options = {"cv": list(splitter.split(X, y)), "scoring": _scorer(search, metric), "n_jobs": n_jobs}
            pca_scores = _cross_validated([_with_pca(estimator, name, size) for size in sizes], X, y, options)
        score_name = SHARE if search is not None and _scores_shares(search) else "held-out score"
        return cls(n_components=sizes, scores=scores, pca_scores=pca_scores, score_name=score_name).plot(ax=ax)

    def plot(self, ax=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.

        Returns
        -------
        BottleneckDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = one_axes(f"{type(self).__name__}.plot", ax)
        self.ax_, self.figure_ = ax, ax.figure
        sizes = np.asarray(self.n_components)
        self.pca_errorbar_ = None
        if self.pca_scores is not None:
            self.pca_errorbar_ = self._plot_curve(sizes, self.pca_scores, "PCA", marker="s", linestyle="--")
        self.errorbar_ = self._plot_curve(sizes, self.scores, "autoencoder", marker="o", linestyle="-")
        if sizes.max() >= WIDE * sizes.min():
            ax.set_xscale("log", base=2)
        if len(sizes) <= MOST_TICKS:
            ax.set_xticks(sizes, [str(size) for size in sizes])
            ax.set_xticks([], minor=True)
        ax.set(xlabel="numbers kept a row (n_components)", ylabel=self.score_name)
        ax.legend()
        return self

    def _plot_curve(self, sizes, scores, name, **style):
        """Means and standard deviations over the folds."""
        mean, spread = np.mean(scores, axis=1), np.std(scores, axis=1)
        return self.ax_.errorbar(sizes, mean, spread, color=COLOURS[name], capsize=3, label=name, **style)


def _sizes(n_components, X):
    """Different sizes in rising order."""
    if n_components is None:
        largest = min(max(_num_features(X) // 2, 1), LARGEST)
        return 2 ** np.arange(largest.bit_length())
    sizes = list(n_components) if np.iterable(n_components) else [n_components]
    if not sizes or not all(isinstance(size, Integral) and size > 0 for size in sizes):
        raise ValueError(f"n_components={n_components!r} must hold integers of at least 1, or be None.")
    return np.unique(sizes)


def _cross_validated(estimators, X, y, options):
    """Scores of held-out rows, of shape (n_estimators, n_folds)."""
    return np.array([cross_val_score(one, X, y, error_score="raise", **options) for one in estimators])


def _with_pca(estimator, param_name, size):
    """A copy of an estimator with PCA of this size in the place of the autoencoder."""
    step = param_name.removesuffix("n_components").removesuffix("__")
    twin = pca_baseline(autoencoder_of(estimator.get_params()[step] if step else estimator), int(size))
    return clone(estimator).set_params(**{step: twin}) if step else twin


def _size_parameter(results):
    """The one parameter that ends with n_components."""
    names = [key.removeprefix("param_") for key in results if key.startswith("param_")]
    found = [name for name in names if name.split("__")[-1] == "n_components"]
    if len(found) != 1:
        raise ValueError(
            f"cv_results has {len(found)} parameters that end with n_components, {found}, among {names}. Name the size "
            "of the bottleneck by param_name, or search over it."
        )
    return found[0]


def _best_of_each_size(results, param_name, metric):
    """Sizes in rising order, and for each the folds' scores of the candidate with the best mean."""
    for key in (f"param_{param_name}", f"mean_test_{metric}"):
        if key not in results:
            raise ValueError(
                f"cv_results has no {key!r}, only {sorted(results)}. Choose param_name and metric of these."
            )
    values = np.ma.asarray(results[f"param_{param_name}"])
    means = np.asarray(results[f"mean_test_{metric}"], dtype=float)
    usable = np.flatnonzero(~np.ma.getmaskarray(values) & np.isfinite(means))
    if len(usable) == 0:
        raise ValueError(f"cv_results has no candidate with a finite mean_test_{metric}: all fits have failed.")
    n_folds = sum(key.startswith("split") and key.endswith(f"_test_{metric}") for key in results)
    folds = np.stack([np.asarray(results[f"split{fold}_test_{metric}"]) for fold in range(n_folds)], axis=1)
    sizes = np.array([int(values[row]) for row in usable])
    best = [max(usable[sizes == size], key=lambda row: means[row]) for size in np.unique(sizes)]
    return np.unique(sizes), folds[best].astype(float)


def _searched(search, param_name):
    """The estimator of a search; of bare results a plain autoencoder, unless it was a part of something."""
    if search is not None:
        return search.estimator
    if param_name != "n_components":
        raise ValueError(
            f"cv_results does not tell what surrounds {param_name}, so PCA cannot be cross-validated in its place. "
            "Pass the search itself, or X=None."
        )
    return AutoEncoderTransformer()


def _folds(search, scores):
    """How a search splits its rows; of bare results only the number of folds is known."""
    return scores.shape[1] if search is None else search.cv


def _scorer(search, metric):
    """What a search measures by this name."""
    if search is None:
        return None
    return search.scorer_[metric] if isinstance(search.scorer_, Mapping) else search.scorer_


def _scores_shares(search):
    """Whether a search asks an autoencoder for its score."""
    last = search.estimator.steps[-1][1] if isinstance(search.estimator, Pipeline) else search.estimator
    return search.scoring is None and isinstance(last, AutoEncoderTransformer)
