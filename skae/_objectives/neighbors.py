"""Regularizer that keeps neighbors: a layout of the neighbor graph, which the encoder follows."""

import copy
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from skae._data.containers import Samples, SparseSamples, StoredSamples
from skae._objectives.regularizer import Context, Core, Regularizer
from skae._utils import check_parameter, seeded_generator

# Number of principal components of the samples in which Euclidean neighbors are searched, if there are more features
# than twice as many.
SEARCH_COMPONENTS = 50
# Similarity of two codes at a distance d in the layout: 1 / (1 + A d^(2 B)), the values that McInnes et al. fit to a
# minimum distance of 0.1.
A, B = 1.577, 0.895
# Number of passes over the edges, for up to and above MANY_SAMPLES samples, and number of random samples that each edge
# repels; those of McInnes et al.
N_PASSES, FEW_PASSES, MANY_SAMPLES = 500, 200, 10_000
N_NEGATIVES = 5
# Largest number of parts into which the edges of a pass are divided, during each of which the positions are the same,
# and number of edges in a part where there are fewer. On iris, wine and 64 to 500 digits, two parts keep as many of the
# five nearest neighbors as eight do (.959 to .990), in half of the time.
N_PARTS, PART_EDGES = 8, 1000
# Largest component of a force, and extent of the layout at the start; those of McInnes et al.
LARGEST_FORCE, EXTENT = 4.0, 10.0
# Distance of a code from its position, in standard deviations of the layout, up to which the penalty is about
# quadratic. Squares alone have a lower accuracy of the nearest neighbor (.828 to .838 on 10,000 digits).
NEAR = 0.2


class Neighbors(Regularizer):
    """Codes that keep the neighbors of samples, as UMAP does, together with reconstructions.

    It is the regularizer of ``regularizer="neighbors"``. The samples of `AutoEncoderTransformer.fit` are connected with
    their nearest neighbors. Positions of their codes are found that minimize the cross-entropy of this graph and that
    of the codes, by sampling edges and pairs of samples without one, as in UMAP. The encoder then learns these
    positions together with the decoder, so that new samples are transformed, and codes are transformed back. Codes are
    not ordered.

    Parameters
    ----------
    strength : float, default=1.0
        Weight of the distance of a code from its position. It is added to the loss of the reconstructions, which is one
        for the mean.
    n_neighbors : int, default=15
        Number of neighbors of each sample, at most all others. A few keep the structure of close samples, many that of
        the whole.
    metric : str or callable, default="euclidean"
        Metric of `sklearn.neighbors.NearestNeighbors`. "euclidean" stands for distances in the first 50 principal
        components if there are more than 100 features.

    See Also
    --------
    Supervised : Codes that separate given classes.

    References
    ----------
    .. [1] L. McInnes, J. Healy, J. Melville, "UMAP: uniform manifold approximation and projection for dimension
       reduction", 2018. :doi:`10.48550/arXiv.1802.03426`
    .. [2] T. Sainburg, L. McInnes, T. Gentner, "Parametric UMAP embeddings for representation and semisupervised
       learning", Neural Computation 33 (2021) 2881-2907. :doi:`10.1162/neco_a_01434`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, Neighbors
    >>> X = load_digits().data[:200]
    >>> AutoEncoderTransformer(2, regularizer=Neighbors(), max_epochs=2, random_state=0).fit_transform(X).shape
    (200, 2)
    """

    ordered = False
    # Position of the code of each sample, once it is bound.
    positions: Tensor

    def __init__(self, strength: float = 1.0, n_neighbors: int = 15, metric: Any = "euclidean") -> None:
        self.strength = strength
        self.n_neighbors = n_neighbors
        self.metric = metric

    def check(self) -> None:
        """Check that the strength is not negative, and that there are at least two neighbors."""
        super().check()
        check_parameter(self, "n_neighbors", self.n_neighbors >= 2, "must be at least 2")

    def bind(self, X: Samples, y: Any, n_components: int | None, seed: int) -> Self:
        """Return a copy that knows the positions of the codes of all samples.

        Raises
        ------
        ValueError
            If the number of codes is not given, or if samples are in a file.
        """
        if n_components is None:
            raise ValueError("Neighbors finds positions for a given number of codes. Pass an int as n_components.")
        if isinstance(X, StoredSamples):
            raise ValueError(
                f"Neighbors of {len(X)} samples in a file are not searched. Load them into memory, or choose another "
                "regularizer."
            )
        values: Any = X.X if isinstance(X, SparseSamples) else X[:].astype(np.float32)
        if isinstance(values, np.ndarray) and np.isnan(values).any():
            values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
        bound = copy.copy(self)
        start = _principal_codes(values, n_components)
        if self.metric == "euclidean" and values.shape[1] > 2 * SEARCH_COMPONENTS:
            values = _principal_codes(values, SEARCH_COMPONENTS)
        n_neighbors = min(self.n_neighbors, values.shape[0] - 1)
        search = NearestNeighbors(n_neighbors=n_neighbors, metric=self.metric).fit(values)
        graph = neighbor_graph(*search.kneighbors())
        positions = layout(graph, EXTENT * start / np.abs(start).max(), seed)
        positions -= positions.mean(axis=0)
        bound.positions = torch.from_numpy(positions / positions.std())
        return bound

    def penalty(self, x: Tensor, z: Tensor, network: Core, context: Context) -> Tensor | None:
        """Return the weighted distance of each code from its position."""
        if context.indices is None:
            return None
        squares = (z - self.positions[context.indices].to(z)).square().sum(dim=1)
        return self.strength * NEAR * torch.log1p(squares / NEAR**2)


