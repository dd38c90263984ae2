"""Choose the number of codes by held-out samples."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsRegressor

from skae._data.sample import Sample, joined
from skae._network.architecture import Architecture
from skae._network.scaling import ScaledAutoEncoder
from skae._objectives.regularizers import Nested
from skae._training.fit import (
    NetworkInitializer,
    Search,
    held_out_parts,
    prepared,
    something_to_learn,
    squares,
)
from skae._training.net import TrainingConfig, of_every_training
from skae._training.ordering import LEAST_SAMPLES, SCORED_SAMPLES
from skae._training.progress import Progress
from skae._training.selection import EpochSelector, ValidationSplit
from skae._utils import as_tensor

# Number of networks that are trained before the last one. By two, the number of codes is that of an exhaustive search
# within one in 12 of 13 searches on digits, usps, letter and isolet, and within two in the other.
N_TRIED = 2
# Fraction of the variance that is left by rounding errors at most.
ROUNDING = 1e-9
# Fraction of the samples that keep only their first codes, where the number of codes that are justified is counted.
NESTED_FRACTION = 0.5
# Number of codes of the first network by which these are counted.
FIRST_WIDTH = 4
# Number of training samples with similar codes, and largest number of values of samples that are compared.
N_NEIGHBORS, COMPARED_VALUES = 8, 2**24
# Smallest number of principal components that are computed at once.
LEAST_COMPONENTS = 32

Part = tuple[Sample, Sample]


@dataclass
class HeldOutScores:
    """Fraction of the variance of held-out samples that PCA or a network explains, for any number of codes.

    Attributes
    ----------
    start : NetworkInitializer
        Training samples, and initialization of a network of any number of codes.
    config : TrainingConfig
        Parameters of the training.
    validation : ValidationSplit
        Validation split.
    architecture_of : callable
        Returns the architecture for a number of codes.
    """

    start: NetworkInitializer
    config: TrainingConfig
    validation: ValidationSplit
    architecture_of: Callable[[int], Architecture]
    parts: list[Part] = field(init=False)
    _models: dict[tuple[int, int], ScaledAutoEncoder] = field(default_factory=dict)
    _squares: dict[tuple[int, int, bool], NDArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        callbacks = of_every_training(self.config.callbacks)
        self.config = replace(self.config, callbacks=callbacks, progress=Progress(), verbose=0)
        self.start, _ = prepared(self.start, self.config, self.validation)
        self.pca = self.start.principal_components(self.start.sample)
        self.parts, _ = held_out_parts(self.start, self.config, self.pca, self.validation)
        if not self.parts:
            raise ValueError(
                f"The number of components cannot be chosen: none of the {self.start.sample.count} samples can be held "
                "out. Pass n_components as an int, or more samples."
            )

    @property
    def most(self) -> int:
        """Largest number of codes."""
        return min(*self.start.sample.full_shape, *(train.count for train, _ in self.parts))

    def of_pca(self, n_components: int, parts: list[Part] | None = None, held_out: bool = True) -> float:
        """Compute the score of PCA on the held-out samples, or else on its training samples."""
        parts = self.parts if parts is None else parts
        return _score([self._squares_of_pca(index, part, n_components, held_out) for index, part in enumerate(parts)])

    def of_network(self, n_components: int) -> tuple[float, float]:
        """Train a network, and return its score and that of PCA with as many codes, on the same samples."""
        models, parts = self.networks(n_components)
        of_network = _score([squares(model, part[1]) for model, part in zip(models, parts, strict=True)])
        return of_network, self.of_pca(n_components, parts)

    def networks(self, n_components: int, nested: Nested | None = None) -> tuple[list[ScaledAutoEncoder], list[Part]]:
        """Train a network for each fold, and return these and the folds."""
        start = replace(self.start, architecture=self.architecture_of(n_components))
        pca = start.principal_components(start.sample)
        config = replace(self.config, unexplained_variance_ratio=start.unexplained_fraction(pca))
        config = config if nested is None else replace(config, nested=nested)
        parts, decide = held_out_parts(start, config, pca, self.validation)
        if not (decide and something_to_learn(start, config, pca)):
            models = [start.on(start.components_at(train, n_components, pca)) for train, _ in parts]
            return models, parts
        search = Search(start, config, pca, parts)
        search.run()
        return search.networks(), parts

    def _squares_of_pca(self, index: int, part: Part, n_components: int, held_out: bool) -> NDArray:
        """Sum the squared errors of PCA and the squared offsets over the samples of a fold."""
        key = (index, n_components, held_out)
        if key not in self._squares:
            train, _ = part
            width = min(max(LEAST_COMPONENTS, 1 << (n_components - 1).bit_length()), *train.full_shape)
            if (index, width) not in self._models:
                linear = replace(self.start, architecture=_linear(self.start.architecture, width))
                self._models[index, width] = linear.on(linear.components_at(train, width, self.pca))
            model = self._models[index, width]
            self._squares[key] = squares(model.truncated(n_components), part[int(held_out)])
        return self._squares[key]


def fewest_components(fraction: float, scores: HeldOutScores) -> int:
    """Return the smallest number of codes that explains a fraction of the variance of held-out samples.

    Training a network leaves a fraction of what PCA leaves unexplained. That fraction hardly depends on the number of
    codes. It is measured with as many codes as PCA needs, if need be on training samples, and with as many as are then
    estimated to be enough.
    """
    most = scores.most
    of_pca = _first(lambda n: scores.of_pca(n) >= fraction, most)
    of_pca = of_pca or _first(lambda n: scores.of_pca(n, held_out=False) >= fraction, most) or most
    n_components = of_pca
    ratios: dict[int, float] = {}

    def predicted(n: int) -> float:
        sizes = sorted(ratios)
        ratio = np.exp(np.interp(n, sizes, [np.log(ratios[size]) for size in sizes]))
        return 1.0 - ratio * (1.0 - scores.of_pca(n))

    while len(ratios) < N_TRIED and n_components not in ratios:
        explained, by_pca = scores.of_network(n_components)
        ratios[n_components] = (max(1.0 - explained, 0.0) + ROUNDING) / (max(1.0 - by_pca, 0.0) + ROUNDING)
        n_components = _first(lambda n: predicted(n) >= fraction, most) or of_pca
    explained = predicted(n_components)
    if explained < fraction:
        warnings.warn(
            f"n_components={fraction}: {n_components} codes explain only {explained:.3f} of the variance of held-out "
            "samples, and more codes are not known to explain more. Pass more samples, or ask for a smaller fraction.",
            stacklevel=2,
        )
    return n_components


def justified_components(scores: HeldOutScores) -> int:
    """Return the largest number of codes of which each improves the reconstructions of held-out samples.

    A further code has to improve them by more than two standard errors, more than a direction of isotropic noise would,
    and more than predicting the error from that of training samples with similar codes: an error that depends on the
    codes there are does not need another one.
    """
    limit = max(min(scores.most, scores.start.sample.shape[1] - 1), 1)
    width, n_justified = min(FIRST_WIDTH, limit), 1
    while True:
        n_justified = _n_justified(*scores.networks(width, Nested(NESTED_FRACTION)), n_justified)
        if n_justified < width or width == limit:
            return n_justified
        width = min(2 * width, limit)


def _n_justified(models: list[ScaledAutoEncoder], parts: list[Part], size: int) -> int:
    """Return the number of codes of networks, at least ``size``, that are justified by the held-out samples."""
    n_features = models[0].architecture.n_features
    n_samples = int(np.clip(COMPARED_VALUES // n_features, LEAST_SAMPLES, SCORED_SAMPLES))
    ranks = parts[0][0].ranks
    parts = [(train.few(n_samples), held_out.few(n_samples)) for train, held_out in parts]
    held_out = joined([part[1] for part in parts])

    def errors_of(size: int) -> tuple[NDArray, NDArray]:
        errors = [_errors(model.truncated(size), *part) for model, part in zip(models, parts, strict=True)]
        return np.concatenate([error for error, _ in errors]), np.concatenate([left for _, left in errors])

    errors, left = errors_of(size)
    while size < models[0].architecture.n_components:
        following, following_left = errors_of(size + 1)
        by_noise = errors * (1.0 - 1.0 / (n_features - size))
        selector = EpochSelector(by_noise, True, held_out)
        if not selector.update(following, 1) or held_out.mean(following) > held_out.mean(left):
            break
        size, errors, left = size + 1, following, following_left
    return int(ranks.first(size))


@torch.no_grad()
def _errors(model: ScaledAutoEncoder, train: Sample, held_out: Sample) -> tuple[NDArray, NDArray]:
    """Compute squared errors of held-out samples, as they are and after subtracting the mean error of neighbors.

    The neighbors are the training samples with the nearest codes. The variance of their mean is removed.
    """
    codes, errors = [], []
    for sample in (train, held_out):
        x = as_tensor(sample[:]).to(model.mean)
        z = model.project(x)
        codes.append(z.cpu().numpy())
        errors.append(torch.nan_to_num(x - model.decode(z)).double().cpu().numpy())
    n_neighbors = min(N_NEIGHBORS, len(train))
    of_neighbors = KNeighborsRegressor(n_neighbors).fit(codes[0], errors[0]).predict(codes[1])
    left = np.square(errors[1] - of_neighbors).sum(axis=1) * n_neighbors / (n_neighbors + 1)
    return np.square(errors[1]).sum(axis=1), left


def _first(holds: Callable[[int], bool], most: int) -> int | None:
    """Return the smallest number from one to ``most`` for which a condition holds that holds for all larger ones."""
    last = 1
    while last < most and not holds(last):
        last = min(2 * last, most)
    if not holds(last):
        return None
    first = last // 2 + 1 if last < most else 1
    while first < last:
        middle = (first + last) // 2
        first, last = (first, middle) if holds(middle) else (middle + 1, last)
    return first


def _linear(architecture: Architecture, n_components: int) -> Architecture:
    """Return the architecture of PCA for the same samples."""
    return Architecture(
        architecture.n_features, n_components, (), (), "identity", True, kind="pca", fills=architecture.fills
    )


def _score(squares_of_parts: list[NDArray]) -> float:
    """Return the fraction of the variance that is explained, from the sums of squares of each fold."""
    errors, offsets = np.sum(squares_of_parts, axis=0)
    return float(1.0 - errors / offsets) if offsets > 0 else 1.0
