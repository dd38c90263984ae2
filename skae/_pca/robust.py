"""Principal components for losses to which lengths matter less than to the squared error."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skae._data.containers import Samples, chunks_of
from skae._data.sample import Sample
from skae._data.validation import CHECKED_VALUES
from skae._pca.components import PrincipalComponents
from skae._utils import aligned_tensor

# Samples from which the median of each feature is computed.
MEDIAN_SAMPLES = 10_000
# A sample is wild if its distance from the median exceeds the median distance by this many times the distance between
# the quartiles: chosen by reasoning, such that ordinary data of any dimension, heavy tails included, stay as they are.
WILD_RANGE = 10.0


class ClippedSamples:
    """Samples that are moved towards a center where they are farther from it than a radius.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        May have NaN for missing values, which stay.
    center : ndarray of shape (n_features,)
        Where the samples are moved to.
    radius : float
        Largest Euclidean distance from the center.
    """

    def __init__(self, X: Samples, center: NDArray, radius: float) -> None:
        self.X = X
        self.center = center
        self.radius = radius

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

    def __getitem__(self, key: Any) -> NDArray:
        """Return the chosen samples, of a pair of choices some of their features."""
        if isinstance(key, tuple):
            return self[key[0]][:, key[1]]
        samples = self.X[key]
        distances = distances_from(self.center, samples)
        wild = distances > self.radius
        if wild.any():
            differences = (samples[wild] - self.center) * (self.radius / distances[wild])[:, None]
            samples = samples.copy()
            samples[wild] = differences + self.center
        return samples

    def gather(self, indices: NDArray, out: NDArray) -> None:
        """Write some samples into an array."""
        out[...] = self[indices]


def distances_from(center: NDArray, samples: NDArray) -> NDArray:
    """Return the Euclidean distance of each sample from a center, in float64; missing values count as the center's."""
    with np.errstate(over="ignore"):
        return np.linalg.norm(np.nan_to_num(samples.astype(np.float64) - center, nan=0.0), axis=1)


def clip_wild_samples(sample: Sample) -> Sample:
    """Move the few samples that are far from all others towards the median of the features.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        May have NaN for missing values.

    Returns
    -------
    Sample of shape (n_samples, n_features)
        The same one where no sample is wild.
    """
    center = np.nan_to_num(np.nanmedian(sample.spread_out(MEDIAN_SAMPLES).astype(np.float64), axis=0), nan=0.0)
    distances = np.concatenate([distances_from(center, sample[chunk]) for chunk in chunks_of(sample, CHECKED_VALUES)])
    finite = distances[(distances > 0) & np.isfinite(distances)]
    if len(finite) == 0:
        return sample
    lower, middle, upper = np.percentile(finite, [25, 50, 75])
    radius = middle + WILD_RANGE * (upper - lower)
    return sample.of(ClippedSamples(sample.X, center, radius)) if distances.max() > radius > 0 else sample


def directional_components(sample: Sample, pca: PrincipalComponents) -> PrincipalComponents:
    """Find the principal components, about zero, of samples that are divided by their lengths.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        Without missing values.
    pca : PrincipalComponents
        Of the samples themselves, which give the number of components.

    Returns
    -------
    PrincipalComponents
        With a mean of zero.
    """
    n_components, n_features = pca.components.shape
    zero = np.zeros(n_features)
    products = torch.zeros((n_features, n_features), dtype=torch.float64)
    weights = np.ones(len(sample)) if sample.weights is None else sample.weights
    for chunk in chunks_of(sample, CHECKED_VALUES):
        lengths = distances_from(zero, sample[chunk])
        directions = sample[chunk] / np.where(lengths > 0, lengths, 1.0)[:, None]
        rooted = aligned_tensor((directions * np.sqrt(weights[chunk])[:, None]).astype(np.float64))
        products += rooted.T @ rooted
    components = torch.linalg.eigh(products)[1].flip(1).T[:n_components].contiguous().numpy()
    signs = np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])
    components = components * signs[:, None]
    largest, squares = np.zeros(n_components), np.zeros(n_components)
    for chunk in chunks_of(sample, CHECKED_VALUES):
        codes = sample[chunk].astype(np.float64) @ components.T
        largest = np.maximum(largest, np.abs(codes).max(axis=0))
        squares += sample.weighted_sum(np.square(codes), chunk)
    return replace(
        pca,
        mean=zero,
        components=components,
        explained_variance=squares / sample.total,
        feature_std=np.hypot(pca.feature_std, pca.mean),
        feature_max_abs=pca.feature_max_abs + np.abs(pca.mean),
        code_max_abs=largest,
    )
