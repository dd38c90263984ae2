"""The autoencoder on standardized samples: a linear path beside an encoder and a decoder."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._network.architecture import Architecture
from skae._network.custom import CustomModuleHalf
from skae._network.inverse_link import InverseLink
from skae._network.layers import (
    TiedDecoder,
    conv_stacks,
    dense_stack,
    draw_weights,
    fill_buffers,
    last_layer,
    weight_layers,
)
from skae._network.projection import QuadraticLoss
from skae._pca.components import PrincipalComponents

# The decoder is used as it was trained up to this many times the largest codes of the training samples.
CODE_REACH = 3.0
# Part of the overall variance that is added to a feature's own, lest a near-constant feature become a wild input.
SPREAD_FLOOR = 0.1
# The decoder of a variational network has at least this noise, as a fraction of the variance.
RELATIVE_NOISE_FLOOR = 1e-3
# A direction with less than this fraction of the overall scale is scaled as if it had it.
MIN_CODE_SCALE = 1e-6


class AutoEncoder(nn.Module, ABC):
    """The protocol of every network here: ``encode`` to codes, ``decode`` back."""

    # A callable that disturbs the samples to be encoded; set while training, None otherwise.
    corruption: Callable[[Tensor], Tensor] | None = None

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Map samples of shape (n, n_features) to codes of shape (n, n_components)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Map codes of shape (n, n_components) to samples of shape (n, n_features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct x, from a disturbed x while training."""
        disturbed = x if self.corruption is None or not self.training else self.corruption(x)
        return self.decode(self.encode(disturbed))


