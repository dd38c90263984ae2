"""The principal components of some samples: what every linear path starts from."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrincipalComponents:
    """Location, spread and principal directions of some samples.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Mean of each feature.
    feature_std : ndarray of shape (n_features,)
        Standard deviation of each feature (divisor n).
    components : ndarray of shape (n_components, n_features)
        Orthonormal principal directions, the most important first, signs as in scikit-learn's PCA.
    explained_variance : ndarray of shape (n_components,)
        Variance along each direction (divisor n - 1).
    feature_max_abs : ndarray of shape (n_features,)
        Largest distance from the mean in each feature.
    code_max_abs : ndarray of shape (n_components,)
        Largest distance from the mean along each direction.
    effective_sample_size : float
        How many samples of equal weight would fraction the variance as evenly as these do; samples of a group count as one.
    present_fraction : float
        Fraction of the values that were not missing.
    """

    mean: NDArray
    feature_std: NDArray
    components: NDArray
    explained_variance: NDArray
    feature_max_abs: NDArray
    code_max_abs: NDArray
    effective_sample_size: float
    present_fraction: float = 1.0

    def padded(self, n_components: int) -> "PrincipalComponents":
        """The same with directions of zeros and of no variance up to a number."""
        missing = n_components - len(self.components)
        return replace(
            self,
            components=np.pad(self.components, ((0, missing), (0, 0))),
            explained_variance=np.pad(self.explained_variance, (0, missing)),
            code_max_abs=np.pad(self.code_max_abs, (0, missing)),
        )

    @property
    def scale(self) -> float:
        """Root mean square of the features' standard deviations; 1 where nothing varies."""
        scale = float(np.sqrt(np.mean(np.square(self.feature_std / self._largest)))) * self._largest
        return scale if scale > 0 else 1.0

    @property
    def _largest(self) -> float:
        return float(self.feature_std.max()) or 1.0

    def unexplained_variance_ratio(self, total: float) -> float:
        """Fraction of the variance of samples that the directions leave unexplained; they count as ``total`` samples."""
        whole = np.mean(np.square(self.feature_std / self.scale)) * len(self.mean)
        explained = np.sum(self.explained_variance / self.scale**2) * (total - 1) / total
        return float(max(1.0 - explained / whole, 0.0)) if whole > 0 else 0.0
