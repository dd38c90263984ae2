"""Mean, standard deviations and principal components of samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PrincipalComponents:
    """Mean, standard deviations and principal components of samples.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        Mean of each feature.
    feature_std : ndarray of shape (n_features,)
        Standard deviation of each feature (divisor n).
    components : ndarray of shape (n_components, n_features)
        Orthonormal principal directions, in order of decreasing explained variance. The signs are those of
        `sklearn.decomposition.PCA`.
    explained_variance : ndarray of shape (n_components,)
        Variance of the samples along each direction (divisor n - 1).
    feature_max_abs : ndarray of shape (n_features,)
        Largest absolute deviation from the mean of each feature.
    code_max_abs : ndarray of shape (n_components,)
        Largest absolute deviation from the mean along each direction.
    present_fraction : float, default=1.0
        Fraction of the values that are not missing.
    min_noise : float, default=0.6
        Smallest noise variance by which missing values are imputed, relative to the mean variance of the features, per
        fraction of missing values.
    feature_scale : float or ndarray of shape (n_features,), default=1.0
        What each feature was divided by before. All other attributes are those of the divided features.
    """

    mean: NDArray
    feature_std: NDArray
    components: NDArray
    explained_variance: NDArray
    feature_max_abs: NDArray
    code_max_abs: NDArray
    present_fraction: float = 1.0
    min_noise: float = 0.6
    feature_scale: NDArray | float = 1.0

    def padded(self, n_components: int) -> "PrincipalComponents":
        """Return a copy with directions of zeros and without variance appended, up to ``n_components`` directions."""
        missing = max(n_components - len(self.components), 0)
        return self._with_directions(lambda values: np.pad(values, [(0, missing), (0, 0)][: values.ndim]))

    def truncated(self, n_components: int) -> "PrincipalComponents":
        """Return a copy with the first directions only."""
        return self._with_directions(lambda values: values[:n_components])

    def _with_directions(self, change: Callable[[NDArray], Any]) -> "PrincipalComponents":
        """Return a copy in which the arrays that have one entry per direction are changed."""
        names = ("components", "explained_variance", "code_max_abs")
        return replace(self, **{name: change(getattr(self, name)) for name in names})

    @property
    def in_data_units(self) -> tuple[NDArray, NDArray, NDArray]:
        """Mean, scale and largest absolute deviation of the features before they were divided."""
        factor = self.feature_scale
        return self.mean * factor, np.asarray(self.scale * factor), self.feature_max_abs * factor

    @property
    def scale(self) -> float:
        """Root mean square of the standard deviations of the features; 1 if all features are constant."""
        largest = float(self.feature_std.max())  # squares of larger values may overflow
        return float(np.sqrt(np.mean(np.square(self.feature_std / largest)))) * largest if largest > 0 else 1.0

    def unexplained_variance_ratio(self, total: float) -> float:
        """Compute the fraction of the variance that the directions do not explain.

        Parameters
        ----------
        total : float
            Number of samples, or the sum of their weights.

        Returns
        -------
        float
            Fraction between 0 and 1; 0 if all features are constant.
        """
        whole = np.mean(np.square(self.feature_std / self.scale)) * len(self.mean)
        explained = np.sum(self.explained_variance / self.scale**2) * (total - 1) / total
        return float(max(1.0 - explained / whole, 0.0)) if whole > 0 else 0.0
