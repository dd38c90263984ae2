"""Losses that training minimizes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from skae._data.sample import Sample
from skae._utils import Documented, check_parameter

# Minimum distance of probabilities from 0 and 1, and of rates from 0, in logarithms. No measurement of this value is
# recorded.
MIN_PROBABILITY = 1e-5


class Loss(Documented, BaseEstimator):
    """Base class of losses.

    A subclass defines `elementwise`. It may set the attributes below, and raise errors for invalid data in `check`.
    Its parameters can be tuned by a parameter search, such as ``loss__delta``.

    Attributes
    ----------
    link : {"identity", "sigmoid", "exp"}
        Inverse link that maps the output of the decoder to means.
    in_data_units : bool
        Whether `elementwise` is called with samples in the units of the data. Otherwise, they are centered and divided
        by their overall scale.
    start : {"mean", "robust", "direction"}
        Principal components from which the network is initialized. "mean" stands for those of the samples, "robust" for
        those after outliers are moved towards the median, for losses that outliers do not dominate, and "direction"
        for those of the uncentered samples, divided by their lengths, if they have the lower loss.

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
    feature_scale: NDArray | None = None

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
        """Compute the loss of each value or sample, as `elementwise`."""
        return self.elementwise(x_hat, x)

    def per_sample(self, x_hat: Tensor, x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """Return the loss of each sample.

        Parameters
        ----------
        x_hat, x : Tensor of shape (n, n_features)
            Reconstructions and samples, centered and divided by their scale.
        mean : Tensor of shape (n_features,)
            Mean that was subtracted.
        scale : Tensor
            Scale by which all features, or each of them, were divided.

        Returns
        -------
        Tensor of shape (n,)
            The losses.
        """
        if self.in_data_units:
            x_hat, x = torch.addcmul(mean, x_hat, scale), torch.addcmul(mean, x, scale)
            if self.link != "identity":  # rounding errors may leave the range of the data
                x = x.clamp(min=0.0) if self.link == "exp" else x.clamp(0.0, 1.0)
        losses = self.elementwise(x_hat, x)
        return losses if losses.dim() == 1 else losses.mean(dim=1)

    def check(self, X: NDArray) -> None:
        """Check that the loss is defined for the data; a subclass may raise a ValueError.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            The training samples, or only the minima and maxima of their features.
        """

    def _blocks(self) -> "Iterable[tuple[Loss, Any]]":
        """Return pairs of a loss and the columns that it is for: this loss, for all columns."""
        return [(self, slice(None))]

    @property
    def _links(self) -> str | tuple:
        """Inverse link of all columns, or those of blocks of columns."""
        return self.link

    def bind(self, sample: Sample, feature_names: Sequence[str] | None) -> "Loss":
        """Return the loss for the samples of a fit.

        Parameters
        ----------
        sample : Sample of shape (n_samples, n_features)
            The training samples.
        feature_names : sequence of str or None
            Names of the features, if they have any.

        Returns
        -------
        Loss
            This loss, if it does not depend on the samples.
        """
        return self


class SquaredError(Loss):
    """Squared error, which PCA minimizes.

    It is the loss of ``loss="squared_error"``. Reconstructions estimate means.

    See Also
    --------
    Huber : Squared error that is linear for large differences.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, SquaredError
    >>> X = load_digits().data[:200] / 16
    >>> AutoEncoderTransformer(4, loss=SquaredError(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Compute the square of each difference."""
        return (x_hat - x).square()


class AbsoluteError(Loss):
    """Absolute error, which is robust to outliers.

    It is the loss of ``loss="absolute_error"``. Reconstructions estimate medians.

    See Also
    --------
    Huber : Squared error of small differences and absolute error of large ones.

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
        """Compute the absolute value of each difference."""
        return (x_hat - x).abs()


class Huber(Loss):
    """Squared error of small differences and absolute error of large ones.

    It is the loss of ``loss="huber"``.

    Parameters
    ----------
    delta : float, default=1.0
        Difference at which the loss changes from squared to absolute, in units of the overall scale of the data, which
        is the square root of the mean variance of the features.

    See Also
    --------
    AbsoluteError : Limit of a small delta, up to a factor.
    SquaredError : Limit of a large delta, up to a factor.

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
        """Compute the Huber loss of each difference."""
        return nn.functional.huber_loss(x_hat, x, reduction="none", delta=self.delta)

    def check(self, X: NDArray) -> None:
        """Check that delta is positive."""
        check_parameter(self, "delta", self.delta > 0, "must be above 0, in units of the overall scale")


class BinaryCrossEntropy(Loss):
    """Binary cross-entropy, for values from 0 to 1 such as pixels or binary features.

    It is the loss of ``loss="binary_cross_entropy"``. The cross-entropy of a perfect reconstruction is subtracted, so
    that the loss is zero for it. Reconstructions are probabilities: the logistic function is applied to the output of
    the decoder.

    See Also
    --------
    Poisson : Loss for counts.

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
        """Compute the cross-entropy of each value minus its entropy, in nats."""
        p = x_hat.clamp(MIN_PROBABILITY, 1.0 - MIN_PROBABILITY)
        entropy = torch.special.xlogy(x, x) + torch.special.xlogy(1.0 - x, 1.0 - x)
        return entropy - torch.special.xlogy(x, p) - torch.special.xlogy(1.0 - x, 1.0 - p)

    def check(self, X: NDArray) -> None:
        """Check that all values are from 0 to 1."""
        lowest, highest = X.min(), X.max()
        if lowest < 0 or highest > 1:
            raise ValueError(
                f"loss='binary_cross_entropy' needs values between 0 and 1, but X ranges from {lowest:g} to "
                f"{highest:g}. Scale X, for example with MinMaxScaler, or use loss='squared_error'."
            )


class Poisson(Loss):
    """Half the Poisson deviance, for counts.

    It is the loss of ``loss="poisson"``. Reconstructions are rates: the exponential function is applied to the output
    of the decoder.

    See Also
    --------
    BinaryCrossEntropy : Loss for values from 0 to 1.

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
        """Compute half the deviance of each count."""
        rate = x_hat.clamp(min=MIN_PROBABILITY)
        return torch.special.xlogy(x, x) - torch.special.xlogy(x, rate) - x + rate

    def check(self, X: NDArray) -> None:
        """Check that no value is negative."""
        lowest = X.min()
        if lowest < 0:
            raise ValueError(
                "Negative values in data: loss='poisson' needs counts of at least 0, but X has values down to "
                f"{lowest:g}. Use loss='squared_error'."
            )


class Cosine(Loss):
    """One minus the cosine of the angle between a sample and its reconstruction, for embeddings.

    It is the loss of ``loss="cosine"``. The cosine does not depend on the length of a reconstruction, so a second term
    compares its length with that of the sample.

    Parameters
    ----------
    length_weight : float, default=0.1
        Weight of the squared difference of the lengths, each relative to the longer one of a sample and its
        reconstruction.

    See Also
    --------
    SquaredError : Loss that depends on lengths as much as on angles.

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
        """Compute the loss of each sample."""
        length, length_hat = x.norm(dim=1), x_hat.norm(dim=1)
        # By the longer one, the difference of a sample of zeros is finite too.
        difference = (length_hat - length) / torch.maximum(length, length_hat).clamp(min=torch.finfo(x.dtype).tiny)
        return 1.0 - nn.functional.cosine_similarity(x_hat, x, dim=1) + self.length_weight * difference.square()

    def check(self, X: NDArray) -> None:
        """Check that the weight is not negative."""
        check_parameter(self, "length_weight", self.length_weight >= 0, "must be at least 0")


LOSSES: dict[str, type[Loss]] = {
    "squared_error": SquaredError,
    "absolute_error": AbsoluteError,
    "huber": Huber,
    "binary_cross_entropy": BinaryCrossEntropy,
    "poisson": Poisson,
    "cosine": Cosine,
}


class CallableLoss(Loss):
    """Loss that is computed by a function or module, in the units of the data.

    Parameters
    ----------
    function : callable
        Function of the reconstructions and the samples that returns the loss of each value or sample.
    """

    in_data_units = True

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function

    def elementwise(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Call the function, and check the shape of its result."""
        losses = self.function(x_hat, x)
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        if shape not in (tuple(x.shape), (x.shape[0],)):
            raise ValueError(
                f"loss={self.function!r} returned {shape} for samples of shape {tuple(x.shape)}. Return the loss of "
                "each value or of each sample as a tensor; torch's losses do so with reduction='none'."
            )
        return losses


def as_loss(loss: "str | Loss | Callable") -> Loss:
    """Convert the ``loss`` parameter to a `Loss`.

    Raises
    ------
    TypeError
        If it is a class instead of an instance.
    """
    if isinstance(loss, str):
        return LOSSES[loss]()
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type):
        raise TypeError(
            f"loss must be a name, an instance or a function, got the class {loss.__name__}. Pass an instance."
        )
    return CallableLoss(loss)
