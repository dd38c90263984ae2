"""Scores as a function of the number of components, compared to PCA: the curve and its plot."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, indexable
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from skae._autoencoder import AutoEncoderTransformer
from skae._display import canvas, fitted
from skae._objectives.regularizers import Nested, as_regularizers


def bottleneck_curve(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    cv: Any = None,
    n_jobs: int | None = None,
    params: dict[str, Any] | None = None,
) -> Bunch:
    """Cross-validate all numbers of components with one fit per fold.

    The codes of an autoencoder are ordered, so a fit with ``n_components`` codes contains those with fewer: held-out
    samples are scored by the first code alone, the first two, and so on. PCA is scored in the same way. For the last
    size, the scores are those of `sklearn.model_selection.cross_val_score`.

    Parameters
    ----------
    estimator : AutoEncoderTransformer or Pipeline
        Autoencoder, or pipeline whose last step is an autoencoder, whose ``n_components`` is the largest size. A clone
        is fitted for each fold.
    X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
        Samples for the cross-validation.
    y : array-like of shape (n_samples,), default=None
        Target for splitters and steps that need it.
    groups : array-like of shape (n_samples,), default=None
        Group labels for a ``cv`` such as `GroupKFold`.
    cv : int, cross-validation generator or iterable of splits, default=None
        Splits, as in scikit-learn. None is 5-fold cross-validation.
    n_jobs : int, default=None
        Number of folds that are computed in parallel, as in scikit-learn.
    params : dict, default=None
        Parameters for ``fit``, such as ``{"sample_weight": weights}``. Arrays with an entry for each sample are split.
        As in `cross_validate`, all held-out samples have the same weight.

    Returns
    -------
    Bunch
        Dictionary-like object with the following attributes.

        n_components : ndarray of shape (n_sizes,)
            The sizes, from 1 to ``n_components``.
        test_scores : ndarray of shape (n_sizes, n_folds)
            Fraction of the variance of the held-out samples that is explained, as returned by ``score``.
        pca_scores : ndarray of shape (n_sizes, n_folds)
            The same of PCA, in place of the autoencoder. NaN for sizes that PCA cannot have.

    Raises
    ------
    ValueError
        If the codes are not ordered, ``n_components`` is not an integer, or a fit fails.
    TypeError
        If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.

    See Also
    --------
    BottleneckDisplay : Plot of the curve.
    sklearn.model_selection.validation_curve : Scores as a function of any parameter, with one fit per value and fold.

    Notes
    -----
    A network for many codes is not as good with few of them as a network for these alone: the first scores are lower
    than those of separate fits, and usually higher than those of PCA. ``regularizer="nested"`` brings them nearer.

    Scoring takes as long as ``n_components`` calls of ``score``. If X has missing values, they are imputed with all
    components for each size.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, bottleneck_curve
    >>> X = load_digits().data[:300]
    >>> curve = bottleneck_curve(AutoEncoderTransformer(4, max_epochs=5, random_state=0), X, cv=2)
    >>> curve.n_components
    array([1, 2, 3, 4])
    >>> curve.test_scores.shape, curve.pca_scores.shape
    ((4, 2), (4, 2))
    """
    autoencoder = fitted.autoencoder_of(estimator)
    if not (autoencoder.ordered or any(isinstance(one, Nested) for one in as_regularizers(autoencoder.regularizer))):
        raise ValueError(
            "ordered=False gives codes without an order, so the first ones are no smaller bottleneck. Set "
            "ordered=True, or fit each size with GridSearchCV or sklearn.model_selection.validation_curve."
        )
    if not isinstance(autoencoder.n_components, Integral):
        raise ValueError(
            f"n_components={autoencoder.n_components!r} must be an integer, the largest size of the curve. Set it to "
            "the largest size of interest, at most min(n_samples, n_features)."
        )
    X, y, groups = indexable(X, y, groups)
    splits = list(check_cv(cv, y).split(X, y, groups))
    folds = Parallel(n_jobs=n_jobs)(delayed(_scores_of_fold)(estimator, X, y, *split, params) for split in splits)
    test_scores, pca_scores = np.transpose(folds, (1, 2, 0))
    return Bunch(n_components=np.arange(1, len(test_scores) + 1), test_scores=test_scores, pca_scores=pca_scores)


def _scores_of_fold(
    estimator: Any, X: Any, y: Any, train: NDArray, test: NDArray, params: dict[str, Any] | None
) -> list[NDArray]:
    """Return the held-out scores of the autoencoder and of PCA by size."""
    params = _check_method_params(X, params or {}, train)
    (X_train, y_train), (X_test, _) = (_safe_split(estimator, X, y, rows) for rows in (train, test))

    def scores(model: Any) -> tuple[NDArray, AutoEncoderTransformer]:
        before, autoencoder = fitted.parts(model.fit(X_train, y_train, **params))
        return autoencoder._prefix_scores(before.transform(X_test)), autoencoder

    test_scores, autoencoder = scores(clone(estimator))
    largest = min(len(test_scores), len(train), autoencoder.n_features_in_)
    pca = fitted.pca_baseline(autoencoder, largest)
    if isinstance(estimator, Pipeline):
        pca = clone(estimator).set_params(**{estimator.steps[-1][0]: pca})
    pca_scores = np.pad(scores(pca)[0], (0, len(test_scores) - largest), constant_values=np.nan)
    return [test_scores, pca_scores]


@dataclass(kw_only=True, eq=False, repr=False)
class BottleneckDisplay:
    """Held-out scores of an autoencoder as a function of the number of components, compared to PCA.

    It is recommended to create a display with `from_estimator`. All parameters are stored as attributes.

    Parameters
    ----------
    n_components : array-like of shape (n_sizes,)
        Numbers of components, which are the sizes of the bottleneck.
    test_scores : array-like of shape (n_sizes, n_folds)
        Score of the held-out samples of each fold.
    pca_scores : array-like of shape (n_sizes, n_folds) or None, default=None
        Scores of PCA with the same numbers of components. None draws no scores of PCA.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        Mean of the scores over the folds, of the autoencoder and of PCA.
    fill_between_ : list of matplotlib PolyCollection
        Standard deviation of the scores over the folds, above and below the mean.
    ax_ : matplotlib Axes
        The axes with the plot.
    figure_ : matplotlib Figure
        The figure that contains the axes.

    See Also
    --------
    bottleneck_curve : The scores without a plot.
    sklearn.model_selection.ValidationCurveDisplay : Scores as a function of any parameter, without PCA.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, BottleneckDisplay
    >>> X = load_digits().data[:300]
    >>> autoencoder = AutoEncoderTransformer(4, max_epochs=5, random_state=0)
    >>> display = BottleneckDisplay.from_estimator(autoencoder, X, cv=2)
    >>> display.ax_.get_xlabel()
    'number of components'
    """

    n_components: ArrayLike
    test_scores: ArrayLike
    pca_scores: ArrayLike | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        *,
        groups: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        params: dict[str, Any] | None = None,
        ax: Any = None,
    ) -> "BottleneckDisplay":
        """Cross-validate all numbers of components by `bottleneck_curve`, and draw the scores.

        Parameters
        ----------
        estimator : AutoEncoderTransformer or Pipeline
            Autoencoder, or pipeline whose last step is an autoencoder, whose ``n_components`` is the largest size. It
            does not need to be fitted.
        X : {array-like, sparse matrix or array} of shape (n_samples, n_features)
            Samples for the cross-validation.
        y : array-like of shape (n_samples,), default=None
            Target for splitters and steps that need it.
        groups : array-like of shape (n_samples,), default=None
            Group labels for a ``cv`` such as `GroupKFold`.
        cv : int, cross-validation generator or iterable of splits, default=None
            Splits, as in scikit-learn. None is 5-fold cross-validation.
        n_jobs : int, default=None
            Number of folds that are computed in parallel, as in scikit-learn.
        params : dict, default=None
            Parameters for ``fit``, as in `bottleneck_curve`.
        ax : matplotlib Axes, default=None
            Axes to draw on. None creates a new figure.

        Returns
        -------
        BottleneckDisplay
            The display, which stores the data of the plot.

        Raises
        ------
        ValueError
            If the codes are not ordered, ``n_components`` is not an integer, or a fit fails.
        TypeError
            If ``estimator`` is neither an AutoEncoderTransformer nor a Pipeline that ends with one.
        ImportError
            If matplotlib is not installed.
        """
        canvas.pyplot(f"{cls.__name__}.from_estimator")
        curve = bottleneck_curve(estimator, X, y, groups=groups, cv=cv, n_jobs=n_jobs, params=params)
        return cls(**curve).plot(ax=ax)

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
        self.lines_, self.fill_between_ = [], []
        sizes = np.asarray(self.n_components)
        for name, by_fold in (("autoencoder", self.test_scores), ("PCA", self.pca_scores)):
            if by_fold is not None:
                scores, style = np.asarray(by_fold, dtype=float), {"color": canvas.COLORS[name]}
                mean, std = scores.mean(axis=1), scores.std(axis=1)
                self.lines_ += ax.plot(sizes, mean, "o-", markersize=3, label=name, **style)
                self.fill_between_.append(ax.fill_between(sizes, mean - std, mean + std, alpha=0.3, **style))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="number of components", ylabel="held-out explained variance ratio")
        ax.legend()
        return self
