"""Principal components by a singular value decomposition, a Gram matrix or Lanczos iterations."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, svds
from sklearn.utils import gen_batches
from sklearn.utils.extmath import svd_flip
from torch import Tensor

from skae._data.containers import SparseSamples
from skae._data.sample import Sample
from skae._pca.components import PrincipalComponents
from skae._utils import aligned_tensor, threads_for, torch_dtype

# Up to this many values X is decomposed itself, to full precision. Above, the Gram matrix of its
# smaller side is summed up over chunks, which costs neither a copy of X nor more than two passes.
EXACT_SIZE = 2_000_000
CHUNK_VALUES = 4_000_000
# Passes that only look at each value take fewer at a time, which stay in the cache.
PASS_VALUES = 300_000
# Features at a time of the Gram matrix: the larger the less overhead, the smaller the less is computed twice.
GRAM_BLOCK = 128
# A decomposition runs once, a batch thousands of times: it pays to start a second thread later.
WORK_PER_BATCH = 50
# Largest distance of a sample from the mean, in parts of the largest number: codes have room above it.
LARGEST_CODE = 1e-3
# The Gram matrix of a sparse X is made up to this many samples and features; Lanczos iterations take over where both
# are more, and find a small fraction of the directions at most.
ITERATED_SIDE = 2000
ITERATED_SHARE = 0.1


def _sample_chunks(n_samples: int, n_features: int, values: int = PASS_VALUES):
    return gen_batches(n_samples, max(values // max(n_features, 1), 1))


@dataclass(frozen=True)
class FeatureMoments:
    """Location, spread and reach of the features of some samples, in float64."""

    mean: NDArray
    scale: NDArray
    reach: NDArray
    effective_sample_size: float


def feature_mean(sample: Sample) -> NDArray:
    """Mean of each feature, in float64."""
    mean, total = np.zeros(sample.shape[1]), sample.total
    with np.errstate(over="ignore", invalid="ignore"):
        for chunk in _sample_chunks(*sample.shape):
            mean += sample.weighted_sum(sample[chunk], chunk) / total
    return mean


def feature_moments(sample: Sample) -> FeatureMoments:
    """Measure each feature in two passes, without copying X whole.

    Raises
    ------
    ValueError
        If the variance is too large for a floating-point number.
    """
    n_features, total = sample.shape[1], sample.total
    chunks = list(_sample_chunks(*sample.shape))
    drift, squares, reach = np.zeros((3, n_features))
    fourth = 0.0  # sum of the squares of the samples' squared distances
    in_groups = np.zeros(0 if sample.groups is None else int(sample.groups.max()) + 1)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = feature_mean(sample)
        for chunk in chunks:
            centered = sample[chunk] - mean
            drift += sample.weighted_sum(centered, chunk)
            np.maximum(reach, np.abs(centered).max(axis=0), out=reach)
            np.square(centered, out=centered)
            squares += sample.weighted_sum(centered, chunk)
            distances = centered.sum(axis=1)
            if sample.weights is not None:
                distances *= sample.weights[chunk]
            if sample.groups is None:
                fourth += float(np.square(distances).sum())
            else:
                in_groups += np.bincount(sample.groups[chunk], distances, len(in_groups))
        fourth += float(np.square(in_groups).sum())
        mean += drift / total  # the second pass sees what the first rounded away
        variance = np.maximum(squares / total - np.square(drift / total), 0.0)
        whole = variance.sum() * total
    numbers = np.finfo(sample.dtype)
    if not np.isfinite(whole) or np.linalg.norm(reach / numbers.max) > LARGEST_CODE:
        worst = int(np.argmax(reach))
        raise ValueError(
            f"X is too large: squares of feature {worst}, which reaches {reach[worst]:.3g} from its mean, overflow "
            f"float64, or codes overflow {sample.dtype}. Rescale X, for example with StandardScaler."
        )
    # What is left of a constant feature after rounding is no spread, nor is what cannot be divided by.
    constant = (variance <= np.square(numbers.eps * np.abs(mean))) | (np.sqrt(variance) < numbers.tiny)
    scale = np.where(constant, 0.0, np.sqrt(variance))
    effective_sample_size = whole / fourth * whole if np.isfinite(fourth) and fourth > 0 and whole > 0 else 1.0
    return FeatureMoments(mean, scale, np.where(constant, 0.0, reach), effective_sample_size)


def squared_distances(sample: Sample, mean: NDArray) -> NDArray:
    """Squared distance of each sample from the mean, in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([np.square(sample[chunk] - mean).sum(axis=1) for chunk in _sample_chunks(*sample.shape)])


