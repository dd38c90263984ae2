"""Losses of tables whose columns are of different kinds."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.metaestimators import _BaseComposition
from torch import Tensor

from skae._data.containers import chunks_of, extremes
from skae._data.sample import Sample
from skae._objectives.losses import LOSSES, MIN_PROBABILITY, Loss, as_loss
from skae._pca.missing import mean_of_present
from skae._utils import check_parameter

# Number of values that are read at once.
CHUNK_VALUES = 1_000_000
# Largest deviation from one of the sum of the values of a categorical variable.
SUM_TOL = 1e-5


class CategoricalCrossEntropy(Loss):
    """Cross-entropy of categorical variables after one-hot encoding.

    It is the loss of "categorical_cross_entropy" in `ColumnLosses`. Each variable has a column for each category, and
    a softmax over these columns makes the reconstruction probabilities, which sum to one. The entropy of the samples is
    subtracted, so that the loss of a perfect reconstruction is zero. Proportions that sum to one are allowed, too.

    Parameters
    ----------
    n_categories : sequence of int or None, default=None
        Number of categories of each variable, in the order of the columns. None finds them: a variable ends at the
        first column up to which the values of every sample sum to one.

    See Also
    --------
    ColumnLosses : Combines it with losses for other columns.
    BinaryCrossEntropy : Loss of a column for each binary variable.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from skae import AutoEncoderTransformer, CategoricalCrossEntropy
    >>> levels = load_digits().data[:200, 10:20] // 6
    >>> X = OneHotEncoder(sparse_output=False).fit_transform(levels)
    >>> model = AutoEncoderTransformer(2, loss=CategoricalCrossEntropy(), max_epochs=2, random_state=0).fit(X)
    >>> probabilities = model.inverse_transform(model.transform(X))
    >>> bool(abs(probabilities[:, :3].sum(axis=1) - 1).max() < 1e-6)
    True
    """

    link = "softmax"
    in_data_units = True

    def __init__(self, n_categories: Sequence[int] | None = None) -> None:
        self.n_categories = n_categories

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Compute what each category contributes to the cross-entropy minus the entropy, in nats."""
        return torch.special.xlogy(x, x) - torch.special.xlogy(x, x_hat.clamp(min=MIN_PROBABILITY))

    def check(self, X: NDArray) -> None:
        """Check that all values are from 0 to 1."""
        lowest, highest = X.min(), X.max()
        if lowest < 0 or highest > 1:
            raise ValueError(
                "CategoricalCrossEntropy needs categories after one-hot encoding, or proportions, but values range "
                f"from {lowest:g} to {highest:g}. Encode them with OneHotEncoder."
            )

    def _sizes(self, sample: Sample, columns: NDArray) -> tuple[int, ...]:
        """Return the number of categories of each variable."""
        if self.n_categories is not None:
            sizes = tuple(self.n_categories)
            rule = f"must be numbers of categories that sum to the number of columns, {len(columns)}"
            check_parameter(self, "n_categories", min(sizes, default=0) >= 1 and sum(sizes) == len(columns), rule)
            return sizes
        lowest, highest = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
        for chunk in chunks_of(sample, CHUNK_VALUES):
            sums = np.cumsum(sample[chunk][:, columns], axis=1, dtype=np.float64)
            sums = sums[np.isfinite(sums[:, -1])]
            lowest = np.minimum(lowest, sums.min(axis=0, initial=np.inf))
            highest = np.maximum(highest, sums.max(axis=0, initial=-np.inf))
        lowest, highest = -sample.ranks.max(-lowest), sample.ranks.max(highest)
        n_variables = int(np.rint(max(highest[-1], 0.0)))
        wholes = np.arange(1, n_variables + 1)
        ends = np.searchsorted(lowest, wholes - SUM_TOL) + 1
        if n_variables < 1 or ends[-1] > len(columns) or (np.abs(highest[ends - 1] - wholes) > SUM_TOL).any():
            found = f"sum to {lowest[-1]:g} to {highest[-1]:g}" if n_variables > 0 else "are never all present, or zero"
            raise ValueError(
                "CategoricalCrossEntropy() finds variables by columns whose values sum to one in every sample, but the "
                f"values of these {len(columns)} columns {found}, and there are no such columns for each whole. "
                "Encode the categories with OneHotEncoder() or pass n_categories."
            )
        return tuple(int(size) for size in np.diff([0, *ends[:-1], len(columns)]))

    def bind(self, sample: Sample, feature_names: Sequence[str] | None) -> Loss:
        """Return the loss of the variables of all columns."""
        return ColumnLosses([("categories", self, slice(None))]).bind(sample, feature_names)


