"""Principal components of samples with missing values, and imputation by probabilistic PCA."""

from collections.abc import Callable
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

# Candidates for the smallest noise variance, which is underestimated from samples with many missing values. They are
# compared on values that are hidden from up to this many samples or values, a fifth of those that are present; with the
# last one, missing values are imputed by about the mean. The largest one is chosen whose squared error is at most two
# standard errors above the lowest. The best one depends on the data: of the digits with 10 % of the values missing, the
# error of imputed values is .76 with the smallest, .63 with 4.8 and .71 with the largest (30 codes); of landsat with
# half of them missing, it is .26, .46 and .69 (16 codes).
MIN_NOISES = (0.15, 0.3, 0.6, 1.2, 2.4, 4.8, 10.0, 20.0)
COMPARED_SAMPLES, COMPARED_VALUES = 1000, 100_000
HIDDEN_FRACTION = 0.2
# Maximum number of iterations, and change of the explained variance, as a fraction of the total variance, below which
# they stop. No measurement of these values is recorded.
MAX_ITERATIONS = 30
TOLERANCE = 1e-4
# Largest number of features whose pairs are counted.
PAIRED_FEATURES = 256


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

    def __init__(self, n_components: int, n_features: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.components = nn.Buffer(torch.zeros((n_components, n_features), dtype=dtype))
        self.ridge = nn.Buffer(torch.ones(n_components, dtype=dtype))

    @torch.no_grad()
    def init_from_pca(self, pca: PrincipalComponents) -> None:
        """Set the components and the ratio of noise to variance along each."""
        n_components, n_features = self.components.shape
        variances = pca.explained_variance / pca.scale**2
        unexplained = np.square(pca.feature_std / pca.scale).sum() - variances.sum()
        # Imputed values are without noise.
        noise = unexplained / max(n_features - n_components, 1) / pca.present_fraction
        missing = 1.0 - pca.present_fraction
        noise = max(noise, pca.min_noise * missing if missing > 0 else 0.0, np.finfo(np.float32).eps)
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
        return x.index_copy(0, incomplete, self.imputed(missing[incomplete], x[incomplete].nan_to_num(0.0)))

    def imputed(self, missing: Tensor, samples: Tensor, solve: Callable = torch.linalg.solve) -> Tensor:
        """Return samples, which are zero where values are missing, with imputed values there."""
        n_components = len(self.components)
        pairs = (self.components[:, None] * self.components).reshape(n_components**2, -1)
        products = ((~missing).to(samples.dtype) @ pairs.T).reshape(-1, n_components, n_components) + self.ridge.diag()
        return torch.where(missing, solve(products, samples @ self.components.T) @ self.components, samples)


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


def principal_components_of_incomplete(
    sample: Sample, n_components: int, min_noise: float | None = None
) -> PrincipalComponents:
    """Compute the first principal components of samples with missing values.

    Imputation by probabilistic PCA and PCA of the imputed samples alternate until the explained variances converge.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        The samples, with NaN for missing values.
    n_components : int
        Number of components, at most ``min(n_samples, n_features)``.
    min_noise : float, default=None
        Smallest noise variance of the imputation, as `PrincipalComponents.min_noise`. None chooses it.

    Returns
    -------
    PrincipalComponents
        The principal components of the imputed samples.
    """
    mean, fraction = mean_of_present(sample)
    min_noise = _chosen_noise(sample, n_components) if min_noise is None else min_noise
    imputed = ImputedRows(sample.X, mean)
    previous = np.zeros(n_components)
    for _ in range(MAX_ITERATIONS + 1):
        pca = principal_components(sample.of(imputed), n_components)
        pca = replace(pca, present_fraction=fraction, min_noise=min_noise)
        explained = pca.explained_variance / pca.scale**2
        if sample.ranks.first(np.abs(explained - previous).sum() < TOLERANCE * len(mean)):
            break
        previous, imputed = explained, imputed_by(pca, sample.X)
    return pca


def imputed_by(pca: PrincipalComponents, X: Samples) -> ImputedRows:
    """Return samples whose missing values are imputed by principal components."""
    imputer = PPCAImputer(len(pca.components), len(pca.mean), torch.float64)
    imputer.init_from_pca(pca)
    return ImputedRows(X, pca.mean, pca.scale, imputer)


def _chosen_noise(sample: Sample, n_components: int) -> float:
    """Choose the smallest noise variance by values that are hidden from some of the samples."""
    n_samples = min(sample.count, COMPARED_SAMPLES, COMPARED_VALUES // sample.shape[1] + 1)
    values = sample.spread_out(n_samples).astype(np.float64)
    hidden = (np.random.RandomState(0).uniform(size=values.shape) < HIDDEN_FRACTION) & ~np.isnan(values)
    few = Sample(np.where(hidden, np.nan, values))
    candidates = [principal_components_of_incomplete(few, min(n_components, *few.shape), one) for one in MIN_NOISES]
    unit = candidates[0].scale  # squares of huge values would overflow
    imputed = (imputed_by(pca, few.X)[:] for pca in candidates)
    errors = [np.square(np.where(hidden, found - values, 0.0) / unit).sum(axis=1) for found in imputed]
    worse = np.array(errors) - errors[np.mean(errors, axis=1).argmin()]
    largest = np.flatnonzero(worse.mean(axis=1) <= 2.0 * worse.std(axis=1) / np.sqrt(n_samples)).max()
    return MIN_NOISES[int(sample.ranks.first(int(largest)))]


def mean_of_present(sample: Sample) -> tuple[NDArray, float]:
    """Compute the mean of the present values of each feature, and the fraction of values that are present."""
    total, count = np.zeros((2, sample.shape[1]))
    for chunk in chunks_of(sample, CHECKED_VALUES):
        values = sample[chunk]
        total += sample.weighted_sum(np.nan_to_num(values, nan=0.0), chunk)
        count += sample.weighted_sum(~np.isnan(values), chunk)
    total, count = sample.ranks.sum(total), sample.ranks.sum(count)
    # All present values of a feature may be in held-out samples. It is then treated as constant in the others.
    return total / np.where(count > 0, count, 1), max(float(count.sum()) / (sample.total * sample.shape[1]), 1e-6)


def never_together(sample: Sample) -> float:
    """Return the fraction of the pairs of features that are never present in the same sample, for some features."""
    features = np.linspace(0, sample.shape[1] - 1, min(sample.shape[1], PAIRED_FEATURES), dtype=int)
    counts = np.zeros((len(features), len(features)))
    for chunk in chunks_of(sample, CHECKED_VALUES):
        present = (~np.isnan(sample[chunk][:, features])).astype(np.float32)
        counts += present.T @ present
    return float(np.mean(sample.ranks.sum(counts) == 0))
