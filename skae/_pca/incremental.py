"""Principal components of samples that arrive in chunks and are not kept."""

import numpy as np
import torch
from numpy.typing import NDArray

from skae._pca.components import PrincipalComponents
from skae._pca.exact import WORK_PER_BATCH, flipped
from skae._utils import aligned_tensor, threads_for

# Number of directions that are kept between chunks: KEPT_PER_COMPONENT times the number of components, and at least
# LEAST_KEPT. With up to this many features the result is exact. No measurement of these values is recorded.
LEAST_KEPT = 64
KEPT_PER_COMPONENT = 4


class IncrementalPrincipalComponents:
    """Mean, standard deviations and principal components of all samples seen so far.

    Parameters
    ----------
    n_components : int
        Number of principal components.
    n_features : int
        Number of features.
    keeps_signs : bool, default=False
        Whether the signs of the components are those that were returned before.

    Attributes
    ----------
    rank : int
        Maximum number of directions that are kept.
    n_samples : float
        Number of samples seen so far, less those that were forgotten.
    total : float
        Sum of their weights.
    repetitions : bool
        Whether all weights so far are integers, which are numbers of repetitions.
    mean : ndarray of shape (n_features,)
        Weighted mean of each feature.
    squares : ndarray of shape (n_features,)
        Weighted sum of squared deviations from the mean of each feature.
    reach : ndarray of shape (n_features,)
        Upper bound of the absolute deviations from the mean of each feature.
    factor : ndarray of shape (n_kept, n_features)
        Matrix with orthogonal rows. ``factor.T @ factor`` is the weighted scatter matrix of the samples, up to the
        directions that were not kept.

    References
    ----------
    .. [1] D. A. Ross, J. Lim, R.-S. Lin, M.-H. Yang, "Incremental learning for robust visual tracking", International
       Journal of Computer Vision 77 (2008) 125-141. :doi:`10.1007/s11263-007-0075-7`
    """

    def __init__(self, n_components: int, n_features: int, keeps_signs: bool = False) -> None:
        self.n_components = n_components
        self.keeps_signs = keeps_signs
        self.rank = min(max(LEAST_KEPT, KEPT_PER_COMPONENT * n_components), n_features)
        self.n_samples = 0.0
        self.total = 0.0
        self.repetitions = True
        self.mean = np.zeros(n_features)
        self.squares = np.zeros(n_features)
        self.reach = np.zeros(n_features)
        self.factor = np.zeros((0, n_features))
        self.before = np.zeros((0, n_features))

    def forget(self, fraction: float) -> None:
        """Multiply the weights of all samples so far by a fraction."""
        self.total *= fraction
        self.n_samples *= fraction
        self.squares *= fraction
        self.factor *= np.sqrt(fraction)

    def check(self, samples: NDArray, weights: NDArray) -> None:
        """Check that the sum of squares does not overflow.

        Parameters
        ----------
        samples : ndarray of shape (n, n_features)
            Samples in float64, which may contain NaN.
        weights : ndarray of shape (n,)
            Their weights.

        Raises
        ------
        ValueError
            If the sum of squares of these samples and of those seen before can overflow.
        """
        largest = np.abs(np.nan_to_num(samples, nan=0.0)).max(initial=0.0)
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.square(largest) * samples.size * (self.total + weights.sum()))
        if not finite:
            raise ValueError(
                f"X is too large: the sum of squares of values up to {largest:.3g}, with weights up to "
                f"{weights.max():.3g}, overflows float64. Rescale X, for example with StandardScaler."
            )

    def merge(self, samples: NDArray, weights: NDArray) -> None:
        """Update the statistics with more samples, which have passed `check`.

        Parameters
        ----------
        samples : ndarray of shape (n, n_features)
            Samples in float64.
        weights : ndarray of shape (n,)
            Their weights.
        """
        added = float(weights.sum())
        total = self.total + added
        mean = weights @ samples / added
        shift = mean - self.mean
        centered = samples - mean
        shift_weight = self.total * added / total  # weight of the squared distance between the two means
        self.squares += weights @ np.square(centered) + shift_weight * np.square(shift)
        new_mean = self.mean + shift * (added / total)
        self.reach = np.maximum(self.reach + np.abs(new_mean - self.mean), np.abs(samples - new_mean).max(axis=0))
        stacked = [self.factor, centered * np.sqrt(weights)[:, None], np.sqrt(shift_weight) * shift[None]]
        self.factor = _compressed(np.vstack(stacked), self.rank)
        self.mean, self.total, self.n_samples = new_mean, total, self.n_samples + len(samples)
        self.repetitions &= bool(np.all(weights == np.rint(weights)))

    @property
    def count(self) -> float:
        """Number of samples. Integer weights are numbers of repetitions."""
        return self.total if self.repetitions else float(self.n_samples)

    def principal_components(self, samples: NDArray) -> PrincipalComponents:
        """Return the principal components of all samples seen so far.

        The signs are those of `sklearn.decomposition.PCA`, unless they are kept.

        Parameters
        ----------
        samples : ndarray of shape (n, n_features)
            Samples from which ``code_max_abs`` is computed.

        Returns
        -------
        PrincipalComponents
            The principal components.
        """
        variance = self.squares / self.total
        constant = variance <= np.square(np.finfo(np.float64).eps * np.abs(self.mean))
        singular = np.linalg.norm(self.factor, axis=1)[: self.n_components]
        components = self.factor[: len(singular)] / np.where(singular > 0, singular, 1.0)[:, None]
        components = flipped(components) if len(components) > 0 else components
        if self.keeps_signs:
            known = min(len(components), len(self.before))
            cosines = (components[:known] * self.before[:known]).sum(axis=1)
            components[:known] *= np.where(cosines < 0, -1.0, 1.0)[:, None]
            self.before = components
        codes = (samples - self.mean) @ components.T
        return PrincipalComponents(
            self.mean.copy(),
            np.where(constant, 0.0, np.sqrt(variance)),
            components,
            np.square(singular) / self.total * (self.count / max(self.count - 1.0, 1.0)),
            np.where(constant, 0.0, self.reach),
            np.abs(codes).max(axis=0),
        ).padded(self.n_components)


def _compressed(matrix: NDArray, rank: int) -> NDArray:
    """Return up to ``rank`` orthogonal rows, the largest first, that best approximate ``matrix.T @ matrix``."""
    with threads_for(matrix.size * min(matrix.shape) // WORK_PER_BATCH):
        _, singular, directions = torch.linalg.svd(aligned_tensor(matrix), full_matrices=False)
    return (singular[:rank, None] * directions[:rank]).numpy()
