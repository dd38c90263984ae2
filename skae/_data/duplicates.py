"""Detection of identical samples and near copies, which must be on the same side of a validation split."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from skae._data.containers import BLOCK_VALUES, chunks_of, map_chunks
from skae._data.sample import Sample

# Samples are near copies if their distance is below this fraction of the median distance to the nearest distinct
# sample. With 0.1, copies with noise of 1 % of each feature's standard deviation are found in nine of eleven datasets,
# with 0.05 in seven. Fewer than 1 % of the other samples are grouped by mistake with either.
NEAR_COPY_RATIO = 0.1
# Number of samples for which the distance to the nearest distinct sample is computed, and largest number of copies of
# one sample that this distance takes into account. No measurement of these values is recorded.
N_QUERIES = 200
N_COPIES = 32
# Number of principal components of these samples in which candidates are searched: 12 took the least time for 60,000
# images.
N_DIMENSIONS = 12
# Mean number of candidates per sample above which near copies cannot be distinguished from other neighbors. No
# measurement of this value is recorded.
MAX_CANDIDATES = 100
# Number of values that are processed at a time, which limits the memory. No measurement of this value is recorded.
CHUNK_VALUES = 2_000_000
# Number of groups to which the samples of large data are assigned by their values.
N_BUCKETS = 2**16


def duplicate_groups(sample: Sample) -> NDArray | None:
    """Label samples such that identical samples and near copies have the same label.

    Near copies are samples whose distance is below a tenth of the median distance between a sample and its nearest
    distinct neighbor. The samples of large data, and those in several processes, are not compared with each other: they
    are assigned to one of 65,536 groups by a hash of their values, so that identical samples are in the same group.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        Samples without missing values, or with imputed values in their place.

    Returns
    -------
    ndarray of int of shape (n_samples,) or None
        Labels from 0, in the order of the first sample of each group; not in this order for large data or several
        processes. None if there are no copies, or if all samples are copies of each other.
    """
    hashes = content_hashes(sample)
    if sample.stays_in_order:
        return (hashes % N_BUCKETS).astype(np.uint16)
    distinct = sample.take(np.sort(np.unique(hashes, return_index=True)[1]))
    labels = labels_by_first(hashes)
    # An error for values whose squares overflow is raised elsewhere.
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        pairs = _near_copies(distinct)
    edges = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(distinct), len(distinct)))
    labels = connected_components(edges, directed=False)[1][labels]
    return None if labels.max() in (0, len(labels) - 1) else labels_by_first(labels)


def labels_by_first(groups: NDArray) -> NDArray:
    """Convert group labels to integers from 0, in the order in which the groups first appear."""
    _, first, labels = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def content_hashes(sample: Sample) -> NDArray:
    """Compute a 64-bit hash of the values of each sample.

    Integer arithmetic is exact, so the hash does not depend on the position or the container of a sample.
    """
    factors = np.random.RandomState(0).randint(2**62, size=(2, sample.shape[1]), dtype=np.uint64) * 2 + 1

    def sums(samples: NDArray) -> NDArray:
        # Equal values need equal bits: zero has two signs, and NaN has many bit patterns.
        values = samples.astype(np.float64) + 0.0
        bits = np.where(np.isnan(values), np.nan, values).view(np.uint64)
        mixed = (bits ^ (bits >> np.uint64(32))) * factors[0]
        return ((mixed ^ (mixed >> np.uint64(29))) * factors[1]).sum(axis=1, dtype=np.uint64)

    # Chunks that fit into the cache of a processor take a quarter of the time.
    hashes = map_chunks(sums, sample, BLOCK_VALUES)
    return hashes ^ (hashes >> np.uint64(31))


def content_draws(sample: Sample, seed: int) -> NDArray:
    """Draw a number between 0 and 1 for each sample, which depends only on its values and the seed."""
    factor = np.random.RandomState(seed).randint(2**62, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    mixed = content_hashes(sample) * factor
    return ((mixed ^ (mixed >> np.uint64(32))) * factor >> np.uint64(11)) / 2.0**53


def _near_copies(sample: Sample) -> NDArray:
    """Return the positions of pairs of near copies among distinct samples, of shape (n_pairs, 2)."""
    none = np.empty((0, 2), dtype=int)
    if len(sample) < 3:
        return none
    radius = NEAR_COPY_RATIO * _distinct_distance(sample)
    if not (np.isfinite(radius) and radius > 0):
        return none
    queries = sample.spread_out(N_QUERIES).astype(np.float64)
    # An orthogonal projection does not increase distances, so it loses no pairs.
    components = np.linalg.svd(queries - queries.mean(axis=0), full_matrices=False)[2][:N_DIMENSIONS]
    projected = Sample(map_chunks(lambda samples: samples.astype(np.float64) @ components.T, sample, CHUNK_VALUES))
    tree = KDTree(projected.X)
    if tree.query_ball_point(projected.spread_out(N_QUERIES), radius, return_length=True).mean() > MAX_CANDIDATES:
        return none
    pairs = tree.query_pairs(radius, output_type="ndarray")

    def distances(pairs: NDArray) -> NDArray:
        return np.linalg.norm(sample[pairs[:, 0]].astype(np.float64) - sample[pairs[:, 1]], axis=1)

    return pairs[map_chunks(distances, pairs, 2 * CHUNK_VALUES // sample.shape[1]) < radius]


def _distinct_distance(sample: Sample) -> float:
    """Estimate the median distance from a sample to the nearest sample that is not a near copy of it.

    If the sorted distances from a sample to its neighbors increase by a factor of at least ``1 / NEAR_COPY_RATIO`` from
    one neighbor to the next, the neighbors before the largest such increase are near copies.
    """
    queries = sample.spread_out(N_QUERIES).astype(np.float64)
    squares = np.square(queries).sum(axis=1)[:, None]
    n_neighbors = min(N_COPIES + 1, len(sample) - 1)
    nearest = np.full((len(queries), n_neighbors + 1), np.inf)
    for chunk in chunks_of(sample, CHUNK_VALUES):
        values = sample[chunk].astype(np.float64)
        distances = np.square(values).sum(axis=1) - 2 * (queries @ values.T) + squares
        nearest = np.sort(np.hstack([nearest, distances]), axis=1)[:, : n_neighbors + 1]
    # The nearest neighbor is the sample itself, at a distance that consists of rounding errors.
    rounding = 64 * np.finfo(np.float64).eps * squares
    distances = np.sqrt(np.maximum(nearest[:, 1:], rounding))
    ratios = distances[:, 1:] / np.maximum(distances[:, :-1], np.finfo(np.float64).tiny)
    # The distance before the first one stands for no such increase.
    ratios = np.hstack([np.zeros((len(ratios), 1)), np.where(ratios >= 1.0 / NEAR_COPY_RATIO, ratios, 0.0)])
    return float(np.median(np.take_along_axis(distances, ratios.argmax(axis=1)[:, None], axis=1)))
