"""Plot of scores as a function of the number of components, compared to PCA."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, check_cv, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _num_features, check_is_fitted

from skae._autoencoder import AutoEncoderTransformer
from skae._display import canvas, fitted

# Largest number of components that is evaluated by default.
MAX_COMPONENTS = 32
# The axis is logarithmic if the ratio of the largest to the smallest size is at least MIN_LOG_RATIO. Each size has a
# tick if there are at most MAX_TICKS. Chosen by reasoning.
MIN_LOG_RATIO = 8
MAX_TICKS = 12
# Names of the scores: that of `AutoEncoderTransformer.score`, and that of other scorers.
EXPLAINED, HELD_OUT = "held-out explained variance ratio", "held-out score"


@dataclass(kw_only=True, eq=False, repr=False)
class BottleneckDisplay:
    """Held-out scores of autoencoders with several numbers of components, compared to PCA.

    It is recommended to create a display with `from_estimator` or `from_cv_results`. All parameters are stored as
    attributes.

    Parameters
    ----------
    n_components : array-like of shape (n_sizes,)
        Numbers of components, which are the sizes of the bottleneck.
    scores : array-like of shape (n_sizes, n_folds)
        Score of the held-out samples of each fold.
    pca_scores : array-like of shape (n_sizes, n_folds) or None, default=None
        Scores of PCA with the same numbers of components. None draws no scores of PCA.
    score_name : str, default="score"
        Name of the score, which labels the axis.

    Attributes
    ----------
    errorbar_ : matplotlib ErrorbarContainer
        Mean and standard deviation of the scores over the folds.
    pca_errorbar_ : matplotlib ErrorbarContainer or None
        Mean and standard deviation of the scores of PCA.
    ax_ : matplotlib Axes
        The axes with the plot.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    sklearn.model_selection.ValidationCurveDisplay : Scores as a function of any parameter, without PCA.
    LossCurveDisplay : Losses of a fitted autoencoder by epoch.

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

    n_components: ArrayLike
    scores: ArrayLike
    pca_scores: ArrayLike | None = None
    score_name: str = "score"

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        n_components: Iterable[int] | None = None,
        cv: Any = None,
        scoring: Any = None,
        pca: bool = True,
        n_jobs: int | None = None,
        ax: Any = None,
    ) -> "BottleneckDisplay":
        """Cross-validate clones of the estimator with several numbers of components, and draw their scores.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Autoencoder, or pipeline whose last step is an autoencoder. It does not need to be fitted.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples for the cross-validation.
        y : array-like of shape (n_samples,), default=None
            Target for splitters and scorers that need it.
        n_components : sequence of int, default=None
            Numbers of components to evaluate. None evaluates the powers of two up to half the number of features and at
            most 32.
        cv : int, cross-validation generator or iterable of splits, default=None
            Splits, as in scikit-learn. None is 5-fold cross-validation. All numbers of components and PCA have the same
            splits.
        scoring : str or callable, default=None
            Scorer, as in scikit-learn. None uses the ``score`` method of the estimator, which is the explained variance
            ratio.
        pca : bool, default=True
            Whether to cross-validate PCA as well.
        n_jobs : int, default=None
            Number of folds that are fitted in parallel, as in scikit-learn.
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.

        Returns
        -------
        BottleneckDisplay
            The display, which stores the data of the plot.

        Raises
        ------
        ValueError
            If a parameter is invalid, or a fit fails.
        TypeError
            If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
        ImportError
            If matplotlib is not installed.
        """
        canvas.pyplot(f"{cls.__name__}.from_estimator")
        fitted.autoencoder_of(estimator)
        name = f"{estimator.steps[-1][0]}__n_components" if isinstance(estimator, Pipeline) else "n_components"
        # PCA is cross-validated with the same splits, also if they are random.
        splits = list(check_cv(cv, y).split(X, y))
        options = {"scoring": scoring, "cv": splits, "n_jobs": n_jobs, "refit": False, "error_score": "raise"}
        search = GridSearchCV(estimator, {name: _sizes(n_components, X)}, **options).fit(X, y)
        return cls.from_cv_results(search, X if pca else None, y, n_jobs=n_jobs, ax=ax)

    @classmethod
    def from_cv_results(
        cls,
        cv_results: Any,
        X: Any = None,
        y: Any = None,
        *,
        cv: Any = None,
        param_name: str | None = None,
        metric: str = "score",
        n_jobs: int | None = None,
        ax: Any = None,
    ) -> "BottleneckDisplay":
        """Draw the scores of a hyperparameter search.

        Parameters
        ----------
        cv_results : GridSearchCV, another fitted search, or its ``cv_results_``
            Results of the search. If several candidates have the same number of components, the one with the best mean
            score is drawn.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features), default=None
            Samples of the search, to cross-validate PCA. PCA replaces the autoencoder; the other steps and the scorer
            are those of the search. None draws no scores of PCA.
        y : array-like of shape (n_samples,), default=None
            Target for splitters, scorers and later steps that need it.
        cv : int, cross-validation generator or iterable of splits, default=None
            Splits for PCA. None uses those of the search. If only ``cv_results_`` is passed, None uses the default
            splits with the same number of folds.
        param_name : str, default=None
            Name of the parameter with the number of components. None uses the only one whose name ends with
            ``n_components``.
        metric : str, default="score"
            Name of the test score to draw, if the search has several.
        n_jobs : int, default=None
            Number of folds that are fitted in parallel, as in scikit-learn.
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.

        Returns
        -------
        BottleneckDisplay
            The display, which stores the data of the plot.

        Raises
        ------
        ValueError
            If the results do not have the parameter or the metric, or PCA cannot be cross-validated because only the
            ``cv_results_`` of a search over a pipeline is passed.
        TypeError
            If the parameter does not belong to an AutoEncoderTransformer.
        NotFittedError
            If the search is not fitted.
        ImportError
            If matplotlib is not installed.
        """
        canvas.pyplot(f"{cls.__name__}.from_cv_results")
        score_name, scorer = HELD_OUT, None
        estimator: Any = AutoEncoderTransformer()
        search = cv_results if hasattr(cv_results, "fit") else None
        if search is not None:
            check_is_fitted(search, "cv_results_")
            cv_results, estimator = search.cv_results_, search.estimator
            cv = search.cv if cv is None else cv
            scorer = search.scorer_.get(metric) if isinstance(search.scorer_, Mapping) else search.scorer_
            last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
            if search.scoring is None and isinstance(last, AutoEncoderTransformer):
                score_name = EXPLAINED
        name = _size_parameter(cv_results) if param_name is None else param_name
        sizes, scores = _best_by_size(cv_results, name, metric)
        pca_scores = None
        if X is not None:
            if search is None and name != "n_components":
                raise ValueError(
                    f"cv_results does not contain the estimator with the parameter {name}, so PCA cannot be "
                    "cross-validated in its place. Pass the fitted search instead of cv_results, or X=None."
                )
            splitter = check_cv(scores.shape[1] if cv is None else cv, y, classifier=is_classifier(estimator))
            options = {"cv": list(splitter.split(X, y)), "scoring": scorer, "n_jobs": n_jobs, "error_score": "raise"}
            baselines = [_with_pca(estimator, name, size) for size in sizes]
            pca_scores = np.array([cross_val_score(baseline, X, y, **options) for baseline in baselines])
        return cls(n_components=sizes, scores=scores, pca_scores=pca_scores, score_name=score_name).plot(ax=ax)

    def plot(self, ax: Any = None) -> "BottleneckDisplay":
        """Draw the plot.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.

        Returns
        -------
        BottleneckDisplay
            The display.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = canvas.axes_grid(self, ax)[0, 0]
        self.ax_, self.figure_ = ax, ax.figure
        sizes = np.asarray(self.n_components)
        self.pca_errorbar_ = None
        if self.pca_scores is not None:
            self.pca_errorbar_ = self._plot_curve(sizes, self.pca_scores, "PCA", "s--")
        self.errorbar_ = self._plot_curve(sizes, self.scores, "autoencoder", "o-")
        if sizes.max() >= MIN_LOG_RATIO * sizes.min():
            ax.set_xscale("log", base=2)
        if len(sizes) <= MAX_TICKS:
            ax.set_xticks(sizes, [str(size) for size in sizes])
            ax.set_xticks([], minor=True)
        ax.set(xlabel="number of components", ylabel=self.score_name)
        ax.legend()
        return self

    def _plot_curve(self, sizes: NDArray, scores: Any, name: str, fmt: str) -> Any:
        """Draw the mean and standard deviation of the scores over the folds."""
        mean, std = np.mean(scores, axis=1), np.std(scores, axis=1)
        return self.ax_.errorbar(sizes, mean, std, fmt=fmt, color=canvas.COLORS[name], capsize=3, label=name)


def _sizes(n_components: Any, X: Any) -> NDArray:
    """Validate the numbers of components, and return them sorted and without repetitions."""
    if n_components is None:
        largest = min(max(_num_features(X) // 2, 1), MAX_COMPONENTS)
        return 2 ** np.arange(largest.bit_length())
    sizes = canvas.integers(n_components, 1)
    if not sizes:
        raise ValueError(f"n_components={n_components!r} must hold integers of at least 1, or be None.")
    return np.unique(sizes)


def _with_pca(estimator: Any, param_name: str, size: int) -> Any:
    """Return a clone of the estimator in which PCA replaces the autoencoder."""
    step = param_name.removesuffix("n_components").removesuffix("__")
    pca = fitted.pca_baseline(fitted.autoencoder_of(estimator.get_params()[step] if step else estimator), int(size))
    return clone(estimator).set_params(**{step: pca}) if step else pca


def _size_parameter(results: Any) -> str:
    """Return the name of the only parameter that ends with n_components."""
    names = [key.removeprefix("param_") for key in results if key.startswith("param_")]
    found = [name for name in names if name.split("__")[-1] == "n_components"]
    if len(found) != 1:
        raise ValueError(
            f"cv_results has {len(found)} parameters that end with n_components, {found}, among {names}, but needs "
            "exactly one. Pass param_name, or results of a search over n_components."
        )
    return found[0]


def _best_by_size(results: Any, param_name: str, metric: str) -> tuple[NDArray, NDArray]:
    """Return the sorted sizes, and for each the scores by fold of the candidate with the best mean score."""
    for key in (f"param_{param_name}", f"mean_test_{metric}"):
        if key not in results:
            raise ValueError(
                f"cv_results has no {key!r}, only {sorted(results)}. Choose param_name and metric accordingly."
            )
    values = np.ma.asarray(results[f"param_{param_name}"])
    means = np.asarray(results[f"mean_test_{metric}"], dtype=float)
    usable = np.flatnonzero(~np.ma.getmaskarray(values) & np.isfinite(means))
    if len(usable) == 0:
        raise ValueError(
            f"cv_results has no candidate with a finite mean_test_{metric}: all fits have failed. Repeat the search "
            "with error_score='raise' to see the errors."
        )
    order = usable[np.argsort(-means[usable], kind="stable")]
    sizes, first = np.unique(np.asarray(values[order], dtype=int), return_index=True)
    keys = [key for key in results if key.startswith("split") and key.endswith(f"_test_{metric}")]
    folds = np.stack([np.asarray(results[key], dtype=float) for key in keys], axis=1)
    return sizes, folds[order[first]]
