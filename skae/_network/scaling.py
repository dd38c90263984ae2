"""Autoencoder in the units of the data."""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._network.architecture import Architecture
from skae._network.autoencoder import AutoEncoder, FeedForwardAutoEncoder, code_unit
from skae._network.layers import fill_buffers
from skae._network.projection import (
    CodeLoss,
    ReconstructionLoss,
    decoder_jacobians,
    encoder_jacobians,
    mean_gauss_newton,
    metric_of,
    project,
)
from skae._objectives.criterion import OfPresent, criterion_of
from skae._objectives.losses import Loss, SquaredError
from skae._objectives.regularizer import Regularizer
from skae._pca.components import PrincipalComponents
from skae._pca.missing import PPCAImputer

# Number of anchors, codes of training samples, from the nearest of which a projection also starts, and largest number
# of codes for which it does: a manifold of few codes is folded. Fits of usps, letter and spambase (three seeds)
# explain .016, .012 and .028 more of the variance at k = 2, .005, .002 and .005 more at 3, and letter .006 less at 4.
# With 1,000 anchors in place of 256, it is .002 more at 2.
N_ANCHORS, MOST_ANCHORED = 256, 3
# Largest number of features for which the reconstructions of the anchors are kept (8 MB). A single sample otherwise
# takes twice as long.
MOST_KEPT = 4096
# Added to the diagonal of the covariance of codes, as a fraction of its mean.
SPREAD_RIDGE = 1e-3


@dataclass(frozen=True)
class Projection:
    """Loss that the projection of samples minimizes, and number of steps.

    Attributes
    ----------
    n_steps : int
        Maximum number of steps. With 0, codes are those of the encoder.
    loss : Loss
        Loss of the training.
    penalties : tuple of Regularizer
        Regularizers, whose ``code_penalty`` is added to the loss.
    incomplete : bool
        Whether samples with missing values are also projected.
    """

    n_steps: int = 0
    loss: Loss = field(default_factory=SquaredError)
    penalties: tuple[Regularizer, ...] = ()
    incomplete: bool = True

    def limited(self, n_steps: int) -> "Projection":
        """Return the same projection with at most this number of steps."""
        return replace(self, n_steps=min(self.n_steps, n_steps))


