"""Principal components by a singular value decomposition, a Gram matrix, or randomized or Lanczos iterations."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, svds
from sklearn import config_context
from sklearn.utils import gen_batches
from sklearn.utils.extmath import randomized_svd, svd_flip
from torch import Tensor

from skae._data.containers import SparseSamples, chunks_of, map_chunks
from skae._data.sample import Sample
from skae._pca.components import PrincipalComponents
from skae._utils import aligned_tensor, threads_for

# Number of values up to which X is decomposed to full precision. Above, the smaller Gram matrix, of the samples or of
# the features, is summed over chunks of CHUNK_VALUES values, which needs no copy of X and at most two passes. No
# measurement of the values of these constants is recorded.
EXACT_SIZE = 2_000_000
CHUNK_VALUES = 4_000_000
# Number of values per chunk of simpler passes, which fits in the cache.
PASS_VALUES = 300_000
# Number of features per block of the Gram matrix. Large blocks have less overhead, and with small ones fewer entries
# are computed twice.
GRAM_BLOCK = 128
# A decomposition is limited to a single thread up to this many times the work for which a batch is.
WORK_PER_BATCH = 50
# Largest distance of a sample from the mean, as a fraction of the largest number of the dtype, such that codes do not
# overflow. Chosen by reasoning.
LARGEST_CODE = 1e-3
# Lanczos iterations are used for sparse X if the smaller of n_samples and n_features is above
# ITERATED_SIDE + n_components and n_components is below the fraction ITERATED_RATIO of it.
ITERATED_SIDE = 2000
ITERATED_RATIO = 0.1
# Dense X without weights is decomposed by the randomized solver of scikit-learn if PCA(svd_solver="auto") chooses it:
# not for up to NARROW features of at least TALL times as many samples, nor if no side is above SMALL_SIDE, nor if
# n_components is at least the fraction RANDOMIZED_RATIO of the smaller side.
NARROW, TALL = 1000, 10
SMALL_SIDE = 500
RANDOMIZED_RATIO = 0.8
# The cross products of samples in several processes are summed for up to this many features, which takes 200 MB. For
# more, subspace iterations with some more directions than components: by five passes over the samples. No measurement
# of these values is recorded.
SUMMED_FEATURES = 5000
OVERSAMPLING = 16
SUBSPACE_ITERATIONS = 4


def feature_mean(sample: Sample) -> NDArray:
    """Compute the mean of each feature in float64."""
    mean, total = np.zeros(sample.shape[1]), sample.total
    with np.errstate(over="ignore", invalid="ignore"):
        for chunk in chunks_of(sample, PASS_VALUES):
            mean += sample.weighted_sum(sample[chunk], chunk) / total
    return sample.ranks.sum(mean)


def _feature_moments(sample: Sample) -> tuple[NDArray, NDArray, NDArray]:
    """Compute the mean, standard deviation and largest absolute deviation from the mean of each feature in float64.

    The latter two are zero for constant features.

    Raises
    ------
    ValueError
        If squares or codes can overflow.
    """
    total = sample.total
    drift, squares, reach = np.zeros((3, sample.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = feature_mean(sample)
        for chunk in chunks_of(sample, PASS_VALUES):
            centered = sample[chunk] - mean
            drift += sample.weighted_sum(centered, chunk)
            np.maximum(reach, np.abs(centered).max(axis=0), out=reach)
            squares += sample.weighted_sum(np.square(centered, out=centered), chunk)
        drift, squares, reach = sample.ranks.sum(drift), sample.ranks.sum(squares), sample.ranks.max(reach)
        mean += drift / total  # corrects rounding errors of the first pass
        variance = np.maximum(squares / total - np.square(drift / total), 0.0)
        scatter = variance.sum() * total
    limits = np.finfo(sample.dtype)
    if not np.isfinite(scatter) or np.linalg.norm(reach / limits.max) > LARGEST_CODE:
        worst = int(np.argmax(reach))
        raise ValueError(
            f"X is too large: squares of feature {worst}, which reaches {reach[worst]:.3g} from its mean, overflow "
            f"float64, or codes overflow {sample.dtype}. Rescale X, for example with StandardScaler."
        )
    # Features are constant if their variance is a rounding error, or too small to divide by.
    constant = (variance <= np.square(limits.eps * np.abs(mean))) | (np.sqrt(variance) < limits.tiny)
    return mean, np.where(constant, 0.0, np.sqrt(variance)), np.where(constant, 0.0, reach)


def squared_distances(sample: Sample, mean: NDArray) -> NDArray:
    """Compute the squared distance of each sample from the mean in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        return map_chunks(lambda samples: np.square(samples - mean).sum(axis=1), sample, PASS_VALUES)


