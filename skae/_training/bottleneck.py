"""Choose the number of codes by held-out samples."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from skae._data.sample import Sample
from skae._network.architecture import Architecture
from skae._network.scaling import ScaledAutoEncoder
from skae._training.fit import (
    NetworkInitializer,
    Search,
    held_out_parts,
    prepared,
    something_to_learn,
    squares,
)
from skae._training.net import TrainingConfig, of_every_training
from skae._training.progress import Progress
from skae._training.selection import ValidationSplit

# Number of networks that are trained before the last one. By two, the number of codes is that of an exhaustive search
# within one in 12 of 13 searches on digits, usps, letter and isolet, and within two in the other.
N_TRIED = 2
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
    _squares: dict[tuple[int, int], NDArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        callbacks = of_every_training(self.config.callbacks)
        self.config = replace(self.config, callbacks=callbacks, progress=Progress(), verbose=0)
        self.start, _ = prepared(self.start, self.config, self.validation)
        self.pca = self.start.principal_components(self.start.sample)
        self.parts, _ = held_out_parts(self.start, self.config, self.pca, self.validation)
        if not self.parts:
            raise ValueError(
                f"The number of components cannot be chosen: none of the {len(self.start.sample)} samples can be held "
                "out. Pass n_components as an int, or more samples."
            )

    @property
    def most(self) -> int:
        """Largest number of codes."""
        return min(*self.start.sample.shape, *(len(train) for train, _ in self.parts))

    def of_pca(self, n_components: int, parts: list[Part] | None = None) -> float:
        """Compute the score of PCA."""
        parts = self.parts if parts is None else parts
        return _score([self._squares_of_pca(index, part, n_components) for index, part in enumerate(parts)])

    def of_network(self, n_components: int) -> tuple[float, float]:
        """Train a network, and return its score and that of PCA with as many codes, on the same samples."""
        start = replace(self.start, architecture=self.architecture_of(n_components))
        pca = start.principal_components(start.sample)
        config = replace(self.config, unexplained_variance_ratio=start.unexplained_fraction(pca))
        parts, decide = held_out_parts(start, config, pca, self.validation)
        of_pca = self.of_pca(n_components, parts)
        if not (decide and something_to_learn(start, config, pca)):
            return of_pca, of_pca
        search = Search(start, config, pca, parts)
        search.run()
        return _score([squares(model, part[1]) for model, part in zip(search.networks(), parts, strict=True)]), of_pca

    def _squares_of_pca(self, index: int, part: Part, n_components: int) -> NDArray:
        """Sum the squared errors of PCA and the squared offsets over the held-out samples of a fold."""
        key = (index, n_components)
        if key not in self._squares:
            train, held_out = part
            width = min(max(LEAST_COMPONENTS, 1 << (n_components - 1).bit_length()), *train.shape)
            if (index, width) not in self._models:
                linear = replace(self.start, architecture=_linear(self.start.architecture, width))
                self._models[index, width] = linear.on(linear.components_at(train, width, self.pca))
            model = self._models[index, width]
            self._squares[key] = squares(model.truncated(n_components) if n_components < width else model, held_out)
        return self._squares[key]


def fewest_components(fraction: float, scores: HeldOutScores) -> int:
    """Return the smallest number of codes that explains a fraction of the variance of held-out samples.

    Training a network leaves a fraction of what PCA leaves unexplained. That fraction hardly depends on the number of
    codes. It is measured with as many codes as PCA needs, and with as many as are then estimated to be enough.
    """
    most = scores.most
    enough = _first(lambda n: scores.of_pca(n) >= fraction, most)
    n_components, limit = enough or most, enough or most
    ratios: dict[int, float] = {}

    def predicted(n: int) -> float:
        sizes = sorted(ratios)
        ratio = np.exp(np.interp(n, sizes, [np.log(ratios[size]) for size in sizes]))
        return 1.0 - ratio * (1.0 - scores.of_pca(n))

    while len(ratios) < N_TRIED and n_components not in ratios:
        of_network, of_pca = scores.of_network(n_components)
        left = max(1.0 - of_pca, np.finfo(float).tiny)
        ratios[n_components] = max((1.0 - of_network) / left, np.finfo(float).tiny)
        n_components = _first(lambda n: predicted(n) >= fraction, limit) or limit
    explained = predicted(n_components)
    if explained < fraction and enough is None:
        warnings.warn(
            f"n_components={fraction}: {n_components} codes explain only {explained:.3f} of the variance of held-out "
            "samples, and no more codes can be found in these samples. Pass more samples, or ask for a smaller "
            "fraction.",
            stacklevel=2,
        )
    return n_components


def justified_components(scores: HeldOutScores) -> int:
    """Return the largest number of codes of which each improves on those before it."""
    raise NotImplementedError


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