def principal_components(sample: Sample, n_components: int) -> PrincipalComponents:
    """Find the leading principal directions of some samples.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        Finite floating-point data, left as it is.
    n_components : int
        Number of directions, at most ``min(n_samples, n_features)``.

    Returns
    -------
    PrincipalComponents
        In float64 whatever the dtype of X.

    Raises
    ------
    ValueError
        If the variance of a feature overflows.
    """
    moments = feature_moments(sample)
    mean, (n_samples, n_features) = moments.mean, sample.shape
    largest = float(moments.scale.max()) or 1.0  # unit scale: squares of tiny and huge values stay numbers
    shorter = min(n_samples, n_features)
    # Torch decomposes, not numpy, because its thread count can be held: the last bits depend on it.
    with threads_for(n_samples * n_features * shorter // WORK_PER_BATCH):
        if n_samples * n_features <= EXACT_SIZE:
            centered = aligned_tensor((np.asarray(sample[:], dtype=np.float64) - mean) / largest)
            _, singular, directions = torch.linalg.svd(_rooted(sample, centered), full_matrices=False)
            variances = singular.square()
        elif (
            isinstance(sample.X, SparseSamples)
            and min(shorter * ITERATED_SHARE, shorter - ITERATED_SIDE) > n_components
        ):
            variances, directions = _iterated(sample, mean, largest, n_components)
        elif n_features <= n_samples:
            variances, directions = _from_features(sample, mean, largest)
        else:
            variances, directions = _from_samples(sample, mean, largest)
        _, components = svd_flip(None, directions[:n_components].numpy(), u_based_decision=False)
        components = np.ascontiguousarray(components)
        code_max_abs = _code_max_abs(sample, mean, components)
    explained = variances[:n_components].numpy() / max(sample.total - 1, 1) * largest**2
    return PrincipalComponents(
        mean, moments.scale, components, explained, moments.reach, code_max_abs, moments.effective_sample_size
    )


def _rooted(sample: Sample, values: Tensor, chunk: slice = slice(None)) -> Tensor:
    """Multiply samples in place by the roots of their weights."""
    if sample.weights is not None:
        values.mul_(torch.from_numpy(np.sqrt(sample.weights[chunk]))[:, None])
    return values


def _code_max_abs(sample, mean, components):
    """Largest distance from the mean along each direction."""
    centre, directions = mean.astype(sample.dtype), aligned_tensor(components.astype(sample.dtype)).T
    reach = torch.zeros(len(components), dtype=torch.float64)
    for chunk in _sample_chunks(*sample.shape):
        codes = _centered_tensor(sample[chunk], centre) @ directions
        reach = torch.maximum(reach, codes.abs().amax(dim=0).double())
    return reach.numpy()


def _from_features(sample, mean, largest):
    """Variances and directions out of the n_features x n_features Gram matrix."""
    gram = torch.zeros((len(mean), len(mean)), dtype=torch.float64)
    centre = mean.astype(sample.dtype)
    for chunk in _sample_chunks(*sample.shape, CHUNK_VALUES):
        _add_lower_triangle(gram, _rooted(sample, _centered_tensor(sample[chunk], centre).div_(largest), chunk))
    offset = aligned_tensor((mean - centre) / largest)  # the mean itself rounds in float32
    gram -= sample.total * torch.outer(offset, offset)
    return _descending(gram)


def _centered_tensor(X, centre):
    """Subtract the center, into memory allocated by torch."""
    samples = torch.empty(X.shape, dtype=torch_dtype(X.dtype))
    np.subtract(X, centre, out=samples.numpy())
    return samples


def _add_lower_triangle(gram, samples):
    """Add the samples' products of features, of which the decomposition reads one triangle: little more than half."""
    for start in range(0, len(gram), GRAM_BLOCK):
        gram[start:, start : start + GRAM_BLOCK] += samples[:, start:].T @ samples[:, start : start + GRAM_BLOCK]


def _from_samples(sample, mean, largest):
    """Variances and directions out of the n_samples x n_samples Gram matrix, for more features than samples."""
    n_samples, n_features = sample.shape
    gram = torch.zeros((n_samples, n_samples), dtype=torch.float64)
    feature_chunks = list(_sample_chunks(n_features, n_samples, CHUNK_VALUES))
    samples = slice(None) if sample.indices is None else sample.indices

    def centered(features):
        values = np.asarray(sample.X[samples, features], dtype=np.float64)
        return _rooted(sample, aligned_tensor((values - mean[features]) / largest))

    for features in feature_chunks:
        block = centered(features)
        gram += block @ block.T
    variances, vectors = _descending(gram)
    directions = torch.cat([vectors @ centered(features) for features in feature_chunks], dim=1)
    # Dividing by the singular values would blow up rounding errors of the directions of no variance.
    orthonormal, triangle = torch.linalg.qr(directions.T)
    return variances, (orthonormal * torch.where(triangle.diagonal() < 0, -1.0, 1.0)).T


def _iterated(sample, mean, largest, n_components):
    """Variances and directions out of products with a sparse matrix, which is centered in thought only."""
    matrix = sample.X.matrix if sample.indices is None else sample.X.matrix[sample.indices]
    matrix = matrix.astype(np.float64, copy=False)
    roots = 1.0 if sample.weights is None else np.sqrt(sample.weights)
    n_samples, n_features = matrix.shape
    if not mean.any() and matrix.count_nonzero() == 0:
        return torch.zeros(n_components, dtype=torch.float64), torch.eye(n_components, n_features, dtype=torch.float64)

    def codes_of(direction):
        return roots * (matrix @ direction.ravel() - mean @ direction.ravel()) / largest

    def sums_over(codes):
        weighted = roots * codes.ravel()
        return (matrix.T @ weighted - mean * weighted.sum()) / largest

    operator = LinearOperator((n_samples, n_features), matvec=codes_of, rmatvec=sums_over, dtype=np.float64)
    start = np.random.RandomState(0).uniform(-1.0, 1.0, min(n_samples, n_features))
    _, singular, directions = svds(operator, n_components, v0=start)
    order = np.argsort(-singular)
    return torch.from_numpy(singular[order]).square(), torch.from_numpy(directions[order])


def _descending(gram):
    """Eigenvalues and, sample by sample, eigenvectors of a Gram matrix, the largest first."""
    variances, vectors = torch.linalg.eigh(gram)
    return variances.flip(0).clamp_(min=0.0), vectors.flip(1).T
