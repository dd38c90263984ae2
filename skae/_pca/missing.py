"""Principal components of samples with missing values, and imputation by probabilistic PCA."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._data.containers import Samples, chunks_of
from skae._data.sample import Sample
from skae._data.validation import CHECKED_VALUES
from skae._pca.components import PrincipalComponents
from skae._pca.exact import principal_components

# What the directions leave counts as at least this fraction of the variance, in parts of the fraction that is missing:
# samples with half of their values show too little of it.
LEAST_NOISE = 0.6
# Passes until the directions and what is filled in along them agree, at most.
MOST_PASSES = 30
# Change of the explained variance, as a fraction of all, that is none.
STILL = 1e-4


class PPCAImputer(nn.Module):
    """Imputation by probabilistic PCA, for centered samples of unit scale with NaN for missing values.

    A sample without any value becomes the mean.

    Parameters
    ----------
    n_components, n_features : int
        Numbers of directions and of features.
    dtype : torch.dtype
        Of the samples.

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
    def init_from_pca(self, directions: PrincipalComponents) -> None:
        """Take over the directions, and how far each is to be trusted."""
        n_components, n_features = self.components.shape
        variances = directions.explained_variance / directions.scale**2
        left = np.square(directions.feature_std / directions.scale).sum() - variances.sum()
        # Filled-in values have no noise of their own.
        noise = left / max(n_features - n_components, 1) / directions.present_fraction
        noise = max(noise, LEAST_NOISE * (1.0 - directions.present_fraction), np.finfo(np.float32).eps)
        self.components.copy_(torch.as_tensor(directions.components))
        self.ridge.copy_(torch.as_tensor(noise / np.maximum(variances, np.finfo(np.float32).tiny)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the samples without NaN."""
        missing = x.isnan()
        if not missing.any():
            return x
        chosen = missing.any(dim=1).nonzero()[:, 0]
        there, samples = (~missing[chosen]).to(x.dtype), x[chosen].nan_to_num(0.0)
        n_components = len(self.components)
        pairs = (self.components[:, None] * self.components).reshape(n_components**2, -1)
        products = (there @ pairs.T).reshape(-1, n_components, n_components) + self.ridge.diag()
        codes = torch.linalg.solve(products, samples @ self.components.T)
        return x.index_copy(0, chosen, torch.where(missing[chosen], codes @ self.components, samples))


class ImputedRows:
    """Samples whose missing values are filled in when they are asked for.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        NaN where a value is missing.
    mean : ndarray of shape (n_features,)
        Expected of a value where nothing else is known.
    scale : float, default=1.0
        Unit in which the values are filled in.
    filling : PPCAImputer or None, default=None
        What is expected, given the other values of the sample; the mean if None.
    """

    def __init__(self, X: Samples, mean: NDArray, scale: float = 1.0, filling: PPCAImputer | None = None) -> None:
        self.X = X
        self.mean = mean
        self.scale = scale
        self.filling = filling

    @property
    def shape(self) -> tuple[int, ...]:
        """Numbers of samples and features."""
        return self.X.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.X.dtype

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, key) -> NDArray:
        """Return the chosen samples, of a pair of choices some features of theirs."""
        if isinstance(key, tuple):
            return self[key[0]][:, key[1]]
        samples = self.X[key]
        missing = np.isnan(samples)
        if not missing.any():
            return samples
        if self.filling is None:
            return np.where(missing, self.mean.astype(samples.dtype), samples)
        centered = torch.from_numpy((samples.astype(np.float64) - self.mean) / self.scale)
        expected = self.filling(centered).numpy() * self.scale + self.mean
        return np.where(missing, expected.astype(samples.dtype), samples)


def principal_components_of_incomplete(sample: Sample, n_components: int) -> PrincipalComponents:
    """Find the principal directions of samples with missing values, by filling in and looking again in turn.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        NaN where a value is missing.
    n_components : int
        Number of directions, at most ``min(n_samples, n_features)``.

    Returns
    -------
    PrincipalComponents
        Of the samples as they are filled in along these directions.
    """
    mean, fraction = mean_of_present(sample)
    n_features = sample.shape[1]
    directions = principal_components(sample.of(ImputedRows(sample.X, mean)), n_components)
    explained = np.zeros(n_components)
    for _ in range(MOST_PASSES):
        directions = replace(directions, present_fraction=fraction)
        scale = directions.scale
        change = np.abs(directions.explained_variance / scale**2 - explained).sum() / n_features
        if change < STILL:
            break
        explained = directions.explained_variance / scale**2
        filling = PPCAImputer(n_components, n_features, torch.float64)
        filling.init_from_pca(directions)
        filled = ImputedRows(sample.X, directions.mean, scale, filling)
        directions = principal_components(sample.of(filled), n_components)
    return replace(directions, present_fraction=fraction)


def mean_of_present(sample: Sample) -> tuple[NDArray, float]:
    """Mean of the values that each feature has, and the fraction of values that are there."""
    total, count = np.zeros((2, sample.shape[1]))
    for chunk in chunks_of(sample, CHECKED_VALUES):
        values = sample[chunk]
        total += sample.weighted_sum(np.nan_to_num(values, nan=0.0), chunk)
        count += sample.weighted_sum(~np.isnan(values), chunk)
    # Which samples are held out is a matter of chance: a feature without a value among the others is taken for
    # constant.
    return total / np.where(count > 0, count, 1), max(float(count.sum()) / (sample.total * sample.shape[1]), 1e-6)
