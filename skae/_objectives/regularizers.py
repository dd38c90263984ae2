"""Regularizers: what a network is asked for besides its loss, each one small class with one entry in a table."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from skae._utils import Documented

# Up to this many codes the squared derivatives of the encoder are summed up exactly, one code at a time.
EXACT_CODES = 8
# Keeps divisions by the spread of codes apart from zero.
TINY = 1e-6


class Core(Protocol):
    """What a regularizer may ask of a network whose samples are centered and whose codes begin with unit scale."""

    output_gain: Tensor

    def encode(self, x: Tensor) -> Tensor: ...

    def log_variance(self, x: Tensor) -> Tensor: ...


class Context(Protocol):
    """What a regularizer may know of the training besides."""

    generator: torch.Generator
    epoch: int | None
    nat: float


class Regularizer(Documented, BaseEstimator):
    """Base class of regularizers.

    A subclass overrides `corrupt`, `penalty` or both. Samples are centered and divided by their overall scale, codes
    have about unit scale, and a penalty counts in parts of the loss of reconstructing every sample as the mean.
    Parameters can be searched, as ``regularizer__noise`` can.

    Attributes
    ----------
    variational : bool
        Whether codes come with a variance, and are drawn from it while training.
    corrupts : bool
        Whether samples are disturbed before they are encoded. Training then adds no noise of its own.
    projects : bool
        Whether `AutoEncoderTransformer.transform` projects. False for a regularizer that shapes the encoder itself,
        whose codes are then those of the encoder.

    See Also
    --------
    AutoEncoderTransformer : Takes regularizers as its parameter ``regularizer``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Regularizer
    >>> class SmallCodes(Regularizer):
    ...     def penalty(self, x, z, core, situation):
    ...         return 0.01 * z.square().mean(dim=1)
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(4, regularizer=SmallCodes(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 4)
    """

    variational = False
    corrupts = False
    projects = True

    def corrupt(self, x: Tensor, network: Core, context: Context) -> Tensor:
        """Return the samples that are encoded; the target stays x.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            A batch.
        network : object
            With ``output_gain``, the spread of each feature, and ``encode``, from samples to codes.
        context : object
            With ``generator``, for all that is drawn; ``epoch``, the number of epochs so far, None for samples held
            out; and ``nat``, what one nat of a sample's likelihood is worth.

        Returns
        -------
        Tensor of shape (n, n_features)
            The samples to encode.
        """
        return x

    def penalty(self, x: Tensor, z: Tensor, network: Core, context: Context) -> Tensor | None:
        """Return what each sample adds to the loss.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            The samples that were encoded.
        z : Tensor of shape (n, n_components)
            Their codes.
        network : object
            As for `corrupt`.
        context : object
            As for `corrupt`.

        Returns
        -------
        Tensor of shape (n,) or None
            The penalties; None is none.
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
        """Refuse parameters that make no sense: numbers below zero, unless a subclass says otherwise."""
        for name, value in self.get_params(deep=False).items():
            if isinstance(value, int | float) and value < 0:
                raise ValueError(f"{type(self).__name__}({name}={value!r}): {name} must be at least 0.")


class Denoising(Regularizer):
    """Samples are disturbed and must be reconstructed as they were.

    The regularizer of ``regularizer="denoising"``. The noise takes the place of the one that training uses anyway,
    and held-out samples are disturbed as well, the same way each time.

    Parameters
    ----------
    noise : float, default=0.5
        Standard deviation of the noise in parts of each feature's spread, or the fraction of values that are masked
        or swapped.
    kind : {"gaussian", "masking", "swap"}, default="gaussian"
        "gaussian" adds noise, "masking" puts the feature's mean in place of values, "swap" the value of another
        sample of the batch.

    See Also
    --------
    Contractive : Small derivatives instead of noise.

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
        """Return disturbed samples."""
        generator = context.generator
        if self.kind == "gaussian":
            noise = torch.empty_like(x).normal_(generator=generator)
            return torch.addcmul(x, noise, network.output_gain, value=self.noise)
        chosen = torch.empty_like(x).bernoulli_(self.noise, generator=generator).bool()
        if self.kind == "masking":
            return x.masked_fill(chosen, 0.0)
        # Each value has another sample of its own to come from, lest whole samples be swapped.
        complement = torch.empty_like(x).uniform_(generator=generator).mul_(len(x)).long().clamp_(max=len(x) - 1)
        return torch.where(chosen, x.gather(0, complement), x)

    def check(self) -> None:
        """Refuse an unknown kind, and shares above one."""
        super().check()
        if self.kind not in self.KINDS:
            raise ValueError(f"Denoising(kind={self.kind!r}): kind must be one of {', '.join(map(repr, self.KINDS))}.")
        if self.kind != "gaussian" and self.noise > 1:
            raise ValueError(
                f"Denoising(noise={self.noise!r}, kind={self.kind!r}): noise is a fraction of values, from 0 to 1."
            )


class Sparse(Regularizer):
    """Few codes of a sample are far from zero.

    The regularizer of ``regularizer="sparse"``. Codes are measured by their own root mean square over a batch, and
    then against the others of their sample, so that neither small codes nor a few huge ones gain anything.

    Parameters
    ----------
    weight : float, default=0.3
        Of the penalty.
    kind : {"l1", "kl"}, default="l1"
        "l1" is the mean size of a sample's codes in parts of their root mean square; "kl" the divergence of each code's
        mean activation, between 0 and 1, from a target.
    target : float, default=0.2
        Mean activation that "kl" asks for.

    See Also
    --------
    Contractive : Codes that move little.

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
        activation = sizes.tanh().mean(dim=0).clamp(TINY, 1.0 - TINY)
        hit = self.target * (self.target / activation).log()
        miss = (1.0 - self.target) * ((1.0 - self.target) / (1.0 - activation)).log()
        return self.weight * (hit + miss).mean().expand(len(z))

    def code_penalty(self, z: Tensor, spread: Tensor) -> Tensor | None:
        """Return the weighted size of each sample's codes; "kl" is about means over samples and has no such penalty."""
        return self.weight * _relative_sizes(z, spread.square()).mean(dim=1) if self.kind == "l1" else None

    def check(self) -> None:
        """Refuse an unknown kind, and targets that are no activation."""
        super().check()
        if self.kind not in self.KINDS:
            raise ValueError(f"Sparse(kind={self.kind!r}): kind must be one of {', '.join(map(repr, self.KINDS))}.")
        if not 0 < self.target < 1:
            raise ValueError(f"Sparse(target={self.target!r}): target must be between 0 and 1, both excluded.")


def _relative_sizes(z: Tensor, squares: Tensor) -> Tensor:
    """Return the sizes of codes relative to the mean square of each, and to the other codes of the sample."""
    sizes = z.abs() / (squares + TINY).sqrt()
    return sizes / (sizes.square().mean(dim=1, keepdim=True) + TINY).sqrt()


class Contractive(Regularizer):
    """Codes move little where samples do: the squared Frobenius norm of the encoder's Jacobian is small.

    The regularizer of ``regularizer="contractive"``. Steps of samples count in parts of each feature's spread, steps of
    codes in parts of theirs.

    Parameters
    ----------
    weight : float, default=1.0
        Of the penalty.
    n_probes : "auto" or int, default="auto"
        Random directions from which the norm is estimated after Hutchinson; 0 computes it exactly, which takes
        as many passes as there are codes. "auto" is exact up to eight codes, and two directions for more.

    See Also
    --------
    Denoising : Noise instead of small derivatives.

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
        """Weighted squared norm of each sample's derivatives."""
        x = x.detach().requires_grad_()
        codes = network.encode(x)
        spread = (codes.var(dim=0, correction=0) + TINY).sqrt()
        jacobian_rms = [
            torch.autograd.grad((codes / spread.detach() * probe).sum(), x, create_graph=True)[0] * network.output_gain
            for probe in self._probes(codes, context.generator)
        ]
        # The spread is outside the derivative but inside the penalty: shrinking the codes must gain nothing.
        growth = (spread.detach() / spread).square().mean()
        squares = torch.stack([slope.square().sum(dim=1) for slope in jacobian_rms])
        exact = self._n_probes(codes) == 0
        total = squares.sum(dim=0) if exact else squares.mean(dim=0)
        return self.weight * growth * total / codes.shape[1]

    def _n_probes(self, codes: Tensor) -> int:
        if self.n_probes == "auto":
            return 0 if codes.shape[1] <= EXACT_CODES else 2
        return int(self.n_probes)

    def _probes(self, codes: Tensor, generator: torch.Generator) -> Iterable[Tensor]:
        """One code at a time, or random signs."""
        n_probes = self._n_probes(codes)
        if n_probes == 0:
            return torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
        return [torch.empty_like(codes).bernoulli_(0.5, generator=generator) * 2.0 - 1.0 for _ in range(n_probes)]

    def check(self) -> None:
        """Refuse what is no number of directions."""
        super().check()
        if self.n_probes != "auto" and not isinstance(self.n_probes, int):
            raise ValueError(f"Contractive(n_probes={self.n_probes!r}): n_probes must be 'auto' or an int, 0 is exact.")


class Variational(Regularizer):
    """Codes are drawn around their mean, and all together look like standard normal ones.

    The regularizer of ``regularizer="variational"``. While training a code is drawn from a normal distribution
    whose mean and variance the encoder computes; `AutoEncoderTransformer.transform` returns the mean. The penalty
    is the Kullback-Leibler divergence of each sample's code distribution from the standard normal one.

    Parameters
    ----------
    weight : float, default=1.0
        Of the divergence; one nat weighs as much as one nat of likelihood, were PCA's error the decoder's noise.
    warmup : int, default=10
        Epochs over which the weight rises to its full size.

    See Also
    --------
    sample : New samples from a variational autoencoder.
    transform_std : The spread of its codes.

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
        """Weighted divergence of each sample."""
        log_variance = network.log_variance(x)
        divergence = 0.5 * (z.square() + log_variance.exp() - log_variance - 1.0).sum(dim=1)
        warm = 1.0 if context.epoch is None else min(1.0, (context.epoch + 1) / (self.warmup + 1))
        return self.weight * warm * context.nat * divergence


REGULARIZERS: dict[str, type[Regularizer]] = {
    "denoising": Denoising,
    "sparse": Sparse,
    "contractive": Contractive,
    "variational": Variational,
}


def as_regularizers(regularizer: Any) -> tuple[Regularizer, ...]:
    """Turn the ``regularizer`` parameter into objects.

    Raises
    ------
    TypeError
        If an entry is neither a known name nor a Regularizer.
    """
    if regularizer is None:
        return ()
    entries: Sequence[Any] = regularizer if isinstance(regularizer, list | tuple) else [regularizer]
    chosen = tuple(
        REGULARIZERS[entry]() if isinstance(entry, str) and entry in REGULARIZERS else entry for entry in entries
    )
    for entry in chosen:
        if not isinstance(entry, Regularizer):
            raise TypeError(
                f"regularizer must be one of {', '.join(map(repr, REGULARIZERS))}, a Regularizer, or a list of these, "
                f"got {entry!r}."
            )
        entry.check()
    return chosen


def penalizes_codes(regularizer: Regularizer) -> bool:
    """Return whether a regularizer adds to the loss that the projection minimizes."""
    return type(regularizer).code_penalty is not Regularizer.code_penalty