class ScaledAutoEncoder(AutoEncoder):
    """Autoencoder for samples and codes in the units of the data, with a network for standardized samples.

    Parameters
    ----------
    network : FeedForwardAutoEncoder
        Network for standardized samples and codes of unit scale.
    dtype : torch.dtype
        Dtype of samples and codes.
    """

    def __init__(self, network: FeedForwardAutoEncoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network
        self.architecture = sizes = network.architecture
        n_features, n_components = sizes.n_features, sizes.n_components
        self.mean = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.training_mean = nn.Buffer(torch.empty(n_features, dtype=dtype))
        self.scale = nn.Buffer(torch.empty((), dtype=dtype))
        self.feature_scale = nn.Buffer(torch.empty(n_features, dtype=dtype)) if isinstance(sizes.link, tuple) else None
        self.pca_unit = nn.Buffer(torch.ones(n_components, dtype=dtype))
        self.code_unit = nn.Buffer(torch.ones(n_components, dtype=dtype))
        self.metric = nn.Buffer(torch.zeros((n_components, n_components), dtype=dtype))
        self.anchors = nn.Buffer(torch.zeros((N_ANCHORS, min(n_components, MOST_ANCHORED)), dtype=dtype))
        self.code_rms = nn.Buffer(torch.ones(n_components, dtype=dtype))
        self.loss_unit = nn.Buffer(torch.ones((), dtype=dtype))
        self.filling = PPCAImputer(sizes.bottleneck, n_features, dtype) if sizes.fills else None
        if sizes.fills:  # a Gaussian prior on the codes of samples with missing values
            self.code_mean = nn.Buffer(torch.zeros(n_components, dtype=dtype))
            self.code_precision = nn.Buffer(torch.zeros_like(self.metric))
            self.code_shrinkage = nn.Buffer(torch.ones(n_components, dtype=dtype))
        self.projection = Projection()
        self._exact: tuple = ()
        self._points: tuple = ()

    @torch.no_grad()
    def init_from_pca(self, pca: PrincipalComponents, generator: torch.Generator) -> None:
        """Initialize the network from principal components, and draw its other weights."""
        self._set_location(pca)
        if self.architecture.linear_skip:
            fill_buffers(self, {"pca_unit": code_unit(pca), "code_unit": code_unit(pca)})
        self.network.init_from_pca(pca.padded(self.architecture.bottleneck), generator)
        if self.filling is not None and self.architecture.linear_skip:
            self.code_shrinkage.copy_(self.pca_shrinkage)

    @torch.no_grad()
    def truncated(self, n_components: int, most_steps: int | None = None) -> "ScaledAutoEncoder":
        """Return a network with the first codes only, which shares its weights. The other codes are zero, the mean's.

        The number of projection steps is limited to ``most_steps``.
        """
        sizes, short = self.architecture, _sharing(self)
        short.network = _sharing(self.network)
        n_dropped = sizes.bottleneck - n_components
        short.architecture = short.network.architecture = replace(sizes, n_components=n_components, n_dropped=n_dropped)
        for name, values in self.named_buffers(recurse=False):
            if name in ("pca_unit", "code_unit", "code_rms", "code_mean", "code_shrinkage"):
                short._buffers[name] = values[:n_components]
            elif name == "anchors":
                short._buffers[name] = values[:, :n_components]
            elif name in ("metric", "code_precision"):
                short._buffers[name] = _leading_block(values, n_components)
        short.projection = self.projection if most_steps is None else self.projection.limited(most_steps)
        short._exact = short._points = ()
        return short

    @torch.no_grad()
    def rescale(self, pca: PrincipalComponents) -> None:
        """Standardize with the mean and scale of other samples, without changing the weights of the network."""
        for unit in (self.pca_unit, self.code_unit):
            unit.mul_(pca.scale / self.scale)
        self._set_location(pca)

    def _set_location(self, pca: PrincipalComponents) -> None:
        """Set the mean and scale of the samples."""
        mean = pca.in_data_units[0]
        fill_buffers(self, {"mean": mean, "training_mean": mean, "scale": np.array(pca.scale)})
        if self.feature_scale is not None:
            fill_buffers(self, {"feature_scale": np.array(pca.feature_scale)})
        if self.filling is not None:
            self.filling.init_from_pca(pca.padded(self.architecture.bottleneck))
        if self.network.link is not None:
            self.network.link.init_from_pca(pca)

    @property
    def divisor(self) -> Tensor:
        """Scale by which centered samples are divided, of all features or of each."""
        return self.scale if self.feature_scale is None else self.scale * self.feature_scale

    def whiten(self, spread: NDArray) -> None:
        """Divide codes by their standard deviations."""
        self.code_unit.div_(torch.as_tensor(np.where(spread > 0, spread, 1.0)).to(self.code_unit))

    @torch.no_grad()
    def measure(
        self, x: Tensor, projection: Projection, loss_unit: float = 1.0, prior_weight: float | None = 0.0
    ) -> None:
        """Prepare the projection.

        Parameters
        ----------
        x : Tensor of shape (n, n_features)
            Standardized training samples, at which the Jacobians of the decoder are computed.
        projection : Projection
            What the projection minimizes.
        loss_unit : float, default=1.0
            What the loss is divided by.
        prior_weight : float or None, default=0.0
            Weight of the prior on the codes of samples with missing values; None does not project these.
        """
        z = self.network.encode(x)
        gauss_newton = mean_gauss_newton(self.network.decode, z)
        self.anchors.copy_(z[torch.arange(N_ANCHORS) % len(z), :MOST_ANCHORED])
        self.code_rms.copy_(z.square().mean(dim=0).sqrt())
        self.loss_unit.fill_(loss_unit)
        self.projection = replace(projection, incomplete=prior_weight is not None)
        if projection.n_steps > 0:
            self.metric.copy_(metric_of(self.code_loss(x), z, gauss_newton))
        if self.filling is not None:
            covariance = torch.atleast_2d(torch.cov(z.T, correction=0))
            ridge = SPREAD_RIDGE * covariance.diagonal().mean().clamp(min=torch.finfo(z.dtype).tiny)
            precision = torch.linalg.inv(covariance + ridge * torch.eye(len(covariance)).to(z))
            self.code_shrinkage.fill_(1.0)
            self.code_mean.copy_(z.mean(dim=0))
            self.code_precision.copy_(precision * (0.5 * (prior_weight or 0.0)))

    @torch.no_grad()
    def measure_code_unit(self, x: Tensor) -> None:
        """Let a step of one in a code move the reconstruction by one, as in PCA.

        By root mean square over standardized training samples x, distances between codes then weigh each code by what
        it does to the data.
        """
        z = self.network.encode(x) if self.projection.n_steps == 0 else self.project_standardized(x)
        slope = mean_gauss_newton(self.network.decode, z).diagonal().sqrt()
        self.code_unit.copy_(torch.where(slope > 0, self.scale * slope, self.pca_unit))

    def code_penalties(self, z: Tensor) -> Tensor:
        """Return what the regularizers add to the loss of each sample for its code, of shape (n,)."""
        terms = [penalty.code_penalty(z, self.code_rms) for penalty in self.projection.penalties]
        return sum((term for term in terms if term is not None), torch.zeros_like(z[:, 0]))

    def code_loss(self, x: Tensor) -> CodeLoss:
        """Return the loss that the projection of standardized samples minimizes."""
        loss, penalized = self.projection.loss, len(self.projection.penalties) > 0
        quadratic = self.network.quadratic_loss(x) if type(loss) is SquaredError and not penalized else None
        if quadratic is not None:
            return quadratic
        criterion = criterion_of(loss, self.mean, self.divisor, float(self.loss_unit))

        def per_sample(x_hat: Tensor, x: Tensor, z: Tensor) -> Tensor:
            return criterion.per_sample(x_hat, x) + self.code_penalties(z)

        return ReconstructionLoss(self.network.decode, per_sample, x)

    def incomplete_code_loss(self, x: Tensor) -> CodeLoss:
        """Return the loss by the values that are present, with the prior on the codes."""
        criterion = OfPresent(criterion_of(self.projection.loss, self.mean, self.divisor, float(self.loss_unit)))

        def per_sample(x_hat: Tensor, x: Tensor, z: Tensor) -> Tensor:
            offsets = z - self.code_mean
            prior = ((offsets @ self.code_precision) * offsets).sum(dim=1)
            missing_fraction = x.isnan().to(z.dtype).mean(dim=1)
            return criterion.per_sample(x_hat, x) + missing_fraction * prior + self.code_penalties(z)

        return ReconstructionLoss(self.network.decode, per_sample, x)

    def in_double(self) -> "ScaledAutoEncoder":
        """Return this network in double precision, where its device has that.

        Rounding would otherwise decide about steps of the projection, and differs with the samples beside a sample.
        """
        if self.mean.dtype == torch.float64 or self.mean.device.type == "mps":
            return self
        if self._exact and self._exact[0] == self._versions():
            return self._exact[1]
        with torch.inference_mode(False):
            return copy.deepcopy(self).double()

    def keep_double(self) -> None:
        """Keep a copy in double precision for `in_double`, and its anchors, for as long as no weight changes."""
        self._exact = ()
        exact = self.in_double()
        if exact is not self:
            self._exact = (self._versions(), exact)
        if self._is_anchored and len(self.mean) <= MOST_KEPT:
            exact._points = (exact._versions(), exact._anchor_points())

    def _versions(self) -> list:
        """Say which state the weights are in."""
        return [(value.data_ptr(), value._version) for value in self.state_dict(keep_vars=True).values()]

    def project(self, x: Tensor) -> Tensor:
        """Map samples to the codes of the nearest points of the manifold of the decoder, in units of the data."""
        if self.projection.n_steps == 0:
            return self.encode(x)
        with torch.inference_mode(False), torch.no_grad():
            standardized = (x.clone() - self.mean) / self.divisor
            return self.project_standardized(standardized) * self.code_unit

    def reconstruct(self, x: Tensor) -> Tensor:
        """Map samples to the nearest points of the manifold of the decoder."""
        return self.decode(self.project(x))

    def project_standardized(self, x: Tensor) -> Tensor:
        """Project standardized samples, which may have missing values, in units of the network."""
        if self.filling is None:
            return self._from_starts(self.code_loss(x), x)
        incomplete, filled = x.isnan().any(dim=1), self.filling(x)
        z = self.shrunk(self.network.encode(filled), x)
        if not incomplete.all():
            complete = ~incomplete
            z[complete] = self._from_starts(self.code_loss(x[complete]), x[complete])
        if incomplete.any() and self.projection.incomplete:
            loss = self.incomplete_code_loss(x[incomplete])
            z[incomplete] = self._from_starts(loss, filled[incomplete])
        return z

    def _from_starts(self, loss: CodeLoss, x: Tensor) -> Tensor:
        """Project from the best start."""
        return project(loss, self.starts(x), self.metric, self.projection.n_steps)

    def starts(self, x: Tensor) -> list[Tensor]:
        """Return the codes of the encoder, of PCA and of the nearest anchor, for standardized and imputed samples."""
        found = [self.network.encode(x)]
        if self.architecture.linear_skip:
            found.append(self.network.encode_linear(x))
        if self._is_anchored:
            points, squares = self._anchor_points()
            found.append(self.anchors[(squares - 2.0 * x @ points.T).argmin(dim=1)])
        return found

    @property
    def _is_anchored(self) -> bool:
        return self.architecture.n_components <= MOST_ANCHORED and self.projection.n_steps > 0

    @torch.no_grad()
    def _anchor_points(self) -> tuple[Tensor, Tensor]:
        """Return the reconstructions of the anchors and their squared norms."""
        if self._points and self._points[0] == self._versions():
            return self._points[1]
        points = self.network.decode(self.anchors)
        return points, points.square().sum(dim=1)

    def standardized(self, x: Tensor) -> Tensor:
        """Standardize samples, and impute missing values."""
        centered = (x - self.mean).div_(self.divisor)
        return centered if self.filling is None else self.filling(centered)

    def encode(self, x: Tensor) -> Tensor:
        """Map samples to codes in the units of the data."""
        return self.shrunk(self.network.encode(self.standardized(x)), x) * self.code_unit

    @property
    def pca_shrinkage(self) -> Tensor:
        """Ratio of the posterior mean of each code by probabilistic PCA to the code of PCA of the imputed sample."""
        ridge = cast(PPCAImputer, self.filling).ridge
        return 1.0 / (1.0 + ridge[: self.architecture.n_components])

    def shrunk(self, z: Tensor, x: Tensor, shrinkage: Tensor | None = None) -> Tensor:
        """Multiply the codes of samples with missing values by the shrinkage, by default that of this network."""
        if self.filling is None:
            return z
        shrinkage = self.code_shrinkage if shrinkage is None else shrinkage
        return torch.where(x.isnan().any(dim=1, keepdim=True), z * shrinkage, z)

    def decode(self, z: Tensor) -> Tensor:
        """Map codes to reconstructions in the units of the data."""
        return self.decode_unit(z / self.code_unit)

    def log_variance(self, x: Tensor) -> Tensor:
        """Compute the log variance of each code, in the units of the codes."""
        return self.network.log_variance(self.standardized(x)) + 2.0 * self.code_unit.log()

    def decode_unit(self, z: Tensor) -> Tensor:
        """Map codes of unit scale to reconstructions in the units of the data."""
        # A copy, because z may be a view of an array, and the last bits of a product depend on its alignment.
        x_hat = torch.addcmul(self.mean, self.network.decode(z.clone()), self.divisor)
        return x_hat if self.network.link is None else self.network.link.within_range(x_hat)

    def contributions(self, x: Tensor) -> Tensor:
        """Compute the contribution of each feature to each code, of shape (n, n_components * n_features).

        It is the derivative of the code by the feature times the deviation of the feature from the mean; zero if the
        feature is missing.
        """
        deviations = (x - self.mean).masked_fill_(x.isnan(), 0.0)
        return (self._code_slopes(x) * deviations[:, None]).flatten(start_dim=1)

    def _code_slopes(self, x: Tensor) -> Tensor:
        """Compute the derivatives of the codes by the features, of shape (n, n_components, n_features).

        A projected code minimizes the squared error of ``decode(z)``, so that ``J^T (decode(z) - x) = 0`` with the
        Jacobian J of the decoder. With the Gauss-Newton matrix, which leaves out the curvature of the decoder, the
        derivative is ``(J^T J)^-1 J^T``. A code without effect has derivative zero.
        """
        if self.projection.n_steps == 0:
            return encoder_jacobians(self.encode, x).mT
        jacobians, inverse = self._inverse_gauss_newton(x)
        slopes = inverse @ jacobians.mT
        encoded = self._incomplete_encoded(x)
        if encoded.any():
            slopes[encoded] = encoder_jacobians(self.encode, x[encoded]).mT
        return slopes

    def _inverse_gauss_newton(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the Jacobian J of the decoder at the code of each sample, and the pseudoinverse of J^T J.

        Missing values are left out of J, and the precision of the prior is added to J^T J.
        """
        missing = x.isnan()
        jacobians = decoder_jacobians(self.decode, self.project(x)).masked_fill(missing[..., None], 0.0)
        gauss_newton = jacobians.mT @ jacobians
        if self.filling is not None:  # the prior of `incomplete_code_loss`, which has the mean over all features
            unit = self.code_unit / self.scale
            gauss_newton += missing.sum(dim=1)[:, None, None] * (self.code_precision / torch.outer(unit, unit))
        return jacobians, torch.linalg.pinv(gauss_newton, hermitian=True)

    def _incomplete_encoded(self, x: Tensor) -> Tensor:
        """Return which samples have missing values and the code of the encoder."""
        return x.isnan().any(dim=1) & (not self.projection.incomplete)

    def code_std(self, x: Tensor) -> Tensor:
        """Compute the standard deviation of each code for noise of standard deviation one, of shape (n, n_components).

        A projected code is a least-squares estimate, whose covariance is ``(J^T J)^-1``; that of an encoder follows
        from its derivatives. It is zero for a code without effect.
        """
        if self.projection.n_steps == 0:
            return encoder_jacobians(self.encode, x).norm(dim=1)
        std = self._inverse_gauss_newton(x)[1].diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt()
        encoded = self._incomplete_encoded(x)
        if encoded.any():
            std[encoded] = encoder_jacobians(self.encode, x[encoded]).norm(dim=1)
        return std

    def squares(self, x: Tensor) -> Tensor:
        """Compute the squared norms of the reconstruction error and of the deviation from the mean, of shape (n, 2)."""
        missing = None if self.filling is None else x.isnan()
        x_hat = self.reconstruct(x)
        # Each norm is computed before the next tensor is created, which limits the memory.
        norms = _squared_norms(x_hat.sub_(x), missing), _squared_norms(x - self.training_mean, missing)
        return torch.stack(norms, dim=1)


def _squared_norms(samples: Tensor, missing: Tensor | None) -> Tensor:
    """Compute squared norms in float64 on the CPU, without missing values. The samples are overwritten."""
    if missing is not None:
        samples.masked_fill_(missing, 0.0)
    return samples.cpu().double().square_().sum(dim=1)


def _sharing(module: nn.Module) -> Any:
    """Return a module with the same parameters, buffers and submodules, of which others can be set."""
    shared = copy.copy(module)
    for name in ("_parameters", "_buffers", "_modules"):
        setattr(shared, name, dict(getattr(module, name)))
    return shared


def _leading_block(matrix: Tensor, size: int) -> Tensor:
    """Return the inverse of the leading block of the inverse of a matrix."""
    if size == len(matrix) or not matrix.any():
        return matrix[:size, :size]
    return torch.linalg.inv(torch.linalg.inv(matrix)[:size, :size])


def build(architecture: Architecture, dtype: torch.dtype) -> ScaledAutoEncoder:
    """Build the network for an architecture, with uninitialized weights."""
    return ScaledAutoEncoder(FeedForwardAutoEncoder(architecture, dtype), dtype)