def principal_components(sample: Sample, n_components: int) -> PrincipalComponents:
    """Compute the first principal components of samples.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        Finite samples. They are not modified.
    n_components : int
        Number of directions, at most ``min(n_samples, n_features)``.

    Returns
    -------
    PrincipalComponents
        The principal components in float64.

    Raises
    ------
    ValueError
        If squares or codes can overflow.
    """
    mean, scale, reach = _feature_moments(sample)
    n_samples, n_features = sample.full_shape
    largest = float(scale.max()) or 1.0  # squares of scaled values neither overflow nor underflow
    # The last bits depend on the number of threads, which can be limited in torch but not in NumPy.
    with threads_for(n_samples * n_features * min(n_samples, n_features) // WORK_PER_BATCH):
        if sample.spans_ranks:
            variances, directions = _over_ranks(sample, mean, largest, n_components)
        elif n_samples * n_features <= EXACT_SIZE:
            centered = aligned_tensor((np.asarray(sample[:], dtype=np.float64) - mean) / largest)
            _, singular, directions = torch.linalg.svd(times_root_weights(sample, centered), full_matrices=False)
            variances = singular.square()
        elif _suits_randomized(sample, n_components):
            variances, directions = _randomized(sample, mean, largest, n_components)
        elif is_iterated(sample, n_components):
            variances, directions = _iterated(sample, mean, largest, n_components)
        elif n_features <= n_samples:
            variances, directions = _from_features(sample, mean, largest)
        else:
            variances, directions = _from_samples(sample, mean, largest)
        components = flipped(directions[:n_components].numpy())
        code_max_abs = _code_max_abs(sample, mean, components)
    explained = variances[:n_components].numpy() / max(sample.total - 1, 1) * largest**2
    return PrincipalComponents(mean, scale, components, explained, reach, code_max_abs)


def flipped(directions: NDArray) -> NDArray:
    """Give directions the signs of those of `sklearn.decomposition.PCA`."""
    return np.ascontiguousarray(svd_flip(None, directions, u_based_decision=False)[1])


def is_iterated(sample: Sample, n_components: int) -> bool:
    """Return whether components are found by Lanczos iterations, whose cost grows with their number."""
    shorter = min(sample.shape)
    return isinstance(sample.X, SparseSamples) and min(shorter * ITERATED_RATIO, shorter - ITERATED_SIDE) > n_components


def times_root_weights(sample: Sample, values: Tensor, chunk: slice = slice(None)) -> Tensor:
    """Multiply samples in place by the square roots of their weights."""
    if sample.weights is not None:
        values.mul_(torch.from_numpy(np.sqrt(sample.weights[chunk]))[:, None])
    return values


def _code_max_abs(sample: Sample, mean: NDArray, components: NDArray) -> NDArray:
    """Compute the largest absolute deviation from the mean along each component."""
    center, directions = mean.astype(sample.dtype), aligned_tensor(components.astype(sample.dtype)).T
    reach = torch.zeros(len(components), dtype=torch.float64)
    for chunk in chunks_of(sample, PASS_VALUES):
        codes = aligned_tensor(sample[chunk] - center) @ directions
        reach = torch.maximum(reach, codes.abs().amax(dim=0))
    return sample.ranks.max(reach.numpy())


def _suits_randomized(sample: Sample, n_components: int) -> bool:
    """Return whether scikit-learn's PCA of X chooses the randomized solver, and X is dense and without weights."""
    n_samples, n_features = sample.shape
    by_features = n_features <= NARROW and n_samples >= TALL * n_features
    chosen = max(sample.shape) > SMALL_SIDE and n_components < RANDOMIZED_RATIO * min(sample.shape) and not by_features
    return chosen and isinstance(sample.X, np.ndarray) and sample.weights is None


def _randomized(sample: Sample, mean: NDArray, largest: float, n_components: int) -> tuple[Tensor, Tensor]:
    """Compute variances and directions by the randomized solver of scikit-learn, in the dtype of X."""
    centered = np.empty(sample.shape, dtype=sample.dtype)
    for chunk in chunks_of(sample, PASS_VALUES):
        centered[chunk] = (sample[chunk] - mean) / largest
    with config_context(array_api_dispatch=False):  # with which a slower normalization would be used
        _, singular, directions = randomized_svd(centered, n_components, random_state=0)
    return torch.from_numpy(singular).double().square(), torch.from_numpy(directions).double()


def _from_features(sample: Sample, mean: NDArray, largest: float) -> tuple[Tensor, Tensor]:
    """Compute variances and directions from the Gram matrix of shape (n_features, n_features)."""
    gram = torch.zeros((len(mean), len(mean)), dtype=torch.float64)
    center = mean.astype(sample.dtype)
    for chunk in chunks_of(sample, CHUNK_VALUES):
        samples = times_root_weights(sample, aligned_tensor(sample[chunk] - center).div_(largest), chunk)
        # Only the blocks of the lower triangle are computed and used.
        for start in range(0, len(gram), GRAM_BLOCK):
            gram[start:, start : start + GRAM_BLOCK] += samples[:, start:].T @ samples[:, start : start + GRAM_BLOCK]
    offset = aligned_tensor((mean - center) / largest)  # rounding error of the mean in float32
    gram -= sample.total * torch.outer(offset, offset)
    return descending_eigh(gram)


def _from_samples(sample: Sample, mean: NDArray, largest: float) -> tuple[Tensor, Tensor]:
    """Compute variances and directions from the Gram matrix of shape (n_samples, n_samples)."""
    n_samples, n_features = sample.shape
    gram = torch.zeros((n_samples, n_samples), dtype=torch.float64)
    chunks = list(gen_batches(n_features, max(CHUNK_VALUES // n_samples, 1)))
    samples = slice(None) if sample.indices is None else sample.indices

    def centered(features: slice) -> Tensor:
        values = np.asarray(sample.X[samples, features], dtype=np.float64)
        return times_root_weights(sample, aligned_tensor((values - mean[features]) / largest))

    for features in chunks:
        block = centered(features)
        gram += block @ block.T
    variances, vectors = descending_eigh(gram)
    directions = torch.cat([vectors @ centered(features) for features in chunks], dim=1)
    # Division by the singular values would amplify the rounding errors of directions without variance.
    orthonormal, triangle = torch.linalg.qr(directions.T)
    return variances, (orthonormal * torch.where(triangle.diagonal() < 0, -1.0, 1.0)).T


def _iterated(sample: Sample, mean: NDArray, largest: float, n_components: int) -> tuple[Tensor, Tensor]:
    """Compute variances and directions from products with a sparse matrix, which is centered implicitly."""
    matrix = cast(SparseSamples, sample.X).X
    matrix = (matrix if sample.indices is None else matrix[sample.indices]).astype(np.float64, copy=False)
    roots = 1.0 if sample.weights is None else np.sqrt(sample.weights)
    if not mean.any() and matrix.count_nonzero() == 0:
        return torch.zeros(n_components, dtype=torch.float64), torch.eye(n_components, len(mean), dtype=torch.float64)

    def project(direction: NDArray) -> NDArray:
        return roots * (matrix @ direction.ravel() - mean @ direction.ravel()) / largest

    def project_back(codes: NDArray) -> NDArray:
        weighted = roots * codes.ravel()
        return (matrix.T @ weighted - mean * weighted.sum()) / largest

    operator = LinearOperator(matrix.shape, matvec=project, rmatvec=project_back, dtype=np.float64)
    initial = np.random.RandomState(0).uniform(-1.0, 1.0, min(matrix.shape))
    _, singular, directions = svds(operator, n_components, v0=initial)
    order = np.argsort(-singular)
    return torch.from_numpy(singular[order]).square(), torch.from_numpy(directions[order])


def _over_ranks(sample: Sample, mean: NDArray, largest: float, n_components: int) -> tuple[Tensor, Tensor]:
    """Compute variances and directions of the samples of several processes, in double precision.

    Up to `SUMMED_FEATURES` features, their cross products are summed. The variances of more features are found by
    subspace iterations [1]_, which need the product of the cross products with a few directions only.

    References
    ----------
    .. [1] N. Halko, P. G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53 (2011) 217-288.
       :doi:`10.1137/090771806`
    """
    n_features = len(mean)

    def products(directions: Tensor | None) -> Tensor:
        """Sum the cross products of the features with all features or with some directions."""
        width = n_features if directions is None else directions.shape[1]
        total = torch.zeros((n_features, width), dtype=torch.float64)
        for chunk in chunks_of(sample, CHUNK_VALUES):
            centered = aligned_tensor((sample[chunk].astype(np.float64) - mean) / largest)
            values = times_root_weights(sample, centered, chunk)
            total += values.T @ (values if directions is None else values @ directions)
        return torch.from_numpy(sample.ranks.sum(total.numpy()))

    if n_features <= SUMMED_FEATURES:
        variances, directions = descending_eigh(products(None))
    else:
        width = min(n_components + OVERSAMPLING, n_features)
        basis = torch.from_numpy(np.random.RandomState(0).normal(size=(n_features, width)))
        for _ in range(SUBSPACE_ITERATIONS):
            basis = torch.from_numpy(sample.ranks.first(torch.linalg.qr(products(basis))[0].numpy()))
        variances, rotation = descending_eigh(basis.T @ products(basis))
        directions = rotation @ basis.T
    first = sample.ranks.first
    return torch.from_numpy(first(variances.numpy())), torch.from_numpy(first(directions[:n_components].numpy()))


def descending_eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues and, as rows, the eigenvectors of a Gram matrix, the largest eigenvalue first."""
    variances, vectors = torch.linalg.eigh(gram)
    return variances.flip(0).clamp_(min=0.0), vectors.flip(1).T