def _principal_codes(values: Any, n_components: int) -> NDArray:
    """Return the codes of PCA, zeros where there are no more components."""
    n_found = min(n_components, *values.shape)
    codes = PCA(n_found, random_state=0).fit_transform(values)
    return np.pad(codes, ((0, 0), (0, n_components - n_found)))


def neighbor_graph(distances: NDArray, neighbors: NDArray) -> csr_array:
    """Return the probabilities that samples are connected.

    Parameters
    ----------
    distances : ndarray of shape (n_samples, n_neighbors)
        Distances to the nearest neighbors, increasing.
    neighbors : ndarray of int of shape (n_samples, n_neighbors)
        Indices of these.

    Returns
    -------
    csr_array of shape (n_samples, n_samples)
        Symmetric matrix.
    """
    n_samples, n_neighbors = distances.shape
    beyond = distances - distances[:, :1]
    lower, upper, scale = np.zeros(n_samples), np.full(n_samples, np.inf), np.maximum(beyond.mean(axis=1), 1e-12)
    for _ in range(64):  # bisection: the probabilities of a sample's edges sum to the binary logarithm of their number
        above = np.exp(-beyond / scale[:, np.newaxis]).sum(axis=1) > np.log2(n_neighbors)
        upper, lower = np.where(above, scale, upper), np.where(above, lower, scale)
        scale = np.where(np.isinf(upper), 2.0 * scale, 0.5 * (lower + upper))
    weights = np.exp(-beyond / np.maximum(scale, 1e-12)[:, np.newaxis])
    rows = np.repeat(np.arange(n_samples), n_neighbors)
    directed = coo_array((weights.ravel(), (rows, neighbors.ravel())), shape=(n_samples, n_samples)).tocsr()
    return (directed + directed.T - directed * directed.T).tocsr()


def layout(graph: csr_array, start: NDArray, seed: int) -> NDArray:
    """Minimize the cross-entropy of a graph and that of positions by stochastic gradient descent.

    Parameters
    ----------
    graph : csr_array of shape (n_samples, n_samples)
        Probabilities that samples are connected.
    start : ndarray of shape (n_samples, n_components)
        Positions at the start.
    seed : int
        Seed of the samples of edges.

    Returns
    -------
    ndarray of shape (n_samples, n_components)
        The positions.
    """
    n_samples, edges, generator = len(start), graph.tocoo(), seeded_generator(seed)
    n_passes = N_PASSES if n_samples <= MANY_SAMPLES else FEW_PASSES
    n_parts = min(max(edges.nnz // PART_EDGES, 2), N_PARTS)
    positions, weights = torch.tensor(start, dtype=torch.float32), torch.tensor(edges.data / edges.data.max())
    heads, tails = (torch.from_numpy(ends.astype(np.int64)) for ends in edges.coords)
    for number in range(n_passes):
        rate = 1.0 - number / n_passes
        drawn = (torch.rand(len(weights), generator=generator) < weights).nonzero()[:, 0]
        for part in drawn[torch.randperm(len(drawn), generator=generator)].chunk(n_parts):
            head, tail = heads[part], tails[part]
            away = positions[head] - positions[tail]
            squares = away.square().sum(dim=1, keepdim=True).clamp(min=1e-6)
            powers = squares**B
            pull = (-2.0 * A * B * powers / squares / (1.0 + A * powers) * away).clamp(-LARGEST_FORCE, LARGEST_FORCE)
            repelled = head.repeat(N_NEGATIVES)
            others = torch.randint(n_samples, (len(repelled),), generator=generator)
            away = positions[repelled] - positions[others]
            squares = away.square().sum(dim=1, keepdim=True)
            push = 2.0 * B / ((1e-3 + squares) * (1.0 + A * squares**B)) * away
            positions.index_add_(0, head, pull, alpha=rate).index_add_(0, tail, pull, alpha=-rate)
            positions.index_add_(0, repelled, push.clamp(-LARGEST_FORCE, LARGEST_FORCE), alpha=rate)
    return positions.numpy()
