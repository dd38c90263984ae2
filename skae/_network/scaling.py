"""Autoencoder in the units of the data."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._network.architecture import Architecture
from skae._network.autoencoder import AutoEncoder, FeedForwardAutoEncoder, code_unit
from skae._network.layers import fill_buffers
from skae._network.projection import jacobian_rms
from skae._pca.components import PrincipalComponents
from skae._pca.missing import PPCAImputer


class ScaledAutoEncoder(AutoEncoder):
    """Autoencoder for samples and codes in the units of the data, with a network for standardized samples.

    Parameters
    ----------
    network : FeedForwardAutoEncoder
        Network for standardized samples and codes of unit scale.
    dtype : torch.dtype
        Dtype of samples and codes.
    """

    mean: Tensor
    training_mean: Tensor
    scale: Tensor
    pca_unit: Tensor
    code_unit: Tensor

    def __init__(self, network: FeedForwardAutoEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.architecture = sizes = network.architecture
        self.register_buffer("mean", torch.empty(sizes.n_features, dtype=dtype))
        self.register_buffer("training_mean", torch.empty(sizes.n_features, dtype=dtype))
        self.register_buffer("scale", torch.empty((), dtype=dtype))
        self.register_buffer("pca_unit", torch.empty(sizes.n_components, dtype=dtype))
        self.register_buffer("code_unit", torch.empty(sizes.n_components, dtype=dtype))
        self.filling = PPCAImputer(sizes.n_components, sizes.n_features, dtype) if sizes.fills else None

    @torch.no_grad()
    def init_from_pca(self, pca: PrincipalComponents, generator: torch.Generator) -> None:
        """Initialize the network from principal components, and draw its other weights."""
        linear = self.architecture.linear_skip
        unit = code_unit(pca) if linear else np.ones(self.architecture.n_components)
        location = {"mean": pca.mean, "training_mean": pca.mean, "scale": np.array(pca.scale)}
        fill_buffers(self, {**location, "pca_unit": unit})
        self.code_unit.copy_(self.pca_unit)
        if self.filling is not None:
            self.filling.init_from_pca(pca)
        self.network.init_from_pca(pca, generator)

    @torch.no_grad()
    def rescale(self, pca: PrincipalComponents) -> None:
        """Standardize with the mean and scale of other samples, without changing the weights of the network."""
        scale = torch.as_tensor(pca.scale).to(self.scale)
        for unit in (self.pca_unit, self.code_unit):
            unit.mul_(scale / self.scale)
        fill_buffers(self, {"mean": pca.mean, "training_mean": pca.mean, "scale": np.array(pca.scale)})
        if self.filling is not None:
            self.filling.init_from_pca(pca)
        if self.network.link is not None:
            self.network.link.init_from_pca(pca.mean, pca.feature_max_abs, pca.scale)

    def set_code_unit(self, spread: NDArray | None) -> None:
        """Divide codes, in the units of PCA, by their standard deviations; None restores the units of PCA."""
        self.code_unit.copy_(self.pca_unit)
        if spread is not None:
            self.code_unit.div_(torch.as_tensor(np.where(spread > 0, spread, 1.0)).to(self.code_unit))

    def measure_code_unit(self, x: Tensor) -> None:
        """Scale codes such that the derivatives of the reconstruction by each code have unit norm, as in PCA.

        The norms are root mean squares over samples. Distances between codes then approximate those between
        reconstructions.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            The samples.
        """
        norms = jacobian_rms(self.network.decode, self.network.encode(self.standardized(x.to(self.mean))))
        self.code_unit.copy_(torch.where(norms > 0, self.scale * norms, self.pca_unit))

    def standardized(self, x: Tensor) -> Tensor:
        """Standardize samples, and impute missing values."""
        centered = (x - self.mean).div_(self.scale)
        return centered if self.filling is None else self.filling(centered)

    def encode(self, x: Tensor) -> Tensor:
        """Map samples to codes in the units of the data."""
        return self.network.encode(self.standardized(x)) * self.code_unit

    def decode(self, z: Tensor) -> Tensor:
        """Map codes to reconstructions in the units of the data."""
        return self._in_data_units(z / self.code_unit)

    def log_variance(self, x: Tensor) -> Tensor:
        """Compute the log variance of each code, in the units of the codes."""
        return self.network.log_variance(self.standardized(x)) + 2.0 * self.code_unit.log()

    def decode_unit(self, z: Tensor) -> Tensor:
        """Map codes of unit scale to reconstructions in the units of the data."""
        # A copy, because z may be a view of an array, and the last bits of a product depend on its alignment.
        return self._in_data_units(z.clone())

    def _in_data_units(self, z: Tensor) -> Tensor:
        """Map codes of unit scale to reconstructions in the units of the data."""
        x_hat = torch.addcmul(self.mean, self.network.decode(z), self.scale)
        return x_hat if self.network.link is None else self.network.link.within_range(x_hat)

    def squares(self, x: Tensor) -> Tensor:
        """Compute the squared norms of the reconstruction error and of the deviation from the mean, of shape (n, 2)."""
        missing = None if self.filling is None else x.isnan()
        # Each norm is computed before the next tensor is created, which limits the memory.
        return torch.stack(
            [_squared_norms(self(x).sub_(x), missing), _squared_norms(x - self.training_mean, missing)], dim=1
        )


def _squared_norms(samples: Tensor, missing: Tensor | None) -> Tensor:
    """Compute squared norms in float64 on the CPU, without missing values. The samples are overwritten."""
    if missing is not None:
        samples.masked_fill_(missing, 0.0)
    return samples.cpu().double().square_().sum(dim=1)


def build(architecture: Architecture, dtype: torch.dtype) -> ScaledAutoEncoder:
    """Build the network for an architecture, with uninitialized weights."""
    return ScaledAutoEncoder(FeedForwardAutoEncoder(architecture, dtype), dtype)
