"""Autoencoder for standardized samples: PCA, and an encoder and a decoder."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._network.architecture import Architecture
from skae._network.custom import CustomModuleHalf
from skae._network.inverse_link import ColumnLinks, InverseLink
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

# Limit of the codes that enter the decoder, as a multiple of the largest codes of the training samples.
CODE_REACH = 3.0
# Fraction of the overall variance that is added to the variance of a feature by which inputs are scaled, so that nearly
# constant features do not become large inputs.
SPREAD_FLOOR = 0.1
# Minimum noise variance of a variational decoder, as a fraction of the variance.
RELATIVE_NOISE_FLOOR = 1e-3
# Minimum standard deviation by which codes are scaled, as a fraction of the overall scale.
MIN_CODE_SCALE = 1e-6


class AutoEncoder(nn.Module, ABC):
    """Base class of autoencoders, with the methods ``encode`` and ``decode``."""

    # Function that corrupts the samples to encode in training mode, or None.
    corruption: Callable[[Tensor], Tensor] | None = None
    # Function that sets some codes to zero in training mode, or None.
    code_dropout: Callable[[Tensor], Tensor] | None = None

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Map samples of shape (n, n_features) to codes of shape (n, n_components)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Map codes of shape (n, n_components) to samples of shape (n, n_features)."""

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct samples, which are corrupted before in training mode."""
        corrupted = x if self.corruption is None or not self.training else self.corruption(x)
        z = self.encode(corrupted)
        return self.decode(z if self.code_dropout is None or not self.training else self.code_dropout(z))


class FeedForwardAutoEncoder(AutoEncoder):
    """Encoder and decoder for standardized samples, with PCA added to their outputs or without it.

    With ``linear_skip`` the codes are ``z = A x + f(x)`` and the reconstructions ``x_hat = B z + g(z)``. Initially, the
    matrices A and B are those of PCA, and the encoder f and the decoder g are zero. All are trained together. Without
    ``linear_skip`` the codes are ``z = f(x)`` and the reconstructions ``x_hat = g(z)``. Samples are centered and of
    unit scale, and so are the codes of PCA.

    Parameters
    ----------
    architecture : Architecture
        Description of the network.
    dtype : torch.dtype
        Dtype of all weights.

    Notes
    -----
    The weights are uninitialized until `init_from_pca` or `load_state_dict` is called. The matrices A and B are
    multiplied by features that are scaled to a standard deviation of about one, as the inputs of f are.
    """

    output_gain: Tensor

    def __init__(self, architecture: Architecture, dtype: torch.dtype) -> None:
        super().__init__()
        sizes = self.architecture = architecture
        n_features, n_components = sizes.n_features, sizes.bottleneck
        self.input_gain = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.output_gain = nn.Buffer(torch.empty(n_features, dtype=dtype))
        if sizes.linear_skip:
            self.pca_encoding = nn.Buffer(torch.empty((n_components, n_features), dtype=dtype))
            self.pca_decoding = nn.Buffer(torch.empty((n_components, n_features), dtype=dtype))
            self.code_limit = nn.Buffer(torch.empty(n_components, dtype=dtype))
        self.link: InverseLink | ColumnLinks | None = None
        if isinstance(sizes.link, tuple):
            self.link = ColumnLinks(sizes.link, dtype)
        elif sizes.link != "identity":
            self.link = InverseLink(sizes.link, n_features, dtype)
        self.encoder = self.decoder = self.linear_encoder = self.linear_decoder = None
        self.log_variance_head = self.output_head = None
        if sizes.variational:
            self.log_variance_at_start = nn.Buffer(torch.empty(n_components, dtype=dtype))
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
        if sizes.n_outputs:
            self.output_head = nn.utils.skip_init(nn.Linear, n_components, sizes.n_outputs, dtype=dtype)

    @torch.no_grad()
    def init_from_pca(self, pca: PrincipalComponents, generator: torch.Generator) -> None:
        """Set the standard deviations and directions of PCA, and draw the initial weights of encoder and decoder."""
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
            # Posterior variance of probabilistic PCA.
            variances = pca.explained_variance / scale**2
            noise = max(1.0 - variances.sum() / len(spread), RELATIVE_NOISE_FLOOR)
            values["log_variance_at_start"] = -np.log1p(variances / noise)
        fill_buffers(self, values)
        if self.link is not None:
            self.link.turn(not self.architecture.linear_skip)
        for stack in self._stacks():
            if self.architecture.kind != "module":  # a custom module has its own weights
                draw_weights(weight_layers(stack), generator)
            if self.architecture.linear_skip and not self.architecture.gated:
                last_layer(stack).weight.zero_()
        for head in (self.log_variance_head, self.output_head):
            if head is not None:
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)
        if self.linear_encoder is not None and self.linear_decoder is not None:
            self.linear_encoder.copy_(self.pca_encoding * self.output_gain)
            self.linear_decoder.copy_(self.pca_decoding * self.input_gain)

    @torch.no_grad()
    def perturb_output_layers(self, fraction: float, generator: torch.Generator) -> None:
        """Draw the weights of the last layers, multiplied by the square root of a fraction, or open the gates by it.

        Training finds better optima if it does not start exactly at PCA. Without ``linear_skip`` the weights have been
        drawn before, and do not change.
        """
        if self.architecture.gated:
            self.gates.fill_(math.sqrt(fraction))
        elif self.architecture.linear_skip:
            for stack in self._stacks():
                draw_weights([last_layer(stack)], generator)
                last_layer(stack).weight.mul_(math.sqrt(fraction))

    def enable_inverse_link(self) -> None:
        """Apply the inverse link, instead of clipping the reconstructions of PCA."""
        if self.link is not None:
            self.link.turn(True)

    def _stacks(self) -> list[nn.Module]:
        """Return the encoder and the decoder, if there are any."""
        return [stack for stack in (self.encoder, self.decoder) if stack is not None]

    def _correction(self, index: int, values: Tensor) -> Tensor:
        """Apply the encoder, with index 0, or the decoder, with index 1."""
        stack = cast(nn.Module, self.decoder if index else self.encoder)
        return stack(values) * self.gates[index] if self.architecture.gated else stack(values)

    def encode(self, x: Tensor) -> Tensor:
        """Map centered samples to codes of unit scale."""
        return self._first(self._all_codes(x))

    def encode_linear(self, x: Tensor) -> Tensor:
        """Map centered samples to the codes of PCA."""
        return self._first(x @ self.pca_encoding.T)

    def _first(self, z: Tensor) -> Tensor:
        """Drop the codes after the first ones."""
        return z[:, : self.architecture.n_components] if self.architecture.n_dropped else z

    def _padded(self, z: Tensor) -> Tensor:
        """Append zeros in place of dropped codes."""
        return nn.functional.pad(z, (0, self.architecture.n_dropped)) if self.architecture.n_dropped else z

    def _all_codes(self, x: Tensor) -> Tensor:
        """Compute the codes of centered samples, also those that are dropped."""
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
        """Return the logarithm of the variance of each code of centered samples, of shape (n, n_components)."""
        hidden = x * self.input_gain
        if isinstance(self.encoder, nn.Sequential):
            hidden = self.encoder[:-1](hidden)
        return self._first(self.log_variance_at_start + cast(nn.Module, self.log_variance_head)(hidden))

    def read_out(self, z: Tensor) -> Tensor:
        """Map codes to the outputs of a linear function, of shape (n, n_outputs)."""
        return cast(nn.Module, self.output_head)(self._padded(z))

    @torch.no_grad()
    def init_read_out(self, coef: NDArray, intercept: NDArray) -> None:
        """Set the linear function."""
        head = cast(nn.Linear, self.output_head)
        head.weight.copy_(torch.as_tensor(coef))
        head.bias.copy_(torch.as_tensor(intercept))

    def decode(self, z: Tensor) -> Tensor:
        """Map codes back to centered samples."""
        values = self._predictor(self._padded(z))
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
        """Return the mean squared error of samples as a function of codes, if the last layer is linear, or None."""
        stack, gain = self.decoder, self.output_gain
        if self.link is not None or not isinstance(stack, nn.Sequential) or not isinstance(stack[-1], nn.Linear):
            return None
        weight, bias, hidden = gain[:, None] * stack[-1].weight, gain * stack[-1].bias, stack[:-1]
        if self.linear_decoder is None:
            return QuadraticLoss.of_samples(lambda z: hidden(self._padded(z)), weight, bias, x)
        limit = self.code_limit

        def inputs(z: Tensor) -> Tensor:
            z = self._padded(z)
            near = z.clamp(-limit, limit)
            return torch.cat([hidden(near), near, z - near], dim=1)

        weight = torch.cat([weight, (gain * self.linear_decoder).T, self.pca_decoding.T], dim=1)
        return QuadraticLoss.of_samples(inputs, weight, bias, x)

    @torch.no_grad()
    def limit_codes(self, largest: Tensor) -> None:
        """Limit the codes that enter the decoder, and decode what exceeds the limits by PCA.

        The reconstruction of a sample far from the training samples is then that of PCA, up to a constant.

        Parameters
        ----------
        largest : Tensor of shape (n_components,)
            Largest absolute value of each code over the training samples.
        """
        if self.architecture.linear_skip:
            limits = torch.where(largest > 0, CODE_REACH * largest, torch.inf)
            self.code_limit[: len(limits)].copy_(limits)


def build_stacks(architecture: Architecture, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    """Build encoder and decoder with uninitialized weights, or copy a custom module."""
    sizes = architecture
    if sizes.kind == "module":
        module, needs = copy.deepcopy(sizes.module).to(dtype), sizes.module_needs
        return CustomModuleHalf(module, "encode", needs), CustomModuleHalf(module, "decode", needs)
    if sizes.kind == "conv":
        return conv_stacks(sizes, dtype)
    encoder = dense_stack((sizes.n_features, *sizes.encoder_sizes, sizes.bottleneck), sizes, dtype)
    if sizes.kind == "tied":
        return encoder, TiedDecoder(encoder, sizes, dtype)
    return encoder, dense_stack((sizes.bottleneck, *sizes.decoder_sizes, sizes.n_features), sizes, dtype)


def code_unit(pca: PrincipalComponents) -> NDArray:
    """Return the standard deviation of each component, bounded away from zero."""
    return np.maximum(np.sqrt(pca.explained_variance), MIN_CODE_SCALE * pca.scale)
