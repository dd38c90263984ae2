"""Principal components of samples with missing values, and imputation by probabilistic PCA."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._data.containers import Samples, WrappedSamples, chunks_of
from skae._data.sample import Sample
from skae._data.validation import CHECKED_VALUES
from skae._pca.components import PrincipalComponents
from skae._pca.exact import principal_components

# Minimum noise variance relative to the mean variance of the features, per fraction of missing values, because the
# noise is underestimated from samples with many missing values. No measurement of this value is recorded.
MIN_NOISE = 0.6
# Maximum number of iterations, and change of the explained variance, as a fraction of the total variance, below which
# they stop. No measurement of these values is recorded.
MAX_ITERATIONS = 30
TOLERANCE = 1e-4


class PPCAImputer(nn.Module):
    """Imputation by probabilistic PCA, for centered samples of unit scale with NaN for missing values.

    A sample without any observed value is imputed by the mean.

    Parameters
    ----------
    n_components : int
        Number of principal components.
    n_features : int
        Number of features.
    dtype : torch.dtype
        Dtype of the samples.

    References
    ----------
    .. [1] M. E. Tipping, C. M. Bishop, "Probabilistic principal component analysis", Journal of the Royal Statistical
       Society B 61 (1999) 611-622. :doi:`10.1111/1467-9868.00196`
    """

    components: Tensor
    ridge: Tensor

    def __init__(self, n_components: int, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("components", torch.zeros((n_components, n_features), dtype=dtype))
        self.register_buffer("ridge", torch.ones(n_components, dtype=dtype))

    @torch.no_grad()
    def init_from_pca(self, pca: PrincipalComponents) -> None:
        """Set the components and the ratio of noise to variance along each."""
        n_components, n_features = self.components.shape
        variances = pca.explained_variance / pca.scale**2
        unexplained = np.square(pca.feature_std / pca.scale).sum() - variances.sum()
        # Imputed values are without noise.
        noise = unexplained / max(n_features - n_components, 1) / pca.present_fraction
        noise = max(noise, MIN_NOISE * (1.0 - pca.present_fraction), np.finfo(np.float32).eps)
        self.components.copy_(torch.as_tensor(pca.components))
        self.ridge.copy_(torch.as_tensor(noise / np.maximum(variances, np.finfo(np.float32).tiny)))

    @torch.no_grad()
    def truncated(self, n_components: int) -> "PPCAImputer":
        """Return an imputer with the first components. The variance along the others is noise."""
        size, n_features = self.components.shape
        short = PPCAImputer(n_components, n_features, self.components.dtype)
        # In units of the noise.
        unexplained = n_features - size + (1.0 / self.ridge[n_components:]).sum()
        short.components.copy_(self.components[:n_components])
        short.ridge.copy_(self.ridge[:n_components] * unexplained / max(n_features - n_components, 1))
        return short.to(self.components.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return the samples with imputed values in place of NaN."""
        missing = x.isnan()
        if not missing.any():
            return x
        incomplete = missing.any(dim=1).nonzero()[:, 0]
        present, samples = (~missing[incomplete]).to(x.dtype), x[incomplete].nan_to_num(0.0)
        n_components = len(self.components)
        pairs = (self.components[:, None] * self.components).reshape(n_components**2, -1)
        products = (present @ pairs.T).reshape(-1, n_components, n_components) + self.ridge.diag()
        codes = torch.linalg.solve(products, samples @ self.components.T)
        return x.index_copy(0, incomplete, torch.where(missing[incomplete], codes @ self.components, samples))


class ImputedRows(WrappedSamples):
    """Samples whose missing values are imputed when they are indexed.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        The samples, with NaN for missing values. They are not copied.
    mean : ndarray of shape (n_features,)
        Mean of each feature.
    scale : float, default=1.0
        Scale by which centered samples are divided for the imputer.
    imputer : PPCAImputer or None, default=None
        Imputes centered and scaled samples. None imputes the mean.
    """

    def __init__(self, X: Samples, mean: NDArray, scale: float = 1.0, imputer: PPCAImputer | None = None) -> None:
        super().__init__(X)
        self.mean = mean
        self.scale = scale
        self.imputer = imputer

    def _read(self, samples: Any, features: slice) -> NDArray:
        values, expected = self.X[samples], self.mean
        missing = np.isnan(values)
        if missing.any():
            if self.imputer is not None:
                centered = torch.from_numpy((values.astype(np.float64) - self.mean) / self.scale)
                expected = self.imputer(centered).numpy() * self.scale + self.mean
            values = np.where(missing, expected.astype(values.dtype), values)
        return values[:, features]


def principal_components_of_incomplete(sample: Sample, n_components: int) -> PrincipalComponents:
    """Compute the first principal components of samples with missing values.

    Imputation by probabilistic PCA and PCA of the imputed samples alternate until the explained variances converge.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        The samples, with NaN for missing values.
    n_components : int
        Number of components, at most ``min(n_samples, n_features)``.

    Returns
    -------
    PrincipalComponents
        The principal components of the imputed samples.
    """
    mean, fraction = mean_of_present(sample)
    imputed = ImputedRows(sample.X, mean)
    previous = np.zeros(n_components)
    for _ in range(MAX_ITERATIONS + 1):
        pca = replace(principal_components(sample.of(imputed), n_components), present_fraction=fraction)
        explained = pca.explained_variance / pca.scale**2
        if np.abs(explained - previous).sum() < TOLERANCE * len(mean):
            break
        previous = explained
        imputer = PPCAImputer(n_components, len(mean), torch.float64)
        imputer.init_from_pca(pca)
        imputed = ImputedRows(sample.X, pca.mean, pca.scale, imputer)
    return pca


def mean_of_present(sample: Sample) -> tuple[NDArray, float]:
    """Compute the mean of the present values of each feature, and the fraction of values that are present."""
    total, count = np.zeros((2, sample.shape[1]))
    for chunk in chunks_of(sample, CHECKED_VALUES):
        values = sample[chunk]
        total += sample.weighted_sum(np.nan_to_num(values, nan=0.0), chunk)
        count += sample.weighted_sum(~np.isnan(values), chunk)
    # All present values of a feature may be in held-out samples. It is then treated as constant in the others.
    return total / np.where(count > 0, count, 1), max(float(count.sum()) / (sample.total * sample.shape[1]), 1e-6)
