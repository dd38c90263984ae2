"""Find identical samples and near copies, which belong on one side of a validation split."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from skae._data.containers import chunks_of, is_large
from skae._data.sample import Sample

# Samples nearer to each other than this part of the median distance to the nearest distinct sample are near copies.
# With a tenth, copies with noise of 1 % of each feature's standard deviation are found on nine of eleven sets of
# data, with a twentieth on seven; ordinary samples that are grouped by mistake are below 1 % with either.
NEAR_COPY_RATIO = 0.1
# Samples at which the distance to the nearest distinct sample is measured, and neighbors that may be copies of one.
N_QUERIES = 200
N_COPIES = 32
# Principal components of these samples in which candidates are looked for: 12 took the least time on 60,000 images.
N_DIMENSIONS = 12
# Candidates per sample above which near copies cannot be told from ordinary neighbors.
MAX_CANDIDATES = 100
CHUNK_VALUES = 2_000_000
# Groups to which the samples of large data are assigned by their contents.
N_BUCKETS = 2**16


def duplicate_groups(sample: Sample) -> NDArray | None:
    """Label samples such that identical samples and near copies fraction a label.

    Near copies are samples whose distance is below a tenth of the median distance between a sample and its nearest
    distinct neighbor. Large data are not compared with each other: there, samples are assigned to one of 65,536 groups
    by their contents, which puts identical samples together.

    Parameters
    ----------
    sample : Sample of shape (n_samples, n_features)
        Without missing values, or with these filled in.

    Returns
    -------
    ndarray of int of shape (n_samples,) or None
        Labels from zero, in the order of the first sample of each group; of large data in no order. None if no two
        samples are copies of each other, or all are.
    """
    hashes = content_hashes(sample)
    if is_large(sample.X):
        return (hashes % N_BUCKETS).astype(np.uint16)
    _, first, labels = np.unique(hashes, return_index=True, return_inverse=True)
    distinct = sample.take(np.sort(first))
    labels = np.argsort(np.argsort(first))[labels]  # in the order of the distinct samples
    with np.errstate(over="ignore", invalid="ignore"):  # values whose squares overflow are refused elsewhere
        pairs = _near_copies(distinct)
    if len(pairs) > 0:
        edges = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(distinct), len(distinct)))
        labels = connected_components(edges, directed=False)[1][labels]
    return None if labels.max() in (0, len(labels) - 1) else labels_by_first(labels)


def labels_by_first(groups: NDArray) -> NDArray:
    """Number groups from zero in the order in which they first appear."""
    _, first, labels = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels]


def content_hashes(sample: Sample) -> NDArray:
    """Hash the values of each sample to 64 bits, in integer arithmetic, which is exact wherever a sample lies."""
    factors = np.random.RandomState(0).randint(2**62, size=(2, sample.shape[1]), dtype=np.uint64) * 2 + 1
    hashes = np.empty(len(sample), dtype=np.uint64)
    for chunk in chunks_of(sample, CHUNK_VALUES):
        # Zero has two signs, and NaN many bit patterns.
        values = np.asarray(sample[chunk], dtype=np.float64) + 0.0
        bits = np.where(np.isnan(values), np.nan, values).view(np.uint64)
        mixed = (bits ^ (bits >> np.uint64(32))) * factors[0]
        hashes[chunk] = ((mixed ^ (mixed >> np.uint64(29))) * factors[1]).sum(axis=1, dtype=np.uint64)
    return hashes ^ (hashes >> np.uint64(31))


def content_draws(sample: Sample, seed: int) -> NDArray:
    """Draw a number between 0 and 1 for each sample, the same one for identical samples wherever they are."""
    factor = np.random.RandomState(seed).randint(2**62, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    mixed = content_hashes(sample) * factor
    return ((mixed ^ (mixed >> np.uint64(32))) * factor >> np.uint64(11)) / 2.0**53


def _near_copies(sample: Sample) -> NDArray:
    """Pairs of near copies among distinct samples, as positions of shape (n_pairs, 2)."""
    n_samples, n_features = sample.shape
    none = np.empty((0, 2), dtype=int)
    if n_samples < 3:
        return none
    radius = NEAR_COPY_RATIO * _distinct_distance(sample)
    if not (np.isfinite(radius) and radius > 0):
        return none
    queries = np.asarray(sample.spread_out(N_QUERIES), dtype=np.float64)
    # No distance is larger in an orthogonal projection than it is.
    components = np.linalg.svd(queries - queries.mean(axis=0), full_matrices=False)[2][:N_DIMENSIONS]
    projected = np.empty((n_samples, len(components)))
    for chunk in chunks_of(sample, CHUNK_VALUES):
        projected[chunk] = np.asarray(sample[chunk], dtype=np.float64) @ components.T
    tree = KDTree(projected)
    places = np.linspace(0, n_samples - 1, min(n_samples, N_QUERIES), dtype=int)
    if tree.query_ball_point(projected[places], radius, return_length=True).mean() > MAX_CANDIDATES:
        return none
    pairs = tree.query_pairs(radius, output_type="ndarray")
    near = np.empty(len(pairs), dtype=bool)
    step = max(CHUNK_VALUES // n_features, 1)
    for start in range(0, len(pairs), step):
        some = pairs[start : start + step]
        differences = np.asarray(sample[some[:, 0]], dtype=np.float64) - sample[some[:, 1]]
        near[start : start + step] = np.linalg.norm(differences, axis=1) < radius
    return pairs[near]


def _distinct_distance(sample: Sample) -> float:
    """Median distance from a sample to the nearest one that is no near copy of it, at some samples.

    Where the sorted distances from a sample to its neighbors jump by the reciprocal of `NEAR_COPY_RATIO`, the neighbors
    before the jump are copies.
    """
    queries = np.asarray(sample.spread_out(N_QUERIES), dtype=np.float64)
    squares = np.square(queries).sum(axis=1)[:, None]
    n_neighbors = min(N_COPIES + 1, len(sample) - 1)
    nearest = np.full((len(queries), n_neighbors + 1), np.inf)
    for chunk in chunks_of(sample, CHUNK_VALUES):
        values = np.asarray(sample[chunk], dtype=np.float64)
        distances = np.square(values).sum(axis=1) - 2 * (queries @ values.T) + squares
        nearest = np.sort(np.hstack([nearest, distances]), axis=1)[:, : n_neighbors + 1]
    # The nearest is the sample itself, at a distance of rounding errors.
    rounding = 64 * np.finfo(np.float64).eps * squares
    distances = np.sqrt(np.maximum(nearest[:, 1:], rounding))
    ratios = distances[:, 1:] / np.maximum(distances[:, :-1], np.finfo(np.float64).tiny)
    if ratios.shape[1] == 0:
        return float(np.median(distances[:, 0]))
    jump = np.argmax(ratios, axis=1)
    jumps = ratios[np.arange(len(ratios)), jump] >= 1.0 / NEAR_COPY_RATIO
    return float(np.median(distances[np.arange(len(ratios)), np.where(jumps, jump + 1, 0)]))