COLUMN_LOSSES: dict[str, type[Loss]] = {**LOSSES, "categorical_cross_entropy": CategoricalCrossEntropy}


class ColumnLosses(Loss, _BaseComposition):
    """Different losses for different columns, in the manner of `sklearn.compose.ColumnTransformer`.

    Each variable has the same weight: the loss of the columns of an entry is divided by the loss of their mean, and
    multiplied by the number of variables, which is the number of columns or, with "categorical_cross_entropy", of
    categorical variables. Principal components, from which training starts, are those of columns scaled in the same
    way.

    Parameters
    ----------
    losses : list of tuple
        Tuples (name, loss, columns). The loss is a `Loss`, a function, or one of "squared_error", "absolute_error",
        "huber", "binary_cross_entropy", "poisson", "cosine" and "categorical_cross_entropy". The columns are an int, a
        slice, a list of int, a mask, or names: those of features, or of steps of a `ColumnTransformer`, which stand for
        all features whose names start with the name and "__". The parameters of a loss can be tuned by a parameter
        search, such as ``loss__name__delta``.
    remainder : str, Loss or callable, default="squared_error"
        Loss of all other columns.
    loss_weights : dict or None, default=None
        Weights of the variables of an entry by its name, which is "remainder" for the other columns. None is 1 for all.

    See Also
    --------
    CategoricalCrossEntropy : Loss of categorical variables after one-hot encoding.
    AutoEncoderTransformer : Takes a loss as its parameter ``loss``.

    Notes
    -----
    The `score` of the estimator is the fraction of the variance that is explained in the units of the data, and does
    not use these losses.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.compose import make_column_transformer
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.preprocessing import OneHotEncoder, StandardScaler
    >>> from skae import AutoEncoderTransformer, ColumnLosses
    >>> X, y = load_wine(return_X_y=True)
    >>> table = np.column_stack([X, y])
    >>> columns = make_column_transformer((StandardScaler(), slice(0, 13)), (OneHotEncoder(), [13]))
    >>> loss = ColumnLosses([("cultivar", "categorical_cross_entropy", slice(13, None))])
    >>> model = AutoEncoderTransformer(2, loss=loss, random_state=0)
    >>> encoded = columns.fit_transform(table)
    >>> reconstruction = model.inverse_transform(model.fit_transform(encoded))
    >>> bool(abs(reconstruction[:, 13:].sum(axis=1) - 1).max() < 1e-6)
    True
    """

    def __init__(
        self, losses: list, *, remainder: str | Loss | Callable = "squared_error", loss_weights: dict | None = None
    ) -> None:
        self.losses = losses
        self.remainder = remainder
        self.loss_weights = loss_weights

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether the losses by their names, and their parameters by ``name__parameter``, are returned, too.

        Returns
        -------
        dict
            Values by names.
        """
        return self._get_params("_named", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Parameters, losses by their names, and parameters of losses by ``name__parameter``.

        Returns
        -------
        ColumnLosses
            This instance.
        """
        self._set_params("_named", **params)
        return self

    @property
    def _named(self) -> list:
        """Names and losses, as `_BaseComposition` expects them."""
        return [(name, loss) for name, loss, _ in self.losses]

    @_named.setter
    def _named(self, pairs: list) -> None:
        self.losses = [(*pair, columns) for pair, (_, _, columns) in zip(pairs, self.losses, strict=True)]

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Raise an error, because the columns are found in `fit`."""
        raise NotImplementedError("The columns of ColumnLosses are found when an estimator is fitted.")

    def bind(self, sample: Sample, feature_names: Sequence[str] | None) -> "BoundLosses":
        """Return the losses of the columns of the samples of a fit.

        Raises
        ------
        ValueError
            If an entry is not as described, columns are not found or have two losses, or values are invalid for a loss.
        """
        entries = [*self._entries(sample.shape[1], feature_names)]
        names, weights = [name for name, _, _ in entries], self.loss_weights or {}
        if not set(weights).issubset(names) or not all(weight > 0 for weight in weights.values()):
            raise ValueError(
                f"loss_weights={weights!r} must have positive weights by the names of losses, which are {names}."
            )
        limits, mean = sample.ranks.extremes(extremes(sample.X)), mean_of_present(sample)[0]
        variances = _mean_over(sample, mean, lambda values: np.square(values - mean))
        blocks = []
        feature_scale = np.ones(len(mean))
        for name, loss, chosen in entries:
            known = limits[:, [column for column in chosen if np.isfinite(limits[:, column]).all()]]
            try:
                if known.size > 0:
                    loss.check(known)
                of_loss = loss._sizes(sample, chosen) if isinstance(loss, CategoricalCrossEntropy) else ()
            except ValueError as error:
                raise ValueError(f"{name!r} in ColumnLosses: {error}") from error
            n_variables, weight = len(of_loss) or len(chosen), float(weights.get(name, 1.0))
            scale = float(np.sqrt(variances[chosen].mean())) or 1.0
            feature_scale[chosen] = scale * np.sqrt(len(chosen) / (n_variables * weight))
            blocks.append((loss, chosen.tolist(), list(of_loss), scale, weight * n_variables))
        losses, columns, sizes, scales, factors = map(list, zip(*blocks, strict=True))
        references = _losses_of_mean(losses, columns, scales, sample, mean)
        references = np.where(np.isfinite(references) & (references > 0), references, 1.0)
        return BoundLosses(losses, columns, sizes, scales, [*map(float, factors / references)], feature_scale)

    def _entries(self, n_features: int, feature_names: Sequence[str] | None) -> Any:
        """Generate the name, loss and columns of each entry, and of the other columns if there are any."""
        given = self.losses if isinstance(self.losses, list | tuple) else [None]
        if not all(isinstance(one, tuple) and len(one) == 3 for one in given):
            raise ValueError(f"losses of ColumnLosses must be a list of (name, loss, columns), got {self.losses!r}.")
        self._validate_names([name for name, _, _ in self.losses])
        taken = np.zeros(n_features, dtype=bool)
        for name, loss, wanted in self.losses:
            chosen = column_indices(wanted, n_features, feature_names, name)
            if taken[chosen].any():
                twice = chosen[taken[chosen]][0]
                raise ValueError(f"Column {twice} has two losses in ColumnLosses, the second by {name!r}. Pass one.")
            taken[chosen] = True
            yield name, as_column_loss(loss, name), chosen
        if not taken.all():
            yield "remainder", as_column_loss(self.remainder, "remainder"), np.flatnonzero(~taken)


@dataclass(eq=False, repr=False)
class BoundLosses(Loss):
    """Losses of the columns of the samples of a fit.

    Parameters
    ----------
    losses : list of Loss
        Loss of each block of columns.
    columns : list of list of int
        Their columns.
    n_categories : list of list of int
        Numbers of categories of their categorical variables.
    scales : list of float
        Root mean square of the standard deviations of their columns.
    factors : list of float
        What their losses are multiplied by.
    feature_scale : ndarray of shape (n_features,)
        What features are divided by before principal components are found.
    """

    losses: list[Loss]
    columns: list[list[int]]
    n_categories: list[list[int]]
    scales: list[float]
    factors: list[float]
    feature_scale: NDArray

    @property
    def _links(self) -> tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]:
        """Inverse link, columns and numbers of categories of each block."""
        blocks = zip(self.losses, self.columns, self.n_categories, strict=True)
        return tuple((loss.link, tuple(columns), tuple(sizes)) for loss, columns, sizes in blocks)

    def _blocks(self) -> Iterator[tuple[Loss, list[int]]]:
        """Generate the loss and the columns of each block."""
        return zip(self.losses, self.columns, strict=True)

    def per_sample(self, x_hat: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Return the sum of the losses of all blocks."""
        total = torch.zeros_like(x[:, 0])
        for loss, columns, own_scale, factor in zip(self.losses, self.columns, self.scales, self.factors, strict=True):
            block_hat, block, of_mean, of_scale = (selected(values, columns) for values in (x_hat, x, mean, scale))
            if not loss.in_data_units:
                block_hat, block = block_hat * (of_scale / own_scale), block * (of_scale / own_scale)
            total = total + loss.per_sample(block_hat, block, of_mean, of_scale) * factor
        return total / sum(self.factors)


