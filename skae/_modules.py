"""The networks: everything with ``encode`` and ``decode``, in data units on both sides."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from skae._linear import PrincipalDirections

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
}
# Corrections see nothing beyond this many standard deviations: a wild row cannot wreck them, nor they it.
CLIP = 4.0
# A direction with less than this share of the overall scale is scaled as if it had it.
MIN_CODE_SCALE = 1e-6


@dataclass(frozen=True)
class Architecture:
    """What has to be known to build a network before its weights are filled in."""

    n_features: int
    n_components: int
    encoder_sizes: tuple[int, ...]
    decoder_sizes: tuple[int, ...]
    activation: str
    linear_skip: bool

    @property
    def n_weights(self) -> int:
        """Number of multiplications that one row costs."""
        encoder = (self.n_features, *self.encoder_sizes, self.n_components)
        decoder = (self.n_components, *self.decoder_sizes, self.n_features)
        return sum(a * b for sizes in (encoder, decoder) for a, b in pairwise(sizes))


def automatic_sizes(n_features: int, n_components: int) -> tuple[int, int]:
    """Two hidden widths that shrink from the input towards the bottleneck."""
    return 256, 128


class AutoEncoder(nn.Module, ABC):
    """The protocol of every network here: ``encode`` to codes, ``decode`` back, both in public units."""

    # A callable that disturbs the inputs of the trained layers; set while training, None otherwise.
    corruption: Callable[[Tensor], Tensor] | None = None

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Map rows of shape (n, n_features) to codes of shape (n, n_components)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Map codes of shape (n, n_components) to rows of shape (n, n_features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct x."""
        return self.decode(self.encode(x))

    def squares(self, x: Tensor) -> Tensor:
        """Squared norms of each row's reconstruction error and of its offset from the mean, of shape (n, 2)."""
        differences = torch.stack([self(x) - x, x - self.mean])
        return differences.cpu().double().square().sum(dim=2).T

    def corrupted(self, x: Tensor) -> Tensor:
        """Disturb x while training, hand it on as it is otherwise."""
        return x if self.corruption is None or not self.training else self.corruption(x)


class FeedForwardAutoEncoder(AutoEncoder):
    """Two stacks of dense layers, with PCA as a linear path beside them or without it.

    With the linear path ``z = W x + f(x)`` and ``x_hat = V z + g(z)``, where the corrections f and g start at
    zero; without it ``z = f(x)`` and ``x_hat = g(z)``. Standardises inside and undoes it at the output.
    The linear path is fixed and reaches every row unclipped; the corrections see clipped values.

    Parameters
    ----------
    architecture : Architecture
        The identity as activation beside a linear path leaves the corrections out: PCA is the best linear one.
    dtype : torch.dtype
        Of all weights and so of all results.

    Notes
    -----
    The weights are unset until `start_at` or `load_state_dict` fills them.
    """

    def __init__(self, architecture: Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        sizes = self.architecture = architecture
        n_features, n_components = sizes.n_features, sizes.n_components
        shapes = {
            "mean": (n_features,),
            "scale": (),
            "input_gain": (n_features,),
            "output_gain": (n_features,),
            "code_unit": (n_components,),
        }
        if sizes.linear_skip:
            shapes |= {"encoding": (n_components, n_features), "decoding": (n_components, n_features)}
        for name, shape in shapes.items():
            self.register_buffer(name, torch.empty(shape, dtype=dtype))
        self.encoder = self.decoder = None
        if not (sizes.linear_skip and sizes.activation == "identity"):
            self.encoder = feedforward((n_features, *sizes.encoder_sizes, n_components), sizes.activation, dtype)
            self.decoder = feedforward((n_components, *sizes.decoder_sizes, n_features), sizes.activation, dtype)

    @torch.no_grad()
    def start_at(self, directions: PrincipalDirections, generator: torch.Generator) -> None:
        """Take over location, spread and directions, and draw the first weights of the stacks."""
        scale = directions.scale
        spread = directions.column_scale / scale
        values = {
            "mean": directions.mean,
            "scale": np.array(scale),
            "input_gain": np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0),
            "output_gain": spread,
            "code_unit": np.ones(self.architecture.n_components),
        }
        if self.architecture.linear_skip:
            unit = np.maximum(np.sqrt(directions.explained_variance), MIN_CODE_SCALE * scale)
            values["code_unit"] = unit
            values["encoding"] = directions.components * (scale / unit)[:, np.newaxis]
            values["decoding"] = directions.components * (unit / scale)[:, np.newaxis]
        for name, value in values.items():
            getattr(self, name).copy_(torch.as_tensor(value))
        for stack in (self.encoder, self.decoder):
            if stack is not None:
                draw_weights(stack, generator, zero_last=self.architecture.linear_skip)

    def encode(self, x: Tensor) -> Tensor:
        """Map rows to codes, in PCA's units where there is a linear path."""
        centred = (x - self.mean) / self.scale
        z = centred @ self.encoding.T if self.architecture.linear_skip else 0.0
        if self.encoder is not None:
            z = z + self.encoder(self.corrupted(self._limited(centred * self.input_gain)))
        return z * self.code_unit

    def decode(self, z: Tensor) -> Tensor:
        """Map codes back to rows in data units."""
        z = z / self.code_unit
        centred = z @ self.decoding if self.architecture.linear_skip else 0.0
        if self.decoder is not None:
            centred = centred + self.decoder(self._limited(z)) * self.output_gain
        return centred * self.scale + self.mean

    def _limited(self, values: Tensor) -> Tensor:
        return values.clamp(-CLIP, CLIP) if self.architecture.linear_skip else values


def feedforward(sizes: Sequence[int], activation: str, dtype: torch.dtype) -> nn.Sequential:
    """Stack dense layers of the given sizes, their weights unset, the activation between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        # An ordinary layer would draw its weights from torch's global generator.
        layers += [nn.utils.skip_init(nn.Linear, n_in, n_out, dtype=dtype), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def draw_weights(stack: nn.Sequential, generator: torch.Generator, zero_last: bool) -> None:
    """Draw He-uniform weights and zero biases; zeros for the last layer of a correction."""
    linears = [layer for layer in stack if isinstance(layer, nn.Linear)]
    for layer in linears:
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(layer.bias)
    if zero_last:
        nn.init.zeros_(linears[-1].weight)
