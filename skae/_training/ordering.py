"""Variance that is explained by the first codes, and directions of the codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skae._data.dataset import apply_in_batches
from skae._data.sample import Sample
from skae._network.projection import average_jacobian, decoder_jacobians
from skae._network.scaling import ScaledAutoEncoder
from skae._pca.components import PrincipalComponents
from skae._utils import as_tensor

# Largest number of prefixes of the codes, from one code to all, that are compared with PCA.
MOST_PREFIXES = 6
# Largest number of samples that the training score is computed on, of codes over all prefixes and samples, and smallest
# number of samples for a prefix. No measurement of these values is recorded.
SCORED_SAMPLES = 4096
PREFIX_CODES = 4096
LEAST_SAMPLES = 128
# Number of projection steps in comparisons, which more steps hardly change.
JUDGING_STEPS = 3
# Number of training samples at which Jacobians are computed.
JACOBIAN_SAMPLES = 256


@dataclass(frozen=True)
class ExplainedVariance:
    """Variance that each code explains, and its mean direction, as `sklearn.decomposition.PCA` has them.

    Attributes
    ----------
    ratio : ndarray of shape (n_components,)
        Fraction of the variance that each code explains in addition to the codes before it.
    variance : ndarray of shape (n_components,)
        The same in squared units of the features (divisor n - 1).
    noise_variance : float
        Mean variance of the directions that are left.
    components : ndarray of shape (n_components, n_features)
        Mean derivatives of the reconstruction by each code.
    n_samples : int
        Number of samples.
    """

    ratio: NDArray
    variance: NDArray
    noise_variance: float
    components: NDArray
    n_samples: int


def prefix_sizes(n_components: int) -> list[int]:
    """Return the numbers of first codes with which a network is compared with PCA of that size."""
    sizes = np.geomspace(1, n_components, min(n_components, MOST_PREFIXES))
    return sorted({*map(int, sizes.round())} - {n_components})


def variance_of_pca(pca: PrincipalComponents, sample: Sample, n_components: int) -> ExplainedVariance:
    """Return the variance that the principal components of the samples explain."""
    pca = pca.truncated(n_components)
    total = total_variance(pca, sample)
    ratio = pca.explained_variance / total if total > 0 else np.zeros(n_components)
    return _with_noise(ratio, total, sample, pca.components)


def variance_of_network(
    model: ScaledAutoEncoder,
    pca: PrincipalComponents,
    sample: Sample,
    unit: Tensor,
    score: float | None = None,
) -> ExplainedVariance:
    """Compute the variance that the first codes of a network explain.

    Parameters
    ----------
    model : ScaledAutoEncoder
        The network.
    pca : PrincipalComponents
        Principal components of the samples, of which the standard deviations of the features are used.
    sample : Sample of shape (n_samples, n_features)
        Training samples.
    unit : Tensor of shape (n_components,)
        Units of the codes by which the derivatives are taken.
    score : float, default=None
        Score of the samples; None computes that of up to 4,096.

    Returns
    -------
    ExplainedVariance
        Its ratios sum to the score.
    """
    sizes, total = range(1, model.architecture.n_components + 1), total_variance(pca, sample)
    n_samples = int(np.clip(PREFIX_CODES // len(sizes), LEAST_SAMPLES, SCORED_SAMPLES))
    few = sample.few(n_samples)
    explained = np.array([_score(model.truncated(size, JUDGING_STEPS), few) for size in sizes])
    score = _score(model, sample.few(SCORED_SAMPLES)) if score is None else score
    ratio = np.diff(explained, prepend=0.0) * (score / explained[-1] if explained[-1] > 0 else 1.0)
    x = as_tensor(sample.spread_out(JACOBIAN_SAMPLES)).to(model.mean)
    n_features = model.architecture.n_features
    jacobian = average_jacobian(decoder_jacobians, model.decode, model.project(x), n_features, signed=True)
    directions = (jacobian * (model.code_unit / unit)).T.double().cpu().numpy()
    return _with_noise(ratio, total, sample, directions)


def total_variance(pca: PrincipalComponents, sample: Sample) -> float:
    """Return the sum of the variances of all features (divisor n - 1)."""
    return float(np.square(pca.feature_std * pca.feature_scale).sum() * sample.total / max(sample.total - 1, 1))


def _score(model: ScaledAutoEncoder, sample: Sample) -> float:
    """Compute the fraction of the variance of samples that the reconstructions explain."""
    errors, offsets = sample.weighted_sum(apply_in_batches(model.squares, sample, 2, model.mean, np.float64))
    return float(1.0 - errors / offsets) if offsets > 0 else 0.0


def _with_noise(ratio: NDArray, total: float, sample: Sample, components: NDArray) -> ExplainedVariance:
    """Add the variances, and the mean of what the codes leave over the other directions."""
    n_samples = round(sample.total)
    n_left = min(n_samples, sample.X.shape[1]) - len(ratio)
    noise = max(total * (1.0 - ratio.sum()), 0.0) / n_left if n_left > 0 else 0.0
    return ExplainedVariance(ratio, ratio * total, float(noise), components, n_samples)
