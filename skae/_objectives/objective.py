"""Forward pass of a network with regularizers."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._data.containers import Samples
from skae._data.sample import Sample
from skae._objectives.regularizer import Core, Regularizer
from skae._utils import seeded_generator


class Network(Core, Protocol):
    """Protocol of the networks that an `Objective` is called with."""

    training: bool
    corruption: Callable[[Tensor], Tensor] | None
    code_dropout: Callable[[Tensor], Tensor] | None

    def decode(self, z: Tensor) -> Tensor: ...


class Objective:
    """Forward pass with regularizers, which returns reconstructions and penalties.

    Held-out samples are corrupted, and their codes are drawn, in the same way as in training, but with the same random
    numbers in each epoch, so that epochs can be compared.

    Parameters
    ----------
    regularizers : sequence of Regularizer
        The regularizers, at least one.
    seed : int
        Seed of the generators.
    device : torch.device
        Device of the network.
    nat : float
        One nat of the log-likelihood of a sample, in the unit of the loss.
    X : Samples of shape (n_samples, n_features)
        All samples of the fit.

    Attributes
    ----------
    generators : tuple of torch.Generator
        Generators for training and for the evaluation of held-out samples.
    generator : torch.Generator
        The one of the current pass.
    epoch : int or None
        Number of completed epochs. None while held-out samples are evaluated.
    indices : ndarray of int or None
        Indices in X of the samples of the current batch. None if they are not in X.
    """

    def __init__(
        self, regularizers: Sequence[Regularizer], seed: int, device: torch.device, nat: float, X: Samples
    ) -> None:
        self.regularizers = regularizers
        self.seed = seed
        self.nat = nat
        self.generators = seeded_generator(seed, device), seeded_generator(seed, device)
        self.generator = self.generators[0]
        self.epoch: int | None = None
        self.n_epochs = 0
        self.X = X
        self.indices: NDArray | None = None

    def begin_batch(self, sample: Sample, positions: NDArray) -> None:
        """Say which samples the next batch has, by their positions in a sample of the fit or in another one."""
        self.indices = sample.numbers_at(positions) if sample.X is self.X else None

    def rewind(self) -> None:
        """Reset the generator for held-out samples, so that the next evaluation draws the same numbers as the first."""
        self.generators[1].manual_seed(self.seed)

    def bound_penalties(self, network: Network, x: Tensor, z: Tensor) -> Tensor:
        """Return the penalties of the regularizers that know all samples for other codes, of shape (n,)."""
        bound = (one for one in self.regularizers if type(one).bind is not Regularizer.bind)
        penalties = [one.penalty(x, z, network, self) for one in bound]
        return sum((penalty for penalty in penalties if penalty is not None), torch.zeros_like(x[:, 0]))

    def __call__(self, network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions of shape (n, n_features) and penalties of shape (n,)."""
        self.generator = self.generators[0 if network.training else 1]
        self.epoch = self.n_epochs if network.training else None
        corrupted = x
        for regularizer in self.regularizers:
            corrupted = regularizer.corrupt(corrupted, network, self)
        if network.training and network.corruption is not None:
            corrupted = network.corruption(corrupted)
        z = drawn = network.encode(corrupted)
        if any(regularizer.variational for regularizer in self.regularizers):
            noise = torch.empty_like(z).normal_(generator=self.generator)
            drawn = torch.addcmul(z, noise, (0.5 * network.log_variance(corrupted)).exp())
        penalties = [regularizer.penalty(corrupted, z, network, self) for regularizer in self.regularizers]
        total = sum((penalty for penalty in penalties if penalty is not None), torch.zeros_like(x[:, 0]))
        if network.training and network.code_dropout is not None:
            drawn = network.code_dropout(drawn)
        return network.decode(drawn), total
