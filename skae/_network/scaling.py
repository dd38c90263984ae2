"""The autoencoder in the units of the data."""

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
    """Puts a network for centered samples of unit scale into the units of the data and of PCA's codes.

    Parameters
    ----------
    core : FeedForwardAutoEncoder
        The network inside.
    dtype : torch.dtype
        What samples and codes are computed in.
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
        """Take over location, spread and directions, and draw the first weights."""
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
        """Take over location and spread of other samples; what was learned in these units stays."""
        scale = torch.as_tensor(pca.scale).to(self.scale)
        for unit in (self.pca_unit, self.code_unit):
            unit.mul_(scale / self.scale)
        fill_buffers(self, {"mean": pca.mean, "training_mean": pca.mean, "scale": np.array(pca.scale)})
        if self.filling is not None:
            self.filling.init_from_pca(pca)
        if self.network.link is not None:
            self.network.link.init_from_pca(pca.mean, pca.feature_max_abs, pca.scale)

    def set_code_unit(self, spread: NDArray | None) -> None:
        """Give codes of this spread in PCA's units a spread of one; None goes back to PCA's units."""
        self.code_unit.copy_(self.pca_unit)
        if spread is not None:
            self.code_unit.div_(torch.as_tensor(np.where(spread > 0, spread, 1.0)).to(self.code_unit))

    def measure_code_unit(self, x: Tensor) -> None:
        """Let a step of one in a code move the reconstruction by one, as in PCA: by root mean square at these samples.

        Distances between codes then weigh each code by what it does to the data.
        """
        slope = jacobian_rms(self.network.decode, self.network.encode(self.standardized(x.to(self.mean))))
        self.code_unit.copy_(torch.where(slope > 0, self.scale * slope, self.pca_unit))

    def standardized(self, x: Tensor) -> Tensor:
        """Center samples, give them unit scale, and fill in what is missing."""
        centered = (x - self.mean).div_(self.scale)
        return centered if self.filling is None else self.filling(centered)

    def encode(self, x: Tensor) -> Tensor:
        """Map samples to codes, whose units are those of the data."""
        return self.network.encode(self.standardized(x)) * self.code_unit

    def decode(self, z: Tensor) -> Tensor:
        """Map codes back to samples in data units."""
        return self._in_data_units(z / self.code_unit)

    def log_variance(self, x: Tensor) -> Tensor:
        """Logarithm of the variance of each code, in the units of the codes."""
        return self.network.log_variance(self.standardized(x)) + 2.0 * self.code_unit.log()

    def decode_unit(self, z: Tensor) -> Tensor:
        """Map back codes of unit scale, as the network itself has them."""
        own = z.clone()  # z may be a view of an array, whose alignment would show in the last bits of a product
        return self._in_data_units(own)

    def _in_data_units(self, z: Tensor) -> Tensor:
        x_hat = torch.addcmul(self.mean, self.network.decode(z), self.scale)
        return x_hat if self.network.link is None else self.network.link.within_range(x_hat)

    def squares(self, x: Tensor) -> Tensor:
        """Squared norms of each sample's reconstruction error and of its offset from the mean, of shape (n, 2)."""
        missing = None if self.filling is None else x.isnan()
        # One after the other: samples of a file are squared under a cap on memory.
        return torch.stack(
            [_squared_norms(self(x).sub_(x), missing), _squared_norms(x - self.training_mean, missing)], dim=1
        )


def _squared_norms(samples: Tensor, missing: Tensor | None) -> Tensor:
    """In float64 on the processor; values that are missing count as zero. The samples are overwritten."""
    if missing is not None:
        samples.masked_fill_(missing, 0.0)
    return samples.cpu().double().square_().sum(dim=1)


def build(architecture: Architecture, dtype: torch.dtype) -> ScaledAutoEncoder:
    """Build the network for an architecture, its weights unset."""
    return ScaledAutoEncoder(FeedForwardAutoEncoder(architecture, dtype), dtype)
