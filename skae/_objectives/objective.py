"""One pass of samples through a network with regularizers."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from skae._objectives.regularizers import Regularizer
from skae._utils import seeded_generator


class Network(Protocol):
    """What a pass needs of a network."""

    training: bool
    output_gain: Tensor
    corruption: Callable[[Tensor], Tensor] | None

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def log_variance(self, x: Tensor) -> Tensor: ...


class Objective:
    """Reconstructs samples as the regularizers want it, and says what they add to the loss.

    Held-out samples are disturbed and drawn in the same way as the others, but the same at each look, so that epochs
    can be compared.

    Parameters
    ----------
    regularizers : sequence of Regularizer
        At least one.
    seed : int
        Draws everything.
    device : torch.device
        Of the network.
    nat : float
        What one nat of a sample's likelihood is worth, in the unit of the loss.

    Attributes
    ----------
    generator : torch.Generator
        For what is drawn in this pass.
    epoch : int or None
        Epochs of training so far; None while held-out samples are looked at.
    """

    def __init__(self, regularizers: Sequence[Regularizer], seed: int, device: torch.device, nat: float) -> None:
        self.regularizers = regularizers
        self.seed = seed
        self.nat = nat
        self.generator = self._training = seeded_generator(seed, device)
        self._evaluation = seeded_generator(seed, device)
        self.epoch: int | None = None
        self.n_epochs = 0

    @property
    def generators(self) -> tuple[torch.Generator, torch.Generator]:
        """For training, and for looking at held-out samples."""
        return self._training, self._evaluation

    def rewind(self) -> None:
        """Let the next look at held-out samples draw what the last one drew."""
        self._evaluation.manual_seed(self.seed)

    def __call__(self, network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions of shape (n, n_features) and penalties of shape (n,)."""
        self.generator = self._training if network.training else self._evaluation
        self.epoch = self.n_epochs if network.training else None
        disturbed = x
        for regularizer in self.regularizers:
            disturbed = regularizer.corrupt(disturbed, network, self)
        if network.training and network.corruption is not None:
            disturbed = network.corruption(disturbed)
        z = network.encode(disturbed)
        drawn = z
        if any(regularizer.variational for regularizer in self.regularizers):
            noise = torch.empty_like(z).normal_(generator=self.generator)
            drawn = torch.addcmul(z, noise, (0.5 * network.log_variance(disturbed)).exp())
        penalties = [regularizer.penalty(disturbed, z, network, self) for regularizer in self.regularizers]
        total = sum((penalty for penalty in penalties if penalty is not None), torch.zeros_like(x[:, 0]))
        return network.decode(drawn), total
