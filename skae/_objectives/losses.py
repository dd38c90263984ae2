"""Losses: what training minimizes, each one small class with one entry in a table."""

from collections.abc import Callable

import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from skae._utils import Documented

# Nearest to 0 and 1 that a probability, and to 0 that a rate in parts of the mean, counts in a logarithm.
CERTAIN = 1e-5


class Loss(Documented, BaseEstimator):
    """Base class of losses.

    A subclass defines `elementwise`, and may set ``link`` and ``in_data_units`` and refuse data in `check`. Its
    parameters can be searched, as ``loss__delta`` can.

    Attributes
    ----------
    link : {"identity", "sigmoid", "exp"}
        Makes means of what the decoder computes.
    in_data_units : bool
        Whether values come in units of the data; otherwise centered and divided by the overall scale.
    start : {"mean", "robust", "direction"}
        Which principal components training starts from: those about the mean; those of samples of which the few that
        are far from all others are moved towards the median, for losses that wild samples do not dominate; or, where
        these have the lower loss, those of directions about zero.

    See Also
    --------
    AutoEncoderTransformer : Takes a loss as its parameter ``loss``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Loss
    >>> class LogCosh(Loss):
    ...     def elementwise(self, x_hat, x):
    ...         return (x_hat - x).cosh().log()
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, loss=LogCosh(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    link = "identity"
    in_data_units = False
    start = "mean"

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Return the loss of each value or sample.

        Parameters
        ----------
        x_hat : Tensor of shape (n, n_features)
            Reconstructions.
        x : Tensor of shape (n, n_features)
            The samples.

        Returns
        -------
        Tensor of shape (n, n_features) or (n,)
            The losses.
        """
        raise NotImplementedError(f"{type(self).__name__} must define elementwise(x_hat, x).")

    def __call__(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Loss of each value or sample."""
        return self.elementwise(x_hat, x)

    def check(self, X: NDArray) -> None:
        """Refuse data that the loss is not for; any will do unless a subclass says otherwise.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            The training samples.
        """


class SquaredError(Loss):
    """Squared error: the loss that PCA minimizes, so that a linear autoencoder is PCA.

    It is the loss of ``loss="squared_error"``, and estimates means.

    See Also
    --------
    Huber : Squares that large differences do not dominate.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, SquaredError
    >>> X = load_digits().data[:200] / 16
    >>> AutoEncoderTransformer(4, loss=SquaredError(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Square of each difference."""
        return (x_hat - x).square()


class AbsoluteError(Loss):
    """Absolute error, which large differences do not dominate.

    It is the loss of ``loss="absolute_error"``, and estimates medians.

    See Also
    --------
    Huber : In between absolute and squared error.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, AbsoluteError
    >>> X = load_digits().data[:200] / 16
    >>> AutoEncoderTransformer(4, loss=AbsoluteError(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    start = "robust"

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Size of each difference."""
        return (x_hat - x).abs()


class Huber(Loss):
    """Squared error of small differences and absolute error of large ones.

    It is the loss of ``loss="huber"``.

    Parameters
    ----------
    delta : float, default=1.0
        Where small ends, in parts of the overall scale of the data: the root of the features' mean variance.

    See Also
    --------
    AbsoluteError : The limit of a small delta.
    SquaredError : The limit of a large one.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics 35 (1964)
       73-101. :doi:`10.1214/aoms/1177703732`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Huber
    >>> X = load_digits().data[:200] / 16
    >>> AutoEncoderTransformer(4, loss=Huber(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    start = "robust"

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = delta

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Huber's function of each difference."""
        return nn.functional.huber_loss(x_hat, x, reduction="none", delta=self.delta)

    def check(self, X: NDArray) -> None:
        """Refuse a delta that is no positive number."""
        if not self.delta > 0:
            raise ValueError(f"Huber(delta={self.delta!r}): delta must be above 0, in parts of the overall scale.")


class BinaryCrossEntropy(Loss):
    """Deviance of probabilities, for values between 0 and 1: pixels, or yes and no.

    It is the loss of ``loss="binary_cross_entropy"``: the cross-entropy less that of a perfect reconstruction, so 0
    is perfect. Reconstructions are probabilities: the decoder ends in the logistic function.

    See Also
    --------
    Poisson : For counts.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, BinaryCrossEntropy
    >>> X = load_digits().data[:200] / 16
    >>> AutoEncoderTransformer(4, loss=BinaryCrossEntropy(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    link = "sigmoid"
    in_data_units = True

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Deviance of each value, in nats."""
        p = x_hat.clamp(CERTAIN, 1.0 - CERTAIN)
        entropy = torch.special.xlogy(x, x) + torch.special.xlogy(1.0 - x, 1.0 - x)
        return entropy - torch.special.xlogy(x, p) - torch.special.xlogy(1.0 - x, 1.0 - p)

    def check(self, X: NDArray) -> None:
        """Refuse values that are no probabilities."""
        lowest, highest = X.min(), X.max()
        if lowest < 0 or highest > 1:
            raise ValueError(
                f"loss='binary_cross_entropy' needs values between 0 and 1, but X ranges from {lowest:g} to "
                f"{highest:g}. Scale X, for example with MinMaxScaler, or use loss='squared_error'."
            )


class Poisson(Loss):
    """Deviance of Poisson rates, for counts.

    It is the loss of ``loss="poisson"``. Reconstructions are rates: the decoder ends in the exponential.

    See Also
    --------
    BinaryCrossEntropy : For values between 0 and 1.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Poisson
    >>> X = load_digits().data[:200] / 16
    >>> AutoEncoderTransformer(4, loss=Poisson(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    link = "exp"
    in_data_units = True

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Half the deviance of each count."""
        rate = x_hat.clamp(min=CERTAIN)
        return torch.special.xlogy(x, x) - torch.special.xlogy(x, rate) - x + rate

    def check(self, X: NDArray) -> None:
        """Refuse values that are no counts."""
        lowest = X.min()
        if lowest < 0:
            raise ValueError(
                "Negative values in data: loss='poisson' needs counts of at least 0, but X has values down to "
                f"{lowest:g}. Use loss='squared_error'."
            )


class Cosine(Loss):
    """One minus the cosine of the angle between a sample and its reconstruction, for embeddings.

    It is the loss of ``loss="cosine"``. Angles alone say nothing of lengths, so that of a reconstruction would be
    arbitrary: a light second term keeps it near the sample's.

    Parameters
    ----------
    length_weight : float, default=0.1
        Weight of the squared difference of the lengths, in parts of the samples' mean squared length.

    See Also
    --------
    SquaredError : Where lengths matter as much.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Cosine
    >>> X = load_digits().data[:200] / 16
    >>> AutoEncoderTransformer(4, loss=Cosine(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    in_data_units = True
    start = "direction"

    def __init__(self, length_weight: float = 0.1) -> None:
        self.length_weight = length_weight

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Loss of each sample."""
        lengths = x.norm(dim=1)
        differences = (x_hat.norm(dim=1) - lengths).square() / lengths.square().mean().clamp(min=1e-12)
        return 1.0 - nn.functional.cosine_similarity(x_hat, x, dim=1) + self.length_weight * differences

    def check(self, X: NDArray) -> None:
        """Refuse a weight below zero."""
        if not self.length_weight >= 0:
            raise ValueError(f"Cosine(length_weight={self.length_weight!r}): length_weight must be at least 0.")


LOSSES: dict[str, type[Loss]] = {
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "binary_cross_entropy": BinaryCrossEntropy,
    "poisson": Poisson,
    "cosine": Cosine,
}


class CallableLoss(Loss):
    """A callable or module of the user's, called with values in units of the data.

    Parameters
    ----------
    function : callable
        Takes reconstructions and samples; returns the loss of each value or sample.
    """

    in_data_units = True

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Call it and look at what it returns."""
        losses = self.function(x_hat, x)
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        if shape not in (tuple(x.shape), (len(x),)):
            raise ValueError(
                f"loss={self.function!r} returned {shape} for samples of shape {tuple(x.shape)}. Return the loss of "
                "each value or of each sample as a tensor; torch's losses do so with reduction='none'."
            )
        return losses


def as_loss(loss: "str | Loss | Callable") -> Loss:
    """Turn the ``loss`` parameter into an object.

    Raises
    ------
    TypeError
        If it is a class, which has to be called first.
    """
    if isinstance(loss, str):
        return LOSSES[loss]()
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type):
        raise TypeError(f"loss must be a name, an instance or a function, got the class {loss.__name__}: call it.")
    return CallableLoss(loss)