def column_indices(wanted: Any, n_features: int, feature_names: Sequence[str] | None, name: str) -> NDArray:
    """Convert the columns of an entry of `ColumnLosses` to indices.

    Raises
    ------
    ValueError
        If they are no columns of the samples, or none.
    """
    names = [] if feature_names is None else [str(one) for one in feature_names]
    listed = [wanted] if isinstance(wanted, str) else list(wanted) if isinstance(wanted, list | tuple) else []
    try:
        if listed and all(isinstance(one, str) for one in listed):
            found = [[i for i, own in enumerate(names) if own == one or own.startswith(f"{one}__")] for one in listed]
            if not all(found):
                raise IndexError(f"{listed[found.index([])]!r} is none of the names of the features, {names[:10]}")
            chosen = np.array(list(chain.from_iterable(found)))
        else:
            chosen = np.atleast_1d(np.arange(n_features)[wanted if not listed else np.asarray(listed)])
    except (IndexError, TypeError) as error:
        raise ValueError(
            f"{name!r} in ColumnLosses has the columns {wanted!r}, but X has {n_features} features: {error}. Pass "
            "indices, a slice, a mask, or names of features of a data frame."
        ) from error
    if len(chosen) == 0 or len(np.unique(chosen)) < len(chosen):
        raise ValueError(f"{name!r} in ColumnLosses must have columns, each once, got {wanted!r}.")
    return chosen


