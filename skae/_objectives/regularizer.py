"""Base class of regularizers, and what they are given."""

from typing import Any, Protocol, Self

import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch import Tensor

from skae._data.containers import Samples
from skae._utils import Documented, check_parameter


class Core(Protocol):
    """Protocol of the network, for standardized samples and codes that initially have unit scale."""

    output_gain: Tensor

    def encode(self, x: Tensor) -> Tensor: ...

    def log_variance(self, x: Tensor) -> Tensor: ...

    def read_out(self, z: Tensor) -> Tensor: ...


class Context(Protocol):
    """Protocol of the state of training."""

    generator: torch.Generator
    epoch: int | None
    nat: float
    indices: NDArray | None


class Regularizer(Documented, BaseEstimator):
    """Base class of regularizers.

    A subclass overrides `corrupt`, `penalty` or both. Samples are centered and divided by their overall scale, and
    codes have about unit scale. Penalties are in units of the loss of the mean as reconstruction of every sample.
    Parameters can be tuned by a parameter search, such as ``regularizer__noise``.

    Attributes
    ----------
    variational : bool
        Whether the encoder also computes a variance of each code, with which codes are drawn in training.
    corrupts : bool
        Whether `corrupt` changes the samples, so that training adds no other noise to them.
    n_outputs : int
        Number of outputs of a linear function of the codes, ``network.read_out``, that is trained with the network.
    ordered : bool
        Whether codes may be ordered by importance, as with ``ordered=True``.
    needs_y : bool
        Whether `AutoEncoderTransformer.fit` needs ``y``.
    projects : bool
        Whether `AutoEncoderTransformer.transform` projects. False for a regularizer that shapes the encoder itself,
        whose codes are then those of the encoder.

    See Also
    --------
    AutoEncoderTransformer : Estimator with a parameter ``regularizer``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Regularizer
    >>> class SmallCodes(Regularizer):
    ...     def penalty(self, x, z, network, context):
    ...         return 0.01 * z.square().mean(dim=1)
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, regularizer=SmallCodes(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    variational = False
    corrupts = False
    n_outputs = 0
    needs_y = False
    ordered = True
    projects = True
    strata: NDArray | None = None

    def bind(self, X: Samples, y: Any, n_components: int | None, seed: int) -> Self:
        """Return the regularizer for the samples of a fit; a subclass may return a copy that knows them all.

        Parameters
        ----------
        X : ndarray, or another object whose slices are ndarray, of shape (n_samples, n_features)
            Samples that `AutoEncoderTransformer.fit` was called with.
        y : array-like of shape (n_samples,) or None
            The ``y`` that it was called with.
        n_components : int or None
            Number of codes. None if it is not chosen yet.
        seed : int
            Seed of all random numbers.

        Returns
        -------
        Regularizer
            The regularizer whose other methods are called. Its attribute ``strata`` may be an array of int of shape
            (n_samples,): samples of each kind are then held out in proportion.
        """
        return self

    def corrupt(self, x: Tensor, network: Core, context: Context) -> Tensor:
        """Return corrupted samples, which are encoded. The target of their reconstruction is x.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            A batch of samples.
        network : object
            Network with the attribute ``output_gain``, the scale of each feature, and the methods ``encode``, which
            maps samples to codes, ``log_variance``, which maps samples to the log variances of their codes, and
            ``read_out``, which maps codes to ``n_outputs`` numbers.
        context : object
            State of training. Its attributes are ``generator``, from which all random numbers must be drawn, ``epoch``,
            the number of completed epochs, or None for held-out samples, ``nat``, one nat of the log-likelihood of a
            sample in the unit of the loss, and ``indices``, those of the samples in X, or None for validation samples
            that are not in X.

        Returns
        -------
        Tensor of shape (n, n_features)
            The samples to encode.
        """
        return x

    def penalty(self, x: Tensor, z: Tensor, network: Core, context: Context) -> Tensor | None:
        """Return the penalty of each sample, which is added to its loss.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            The samples that were encoded.
        z : Tensor of shape (n, n_components)
            Their codes.
        network : object
            The network, as in `corrupt`.
        context : object
            State of training, as in `corrupt`.

        Returns
        -------
        Tensor of shape (n,) or None
            The penalties, or None if there is no penalty.
        """
        return None

    def initial_read_out(self, z: NDArray, indices: NDArray) -> tuple[NDArray, NDArray] | None:
        """Return the weights from which ``network.read_out`` is trained.

        Parameters
        ----------
        z : ndarray of shape (n, n_components)
            Codes of training samples at the start.
        indices : ndarray of shape (n,)
            Indices of the samples in X.

        Returns
        -------
        coef : ndarray of shape (n_outputs, n_components)
            Coefficients.
        intercept : ndarray of shape (n_outputs,)
            Constants. None in place of both is zero for all.
        """
        return None

    def code_penalty(self, z: Tensor, spread: Tensor) -> Tensor | None:
        """Return what the code of a sample adds to the loss that `AutoEncoderTransformer.transform` minimizes.

        Parameters
        ----------
        z : Tensor of shape (n, n_components)
            Codes.
        spread : Tensor of shape (n_components,)
            Root mean square of each code over the training samples. Codes must not depend on the other samples of a
            batch, so this stands for statistics over the batch.

        Returns
        -------
        Tensor of shape (n,) or None
            The penalties; None is none.
        """
        return None

    def check(self) -> None:
        """Check that no parameter is negative; a subclass may check more.

        Raises
        ------
        ValueError
            If a parameter is not valid.
        """
        for name, value in self.get_params(deep=False).items():
            check_parameter(self, name, not (isinstance(value, int | float) and value < 0), "must be at least 0")
