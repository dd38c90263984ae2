"""Principal components of samples that come in chunks and are not kept."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.extmath import svd_flip

from skae._data.sample import Sample
from skae._pca.components import PrincipalComponents
from skae._pca.exact import WORK_PER_BATCH
from skae._utils import aligned_tensor, threads_for

# Directions that are kept of what has been seen: at least so many, and so many a component that is wanted. With fewer
# features nothing is lost.
LEAST_KEPT = 64
KEPT_PER_COMPONENT = 4
# Samples that are merged at a time.
MERGED_VALUES = 1_000_000


class IncrementalPrincipalComponents:
    """Mean, spread and principal directions of all samples seen so far.

    Parameters
    ----------
    n_components : int
        Number of directions that will be asked for.
    n_features : int
        Number of features.

    References
    ----------
    .. [1] D. A. Ross, J. Lim, R.-S. Lin, M.-H. Yang, "Incremental learning for robust visual tracking", International
       Journal of Computer Vision 77 (2008) 125-141. :doi:`10.1007/s11263-007-0075-7`
    """

    def __init__(self, n_components: int, n_features: int) -> None:
        self.n_components = n_components
        self.rank = min(max(LEAST_KEPT, KEPT_PER_COMPONENT * n_components), n_features)
        self.n_samples = 0
        self.total = 0.0
        self.uneven = 0.0
        self.repetitions = True
        self.mean = np.zeros(n_features)
        self.squares = np.zeros(n_features)
        self.reach = np.zeros(n_features)
        # Its products of features are those of all samples less their mean, as far as the rank goes.
        self.factor = np.zeros((0, n_features))

    def merge(self, sample: Sample) -> None:
        """Take more samples in, each as often as its weight says.

        Raises
        ------
        ValueError
            If the variance becomes too large for a floating-point number.
        """
        step = max(MERGED_VALUES // len(self.mean), 1)
        for start in range(0, len(sample), step):
            chunk = slice(start, start + step)
            samples = np.asarray(sample[chunk], dtype=np.float64)
            self._merge(samples, np.ones(len(samples)) if sample.weights is None else sample.weights[chunk])

    def check(self, samples: NDArray, weights: NDArray) -> None:
        """Refuse values whose variance would be too large for a floating-point number.

        Raises
        ------
        ValueError
            If it would.
        """
        largest = np.abs(np.nan_to_num(samples, nan=0.0)).max(initial=0.0)
        with np.errstate(over="ignore"):
            finite = np.isfinite(np.square(largest) * samples.size * (self.total + weights.sum()))
        if not finite:
            raise ValueError(
                f"X is too large: squares of values up to {largest:.3g}, times weights up to "
                f"{weights.max():.3g}, overflow float64. Rescale X, for example with StandardScaler."
            )

    def _merge(self, samples: NDArray, weights: NDArray) -> None:
        self.check(samples, weights)
        more = float(weights.sum())
        total = self.total + more
        mean = weights @ samples / more
        shift = mean - self.mean
        centered = samples - mean
        moved = self.total * more / total  # of the squared distance between the two means
        self.squares += weights @ np.square(centered) + moved * np.square(shift)
        new_mean = self.mean + shift * (more / total)
        self.reach = np.maximum(self.reach + np.abs(new_mean - self.mean), np.abs(samples - new_mean).max(axis=0))
        stacked = [self.factor, centered * np.sqrt(weights)[:, None], np.sqrt(moved) * shift[None]]
        self.factor = _compressed(np.vstack(stacked), self.rank)
        self.mean, self.total, self.n_samples = new_mean, total, self.n_samples + len(samples)
        # In units of the total: squares of huge weights are no numbers.
        self.uneven = (self.uneven * ((total - more) / total) ** 2) + float(np.square(weights / total).sum())
        self.repetitions &= bool(np.all(weights == np.rint(weights)))

    @property
    def count(self) -> float:
        """Number of samples; whole weights are repetitions."""
        return self.total if self.repetitions else float(self.n_samples)

    def principal_components(self, some: NDArray) -> PrincipalComponents:
        """The leading directions, signs as in scikit-learn's PCA; how far codes reach is measured at some samples."""
        variance = self.squares / self.total
        constant = variance <= np.square(np.finfo(np.float64).eps * np.abs(self.mean))
        singular = np.linalg.norm(self.factor, axis=1)[: self.n_components]
        components = self.factor[: len(singular)] / np.where(singular > 0, singular, 1.0)[:, None]
        if len(components) > 0:
            _, components = svd_flip(None, components, u_based_decision=False)
        codes = (some - self.mean) @ components.T
        return PrincipalComponents(
            self.mean.copy(),
            np.where(constant, 0.0, np.sqrt(variance)),
            components,
            np.square(singular) / self.total * (self.count / max(self.count - 1.0, 1.0)),
            np.where(constant, 0.0, self.reach),
            np.abs(codes).max(axis=0),
            1.0 / self.uneven,
        ).padded(self.n_components)


def _compressed(samples: NDArray, rank: int) -> NDArray:
    """Orthogonal samples, the longest first, with the same products of features, up to a rank."""
    with threads_for(samples.size * min(samples.shape) // WORK_PER_BATCH):
        _, singular, directions = torch.linalg.svd(aligned_tensor(samples), full_matrices=False)
    return (singular[:rank, None] * directions[:rank]).numpy()