def as_column_loss(loss: Any, name: str) -> Loss:
    """Convert the loss of an entry of `ColumnLosses`.

    Raises
    ------
    ValueError
        If it is not a loss for some columns.
    """
    if isinstance(loss, str) and loss not in COLUMN_LOSSES:
        raise ValueError(f"{name!r} in ColumnLosses has the loss {loss!r}, but known are {sorted(COLUMN_LOSSES)}.")
    if isinstance(loss, ColumnLosses) or not (isinstance(loss, str) or callable(loss)):
        raise ValueError(f"{name!r} in ColumnLosses must have a name, a Loss or a function as its loss, got {loss!r}.")
    return COLUMN_LOSSES[loss]() if isinstance(loss, str) else as_loss(loss)


def selected(values: Tensor, columns: Sequence[int]) -> Tensor:
    """Return some columns, without a copy if each follows the one before, by operations that convert to ONNX."""
    if all(after == before + 1 for before, after in pairwise(columns)):
        return values[..., columns[0] : columns[-1] + 1]
    return values.index_select(-1, torch.as_tensor(columns, device=values.device))


def _mean_over(sample: Sample, mean: NDArray, function: Callable[[NDArray], NDArray]) -> NDArray:
    """Return the weighted mean of a function of samples, whose missing values are replaced by the mean."""
    total: Any = 0.0
    for chunk in chunks_of(sample, CHUNK_VALUES):
        values = sample[chunk].astype(np.float64)
        total = total + sample.weighted_sum(function(np.where(np.isnan(values), mean, values)), chunk)
    return np.asarray(sample.ranks.sum(total) / sample.total)


def _losses_of_mean(
    losses: Sequence[Loss], columns: Sequence[list[int]], scales: Sequence[float], sample: Sample, mean: NDArray
) -> NDArray:
    """Return the loss of each block of columns if each sample is reconstructed as the mean."""

    def measured(values: NDArray) -> NDArray:
        of_blocks = []
        for loss, chosen, scale in zip(losses, columns, scales, strict=True):
            center, unit = torch.from_numpy(mean[chosen]), torch.tensor(scale, dtype=torch.float64)
            x = (torch.from_numpy(values[:, chosen]) - center) / unit
            of_blocks.append(loss.per_sample(torch.zeros_like(x), x, center, unit))
        return torch.stack(of_blocks, dim=1).numpy()

    with torch.no_grad():
        return _mean_over(sample, mean, measured)
