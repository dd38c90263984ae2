"""Regularizers, which corrupt samples or add penalties to the loss."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._objectives.neighbors import Neighbors
from skae._objectives.regularizer import Context, Core, Regularizer
from skae._objectives.supervised import Supervised
from skae._utils import check_parameter

# Number of components up to which the norm of the Jacobian is computed exactly. No measurement of this value is
# recorded.
MAX_EXACT_COMPONENTS = 8
# Constant that avoids division by zero for constant codes. Chosen by reasoning.
EPSILON = 1e-6


class Denoising(Regularizer):
    """Corruption of the input, whose target is the original sample.

    It is the regularizer of ``regularizer="denoising"``. It replaces the noise that training adds to its input by
    default. Held-out samples are also corrupted, with the same random numbers in each epoch.

    Parameters
    ----------
    noise : float, default=0.5
        Standard deviation of the noise, relative to the scale of each feature, if ``kind="gaussian"``. Otherwise, the
        fraction of values that are masked or swapped.
    kind : {"gaussian", "masking", "swap"}, default="gaussian"
        "gaussian" adds Gaussian noise, "masking" replaces values by the mean of the feature, and "swap" replaces them
        by the value of another sample of the batch.

    See Also
    --------
    Contractive : Penalty on the derivatives of the encoder.

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, Y. Bengio, P.-A. Manzagol, "Extracting and composing robust features with
       denoising autoencoders", ICML 2008. :doi:`10.1145/1390156.1390294`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Denoising
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, regularizer=Denoising(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    corrupts = True
    KINDS = ("gaussian", "masking", "swap")

    def __init__(self, noise: float = 0.5, kind: str = "gaussian") -> None:
        self.noise = noise
        self.kind = kind

    def corrupt(self, x: Tensor, network: Core, context: Context) -> Tensor:
        """Return corrupted samples."""
        generator = context.generator
        if self.kind == "gaussian":
            noise = torch.empty_like(x).normal_(generator=generator)
            return torch.addcmul(x, noise, network.output_gain, value=self.noise)
        chosen = torch.empty_like(x).bernoulli_(self.noise, generator=generator).bool()
        if self.kind == "masking":
            return x.masked_fill(chosen, 0.0)
        # The other sample is drawn for each value separately, so that not all values come from the same one.
        sources = torch.empty_like(x).uniform_(generator=generator).mul_(len(x)).long().clamp_(max=len(x) - 1)
        return torch.where(chosen, x.gather(0, sources), x)

    def check(self) -> None:
        """Check ``kind``, and that ``noise`` is valid for it."""
        super().check()
        check_parameter(self, "kind", self.kind in self.KINDS, f"must be one of {', '.join(map(repr, self.KINDS))}")
        valid = self.kind == "gaussian" or self.noise <= 1
        check_parameter(self, "noise", valid, f"is a fraction of values, from 0 to 1, if kind={self.kind!r}")


class Sparse(Regularizer):
    """Sparsity penalty on the codes.

    It is the regularizer of ``regularizer="sparse"``. Codes are divided by their root mean square over the batch and
    then by the root mean square over the components, so that the penalty depends neither on the scale of the codes nor
    on the length of a sample.

    Parameters
    ----------
    weight : float, default=0.3
        Weight of the penalty.
    kind : {"l1", "kl"}, default="l1"
        "l1" is the mean absolute value of the scaled codes of a sample. "kl" is the Kullback-Leibler divergence of
        ``target`` and the mean activation of each component, which is the hyperbolic tangent of the absolute value.
    target : float, default=0.2
        Target of the mean activation, between 0 and 1, for ``kind="kl"``.

    See Also
    --------
    Contractive : Penalty on the derivatives of the encoder.

    References
    ----------
    .. [1] A. Ng, "Sparse autoencoder", CS294A lecture notes, Stanford 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Sparse
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, regularizer=Sparse(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    KINDS = ("l1", "kl")

    def __init__(self, weight: float = 0.3, kind: str = "l1", target: float = 0.2) -> None:
        self.weight = weight
        self.kind = kind
        self.target = target

    def penalty(self, x: Tensor, z: Tensor, network: Core, context: Context) -> Tensor:
        """Return the weighted size of each sample's codes, or the weighted divergence of the batch's activations."""
        sizes = _relative_sizes(z, z.square().mean(dim=0))
        if self.kind == "l1":
            return self.weight * sizes.mean(dim=1)
        activation = sizes.tanh().mean(dim=0).clamp(EPSILON, 1.0 - EPSILON)
        active = self.target * (self.target / activation).log()
        inactive = (1.0 - self.target) * ((1.0 - self.target) / (1.0 - activation)).log()
        return self.weight * (active + inactive).mean().expand(len(z))

    def code_penalty(self, z: Tensor, spread: Tensor) -> Tensor | None:
        """Return the weighted size of each sample's codes; "kl" is about means over samples and has no such penalty."""
        return self.weight * _relative_sizes(z, spread.square()).mean(dim=1) if self.kind == "l1" else None

    def check(self) -> None:
        """Check ``kind`` and ``target``."""
        super().check()
        check_parameter(self, "kind", self.kind in self.KINDS, f"must be one of {', '.join(map(repr, self.KINDS))}")
        check_parameter(self, "target", 0 < self.target < 1, "must be between 0 and 1, both excluded")


def _relative_sizes(z: Tensor, squares: Tensor) -> Tensor:
    """Return the sizes of codes relative to the mean square of each, and to the other codes of the sample."""
    sizes = z.abs() / (squares + EPSILON).sqrt()
    return sizes / (sizes.square().mean(dim=1, keepdim=True) + EPSILON).sqrt()


class Contractive(Regularizer):
    """Penalty on the squared Frobenius norm of the Jacobian of the encoder.

    It is the regularizer of ``regularizer="contractive"``. Derivatives are relative to the scale of each feature and
    the standard deviation of each code.

    Parameters
    ----------
    weight : float, default=1.0
        Weight of the penalty.
    n_probes : "auto" or int, default="auto"
        Number of random directions from which the norm is estimated by Hutchinson's method. 0 computes it exactly,
        with one backward pass per component. "auto" is 0 for up to eight components, and 2 for more.

    See Also
    --------
    Denoising : Corruption of the input.

    References
    ----------
    .. [1] S. Rifai, P. Vincent, X. Muller, X. Glorot, Y. Bengio, "Contractive auto-encoders: explicit invariance
       during feature extraction", ICML 2011.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Contractive
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, regularizer=Contractive(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    def __init__(self, weight: float = 1.0, n_probes: int | str = "auto") -> None:
        self.weight = weight
        self.n_probes = n_probes

    @torch.enable_grad()
    def penalty(self, x: Tensor, z: Tensor, network: Core, context: Context) -> Tensor:
        """Return the weighted squared norm of the Jacobian for each sample."""
        x = x.detach().requires_grad_()
        codes = network.encode(x)
        spread = (codes.var(dim=0, correction=0) + EPSILON).sqrt()
        n_probes = self.n_probes
        if n_probes == "auto":
            n_probes = 0 if codes.shape[1] <= MAX_EXACT_COMPONENTS else 2
        # The unit vectors, or random signs for each sample.
        probes: Iterable[Tensor] = torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
        if n_probes != 0:
            generator = context.generator
            signs = (torch.empty_like(codes).bernoulli_(0.5, generator=generator) for _ in range(int(n_probes)))
            probes = [2.0 * sign - 1.0 for sign in signs]
        slopes = [torch.autograd.grad((codes / spread.detach() * one).sum(), x, create_graph=True)[0] for one in probes]
        squares = torch.stack([(slope * network.output_gain).square().sum(dim=1) for slope in slopes])
        total = squares.sum(dim=0) if n_probes == 0 else squares.mean(dim=0)
        # The derivative of the penalty includes that of the spread, so that smaller codes do not reduce it.
        factor = (spread.detach() / spread).square().mean()
        return self.weight * factor * total / codes.shape[1]

    def check(self) -> None:
        """Check that ``n_probes`` is "auto" or a non-negative integer."""
        super().check()
        valid = self.n_probes == "auto" or isinstance(self.n_probes, int)
        check_parameter(self, "n_probes", valid, "must be 'auto' or an int of at least 0")


class Variational(Regularizer):
    """Variational autoencoder: random codes with a penalty on their divergence from the standard normal distribution.

    It is the regularizer of ``regularizer="variational"``. In training, codes are drawn from a normal distribution with
    the mean and variance that the encoder computes. `AutoEncoderTransformer.transform` returns the mean. The penalty
    is the Kullback-Leibler divergence of this distribution from the standard normal distribution.

    Parameters
    ----------
    weight : float, default=1.0
        Weight of the divergence. With 1, one nat of the divergence weighs as much as one nat of the log-likelihood of
        the decoder, whose noise has the variance that PCA does not explain.
    warmup : int, default=10
        Number of epochs over which the weight increases to its final value.

    See Also
    --------
    sample : Draw samples from a fitted variational autoencoder.
    transform_std : Compute the standard deviations of codes.

    References
    ----------
    .. [1] D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Variational
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, regularizer=Variational(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    variational = True
    projects = False

    def __init__(self, weight: float = 1.0, warmup: int = 10) -> None:
        self.weight = weight
        self.warmup = warmup

    def penalty(self, x: Tensor, z: Tensor, network: Core, context: Context) -> Tensor:
        """Return the weighted divergence of each sample."""
        log_variance = network.log_variance(x)
        divergence = 0.5 * (z.square() + log_variance.exp() - log_variance - 1.0).sum(dim=1)
        warmup_factor = 1.0 if context.epoch is None else min(1.0, (context.epoch + 1) / (self.warmup + 1))
        return self.weight * warmup_factor * context.nat * divergence


class Nested(Regularizer):
    """Nested dropout: some samples keep only their first codes in training, which orders the codes by importance.

    It is the regularizer of ``regularizer="nested"``. By default, `AutoEncoderTransformer` orders codes with as few of
    these samples as are needed. More of them improve the reconstructions from the first codes and make those from all
    codes worse.

    Parameters
    ----------
    fraction : float, default=0.5
        Fraction of the samples of each step that keep only their first codes. The other codes are zero, which are those
        of the mean.
    weights : array-like of shape (n_components,) or None, default=None
        Relative frequencies of the numbers of codes that are kept, from one to all. None is ``1 / j`` for
        ``j`` codes, but zero for all.

    See Also
    --------
    truncate : A fitted estimator with its first codes only.

    References
    ----------
    .. [1] O. Rippel, M. Gelbart, R. Adams, "Learning ordered representations with nested dropout", ICML 2014.
       :doi:`10.48550/arXiv.1402.0915`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Nested
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, regularizer=Nested(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    def __init__(self, fraction: float = 0.5, weights: Any = None) -> None:
        self.fraction = fraction
        self.weights = weights

    def check(self) -> None:
        """Check that ``fraction`` is one, and that no weight is negative."""
        check_parameter(self, "fraction", 0 <= self.fraction <= 1, "must be from 0 to 1")
        weights = [1.0] if self.weights is None else self.weights
        valid = np.ndim(weights) == 1 and len(weights) > 0 and np.min(weights) >= 0 and np.max(weights) > 0
        check_parameter(self, "weights", valid, "must be a list of numbers of at least 0, not all of them 0")

    def frequencies(self, n_components: int) -> NDArray:
        """Return the fraction of each number of kept codes, from one to all, among the samples that keep only some.

        Parameters
        ----------
        n_components : int
            Number of codes.

        Returns
        -------
        ndarray of shape (n_components,)
            The fractions, whose sum is one.

        Raises
        ------
        ValueError
            If the number of weights is not ``n_components``.
        """
        if self.weights is not None:
            weights = np.array(self.weights, dtype=float)
            valid = len(weights) == n_components
            check_parameter(self, "weights", valid, f"must be as many as n_components={n_components}")
        else:
            weights = 1.0 / np.arange(1, n_components + 1)
            weights[-1] *= n_components == 1
        return weights / weights.sum()


REGULARIZERS: dict[str, type[Regularizer]] = {
    "denoising": Denoising,
    "sparse": Sparse,
    "contractive": Contractive,
    "variational": Variational,
    "nested": Nested,
    "supervised": Supervised,
    "neighbors": Neighbors,
}


def as_regularizers(regularizer: Any) -> tuple[Regularizer, ...]:
    """Convert the ``regularizer`` parameter to a tuple of regularizers.

    Raises
    ------
    TypeError
        If an entry is neither a known name nor a Regularizer.
    ValueError
        If a parameter of a regularizer is not valid.
    """
    if regularizer is None:
        return ()
    entries: Sequence[Any] = regularizer if isinstance(regularizer, list | tuple) else [regularizer]
    chosen = tuple(REGULARIZERS[one]() if isinstance(one, str) and one in REGULARIZERS else one for one in entries)
    for one in chosen:
        if not isinstance(one, Regularizer):
            raise TypeError(
                f"regularizer must be one of {', '.join(map(repr, REGULARIZERS))}, a Regularizer, or a list of these, "
                f"got {one!r}."
            )
        one.check()
    return chosen


def penalizes_codes(regularizer: Regularizer) -> bool:
    """Return whether a regularizer adds to the loss that the projection minimizes."""
    return type(regularizer).code_penalty is not Regularizer.code_penalty


def needs_y(regularizer: Any) -> bool:
    """Return whether a regularizer needs y, for a ``regularizer`` parameter that may be invalid."""
    return any(getattr(one, "needs_y", False) for one in _entries(regularizer))


def needs_all(regularizer: Any) -> bool:
    """Return whether a regularizer needs all samples at once, for a ``regularizer`` parameter that may be invalid."""
    return any(getattr(one, "bind", Regularizer.bind) is not Regularizer.bind for one in _entries(regularizer))


def _entries(regularizer: Any) -> list[Any]:
    """Return the classes of regularizers, and entries that are none."""
    entries = regularizer if isinstance(regularizer, list | tuple) else [regularizer]
    return [REGULARIZERS.get(one) if isinstance(one, str) else type(one) for one in entries]