class FeedForwardAutoEncoder(AutoEncoder):
    """Two stacks of dense layers, with a linear path beside them or without it.

    With the linear path ``z = A x + f(x)`` and ``x_hat = B z + g(z)``; it starts as PCA, ``A = W`` and ``B = V``,
    and learns together with the stacks f and g, whose last layers are zero at the start. Without it ``z = f(x)``
    and ``x_hat = g(z)``. Samples are centered and of unit scale, and so are the codes of PCA.

    Parameters
    ----------
    architecture : Architecture
        What to build.
    dtype : torch.dtype
        Of all weights and so of all results.

    Notes
    -----
    The weights are unset until `init_from_pca` or `load_state_dict` fills them. The linear path is learned in units
    in which every feature has a spread of about one, as the stacks are.
    """

    input_gain: Tensor
    output_gain: Tensor
    pca_encoding: Tensor
    pca_decoding: Tensor
    code_limit: Tensor

    def __init__(self, architecture: Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        sizes = self.architecture = architecture
        n_features, n_components = sizes.n_features, sizes.n_components
        shapes: dict[str, tuple[int, ...]] = {"input_gain": (n_features,), "output_gain": (n_features,)}
        if sizes.linear_skip:
            shapes |= {"pca_encoding": (n_components, n_features), "pca_decoding": (n_components, n_features)}
            shapes["code_limit"] = (n_components,)
        for name, shape in shapes.items():
            self.register_buffer(name, torch.empty(shape, dtype=dtype))
        self.link = None if sizes.link == "identity" else InverseLink(sizes.link, n_features, dtype)
        self.encoder = self.decoder = self.linear_encoder = self.linear_decoder = self.log_variance_head = None
        if sizes.variational:
            self.register_buffer("log_variance_at_start", torch.empty(n_components, dtype=dtype))
        if sizes.kind == "pca":
            return
        self.encoder, self.decoder = build_stacks(sizes, dtype)
        if sizes.gated:
            self.gates = nn.Parameter(torch.zeros(2, dtype=dtype))
        if sizes.linear_skip and sizes.kind != "tied":
            self.linear_encoder = nn.Parameter(torch.empty((n_components, n_features), dtype=dtype))
            self.linear_decoder = nn.Parameter(torch.empty((n_components, n_features), dtype=dtype))
        if sizes.variational:
            width = n_features if sizes.kind == "module" else last_layer(self.encoder).in_features
            self.log_variance_head = nn.utils.skip_init(nn.Linear, width, n_components, dtype=dtype)

    @torch.no_grad()
    def init_from_pca(self, pca: PrincipalComponents, generator: torch.Generator) -> None:
        """Take over spread and directions, and draw the first weights of the stacks."""
        scale = pca.scale
        spread = pca.feature_std / scale
        spread = np.where(spread > 0, np.sqrt(np.square(spread) + SPREAD_FLOOR), 0.0)
        gain = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        values = {"input_gain": gain, "output_gain": spread}
        if self.architecture.linear_skip:
            unit = code_unit(pca) / scale
            values["pca_encoding"] = pca.components / unit[:, np.newaxis]
            values["pca_decoding"] = pca.components * unit[:, np.newaxis]
            values["code_limit"] = np.full(len(unit), np.inf)
        if self.architecture.variational:
            # Of a Gaussian with the principal directions as factors and PCA's error as noise.
            variances = pca.explained_variance / scale**2
            noise = max(1.0 - variances.sum() / len(spread), RELATIVE_NOISE_FLOOR)
            values["log_variance_at_start"] = -np.log1p(variances / noise)
        fill_buffers(self, values)
        if self.link is not None:
            self.link.init_from_pca(pca.mean, pca.feature_max_abs, scale)
            self.link.on.fill_(not self.architecture.linear_skip)
        for stack in self._stacks():
            self._draw(weight_layers(stack), generator)
            if self.architecture.linear_skip and not self.architecture.gated:
                last_layer(stack).weight.zero_()
        if self.log_variance_head is not None:
            nn.init.zeros_(self.log_variance_head.weight)
            nn.init.zeros_(self.log_variance_head.bias)
        if self.linear_encoder is not None and self.linear_decoder is not None:
            self.linear_encoder.copy_(self.pca_encoding * self.output_gain)
            self.linear_decoder.copy_(self.pca_decoding * self.input_gain)

    def _draw(self, layers: Iterable[nn.Module], generator: torch.Generator) -> None:
        """Draw weights, but for a user's own network, which brings its own."""
        if self.architecture.kind != "module":
            draw_weights(layers, generator)

    @torch.no_grad()
    def perturb_output_layers(self, fraction: float, generator: torch.Generator) -> None:
        """Draw the weights of the output layers, scaled by the root of a fraction.

        Training finds better optima when it starts a little off PCA.

        Without a linear path they have been drawn already; gates open instead.
        """
        if self.architecture.gated:
            self.gates.fill_(math.sqrt(fraction))
        elif self.architecture.linear_skip:
            for stack in self._stacks():
                draw_weights([last_layer(stack)], generator)
                last_layer(stack).weight.mul_(math.sqrt(fraction))

    def enable_inverse_link(self) -> None:
        """Leave PCA's range for the link's, which is what will be trained."""
        if self.link is not None:
            self.link.on.fill_(True)

    def _stacks(self) -> list[nn.Module]:
        return [stack for stack in (self.encoder, self.decoder) if stack is not None]

    def _correction(self, index: int, values: Tensor) -> Tensor:
        """Apply the encoder, with index 0, or the decoder, with index 1."""
        stack = cast(nn.Module, self.decoder if index else self.encoder)
        return stack(values) * self.gates[index] if self.architecture.gated else stack(values)

    def encode(self, x: Tensor) -> Tensor:
        """Map centered samples to codes of unit scale."""
        if self.encoder is None:
            return x @ self.pca_encoding.T
        inputs = x * self.input_gain
        correction = self._correction(0, inputs)
        if not self.architecture.linear_skip:
            return correction
        if self.linear_encoder is None:
            return x @ self.pca_encoding.T + correction
        return torch.addmm(correction, inputs, self.linear_encoder.T)

    def log_variance(self, x: Tensor) -> Tensor:
        """Logarithm of the variance of each code of centered samples, of shape (n, n_components)."""
        hidden = x * self.input_gain
        if isinstance(self.encoder, nn.Sequential):
            hidden = self.encoder[:-1](hidden)
        return self.log_variance_at_start + cast(nn.Module, self.log_variance_head)(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Map codes back to centered samples."""
        values = self._predictor(z)
        return values if self.link is None else self.link(values)

    def _predictor(self, z: Tensor) -> Tensor:
        """Compute the input of the inverse link."""
        if self.decoder is None:
            return z @ self.pca_decoding
        if not self.architecture.linear_skip:
            return self._correction(1, z) * self.output_gain
        near = z if self.training else z.clamp(-self.code_limit, self.code_limit)
        correction = self._correction(1, near)
        if self.linear_decoder is None:
            return torch.addcmul(z @ self.pca_decoding, correction, self.output_gain)
        x_hat = torch.addmm(correction, near, self.linear_decoder) * self.output_gain
        return x_hat if self.training else x_hat + (z - near) @ self.pca_decoding

    def quadratic_loss(self, x: Tensor) -> QuadraticLoss | None:
        """Return the mean squared error of samples by their codes, if the decoder ends in a linear layer."""
        stack, gain = self.decoder, self.output_gain
        if self.link is not None or not isinstance(stack, nn.Sequential) or not isinstance(stack[-1], nn.Linear):
            return None
        weight, bias, hidden = gain[:, None] * stack[-1].weight, gain * stack[-1].bias, stack[:-1]
        if self.linear_decoder is None:
            return QuadraticLoss.of_samples(hidden, weight, bias, x)
        limit = self.code_limit

        def inputs(z: Tensor) -> Tensor:
            near = z.clamp(-limit, limit)
            return torch.cat([hidden(near), near, z - near], dim=1)

        weight = torch.cat([weight, (gain * self.linear_decoder).T, self.pca_decoding.T], dim=1)
        return QuadraticLoss.of_samples(inputs, weight, bias, x)

    @torch.no_grad()
    def limit_codes(self, largest: Tensor) -> None:
        """Continue the decoder linearly along the principal components beyond the codes that it has learned from.

        A sample far outside then has the reconstruction of PCA, up to a constant.

        Parameters
        ----------
        largest : Tensor of shape (n_components,)
            Largest size of each code over the training samples.
        """
        if self.architecture.linear_skip:
            self.code_limit.copy_(torch.where(largest > 0, CODE_REACH * largest, torch.inf))


def build_stacks(architecture: Architecture, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Build encoder and decoder, weights unset but for a user's own."""
    sizes = architecture
    if sizes.kind == "module":
        module = copy.deepcopy(sizes.module).to(dtype)
        return CustomModuleHalf(module, "encode", sizes.module_needs), CustomModuleHalf(
            module, "decode", sizes.module_needs
        )
    if sizes.kind == "conv":
        return conv_stacks(sizes, dtype)
    encoder = dense_stack((sizes.n_features, *sizes.encoder_sizes, sizes.n_components), sizes, dtype)
    if sizes.kind == "tied":
        return encoder, TiedDecoder(encoder, sizes, dtype)
    return encoder, dense_stack((sizes.n_components, *sizes.decoder_sizes, sizes.n_features), sizes, dtype)


def code_unit(pca: PrincipalComponents) -> NDArray:
    """Return the standard deviation of each component, bounded away from zero."""
    return np.maximum(np.sqrt(pca.explained_variance), MIN_CODE_SCALE * pca.scale)
