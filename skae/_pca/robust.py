"""Principal components for losses that depend less on outliers or on lengths than the squared error."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skae._data.containers import Samples, WrappedSamples, chunks_of, map_chunks
from skae._data.sample import Sample
from skae._data.validation import CHECKED_VALUES
from skae._pca.components import PrincipalComponents
from skae._pca.exact import descending_eigh, flipped, times_root_weights
from skae._utils import aligned_tensor

# Number of samples from which the median of each feature is computed. No measurement of this value is recorded.
MEDIAN_SAMPLES = 10_000
# A sample is an outlier if its distance from the median exceeds the median distance by more than this many
# interquartile ranges of the distances. Chosen by reasoning, such that data without outliers are not changed, whatever
# their dimension, even if their distributions have heavy tails.
OUTLIER_RANGE = 10.0


class ClippedSamples(WrappedSamples):
    """Samples that are moved towards a center if their distance from it exceeds a radius.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        The samples, which may contain NaN. They are not copied.
    center : ndarray of shape (n_features,)
        The center.
    radius : float
        Maximum Euclidean distance from the center.
    """

    def __init__(self, X: Samples, center: NDArray, radius: float) -> None:
        super().__init__(X)
        self.center = center
        self.radius = radius

    def _read(self, samples: Any, features: slice) -> NDArray:
        values = self.X[samples]
        distances = distances_from(self.center, values)
        outside = distances > self.radius
        if outside.any():
            differences = (values[outside] - self.center) * (self.radius / distances[outside])[:, None]
            values = values.copy()
            values[outside] = differences + self.center
        return values[:, features]


def distances_from(center: NDArray, samples: NDArray) -> NDArray:
    """Compute the Euclidean distance of each sample from a center in float64, without missing values."""
    with np.errstate(over="ignore"):
        return np.linalg.norm(np.nan_to_num(samples.astype(np.float64) - center, nan=0.0), axis=1)


def clip_wild_samples(sample: Sample) -> Sample:
    """Move outliers towards the median of the features.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        The samples, which may contain NaN.

    Returns
    -------
    Sample of shape (n_samples, n_features)
        The samples, with outliers moved. It is the same object if there are none.
    """
    center = np.nan_to_num(np.nanmedian(sample.spread_out(MEDIAN_SAMPLES).astype(np.float64), axis=0), nan=0.0)
    distances = map_chunks(lambda samples: distances_from(center, samples), sample, CHECKED_VALUES)
    furthest = sample.ranks.max(distances.max(initial=0.0))
    if sample.spans_ranks:
        distances = distances_from(center, sample.spread_out(MEDIAN_SAMPLES))
    finite = distances[(distances > 0) & np.isfinite(distances)]
    if len(finite) == 0:
        return sample
    lower, middle, upper = np.percentile(finite, [25, 50, 75])
    radius = middle + OUTLIER_RANGE * (upper - lower)
    return sample.of(ClippedSamples(sample.X, center, radius)) if furthest > radius > 0 else sample


def directional_components(sample: Sample, pca: PrincipalComponents) -> PrincipalComponents:
    """Compute the principal components, without centering, of samples divided by their lengths.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        Samples without missing values.
    pca : PrincipalComponents
        Principal components of the samples, of which as many are computed.

    Returns
    -------
    PrincipalComponents
        The principal components, with a mean of zero.
    """
    n_components, n_features = pca.components.shape
    zero = np.zeros(n_features)
    products = torch.zeros((n_features, n_features), dtype=torch.float64)
    for chunk in chunks_of(sample, CHECKED_VALUES):
        lengths = distances_from(zero, sample[chunk])
        directions = aligned_tensor(sample[chunk] / np.where(lengths > 0, lengths, 1.0)[:, None])
        rooted = times_root_weights(sample, directions, chunk)
        products += rooted.T @ rooted
    products = torch.from_numpy(sample.ranks.sum(products.numpy()))
    components = sample.ranks.first(flipped(descending_eigh(products)[1][:n_components].numpy()))
    largest, squares = np.zeros(n_components), np.zeros(n_components)
    for chunk in chunks_of(sample, CHECKED_VALUES):
        codes = sample[chunk].astype(np.float64) @ components.T
        largest = np.maximum(largest, np.abs(codes).max(axis=0))
        squares += sample.weighted_sum(np.square(codes), chunk)
    largest, squares = sample.ranks.max(largest), sample.ranks.sum(squares)
    return replace(
        pca,
        mean=zero,
        components=components,
        explained_variance=squares / sample.total,
        feature_std=np.hypot(pca.feature_std, pca.mean),
        feature_max_abs=pca.feature_max_abs + np.abs(pca.mean),
        code_max_abs=largest,
    )
