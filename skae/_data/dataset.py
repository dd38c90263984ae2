"""Datasets and batches of samples, and the application of a network to whole arrays batch by batch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from skae._data.containers import WINDOW_BLOCKS, Samples, block_length, is_large
from skae._data.sample import Sample
from skae._utils import as_tensor, seeded_generator, torch_dtype

# Number of values per batch outside of training, which limits the memory. The values of intermediate layers are not
# counted. No measurement of this value is recorded.
EVALUATION_VALUES = 1_000_000
# Number of values up to which a dataset is standardized once and kept, instead of batch by batch. No measurement of
# this value is recorded.
RESIDENT_VALUES = 2_000_000
# Largest expected fraction of the present values of a held-out sample that are hidden, and of a training sample if the
# fraction of its values that are present is not larger: samples must remain similar to those that are transformed
# later. When half of the present values were hidden in data with 95 % missing values, the selected epochs imputed worse
# than the initial network, and so they did with 50 % missing values (gas_drift) when half were hidden.
LEAST_LIMIT = 0.2
# Function of a batch of samples that returns a batch of the same shape.
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Standardizer:
    """Conversion of samples to inputs of a network.

    Parameters
    ----------
    mean : Tensor of shape (n_features,)
        Mean of each feature, which is subtracted. It is on the device of the network.
    scale : Tensor
        Scale of all features, or of each, by which they are divided.
    dtype : torch.dtype
        Dtype of the network.
    """

    mean: Tensor
    scale: Tensor
    dtype: torch.dtype

    def __call__(self, samples: Tensor) -> Tensor:
        """Standardize samples in their own precision, and convert them to the dtype of the network."""
        return samples.to(self.mean.device, copy=True).sub_(self.mean).div_(self.scale).to(self.dtype)


class SampleDataset(torch.utils.data.Dataset):
    """Dataset of samples that are their own targets.

    Samples are gathered and standardized when a batch is requested.

    Parameters
    ----------
    X : Samples of shape (n_samples, n_features)
        The samples. A copy is standardized and kept if there are at most `RESIDENT_VALUES` values, or if X is an array
        and the network is not on the CPU.
    y : None
        Ignored. It exists because skorch passes it.
    standardize : Standardizer, default=None
        Converts samples to inputs of the network. None does not change them.
    fill : callable, default=None
        Imputes the missing values of standardized samples. None if there are no missing values.
    """

    def __init__(
        self, X: Samples, y: None = None, *, standardize: Standardizer | None = None, fill: Change | None = None
    ) -> None:
        self.fill = fill
        self.sample = sample = X if isinstance(X, Sample) else Sample(X)
        self.count = sample.count
        # Sum of the weights of each process, in proportion to which they draw samples.
        self.totals = None
        if sample.spans_ranks and sample.weights is not None:
            self.totals = sample.ranks.of_each(sample.weights.sum())
        self._standardize = standardize
        self._resident = None
        if standardize is not None:
            moved = standardize.mean.device.type != "cpu" and isinstance(sample.X, np.ndarray)
            if moved or np.prod(sample.shape) <= RESIDENT_VALUES:
                self._resident = standardize(as_tensor(sample[:]))

    @property
    def X(self) -> NDArray:
        """All samples as an array, for the scoring callbacks of skorch."""
        return self.take_filled(np.arange(len(self))).cpu().numpy()

    y = X

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        sample = self.take(np.atleast_1d(index))
        return (sample[0], sample[0]) if np.ndim(index) == 0 else (sample, sample)

    def take(self, positions: NDArray) -> Tensor:
        """Return the samples at the given positions of the dataset."""
        if self._resident is not None:
            return self._resident.index_select(0, torch.from_numpy(positions).to(self._resident.device))
        samples = as_tensor(self.sample[positions])
        return samples if self._standardize is None else self._standardize(samples)

    def few(self, n_samples: int) -> Tensor:
        """Return up to ``n_samples`` samples at evenly spaced positions, with missing values imputed."""
        ranks = self.sample.ranks
        values = self.take_filled(self.sample.evenly_spaced(n_samples))
        return values if ranks.size == 1 else torch.from_numpy(ranks.gather(values.cpu().numpy())).to(values.device)

    def take_filled(self, positions: NDArray) -> Tensor:
        """Return the samples at the given positions, with missing values imputed."""
        samples = self.take(positions)
        return samples if self.fill is None else self.fill(samples)


class Hiding:
    """Random selection of present values that are hidden from the encoder, to compare them with the imputed values.

    The values that are missing in another sample of the batch are hidden, or some of them. Without hidden values, the
    loss does not depend on the quality of the imputation, because the network can copy its input.

    Parameters
    ----------
    seed : int
        Seed of the selection.
    device : torch.device
        Device of the samples.
    for_training : bool, default=False
        Whether more values are hidden from samples of which most values are present.
    """

    def __init__(self, seed: int, device: torch.device, for_training: bool = False) -> None:
        self.seed = seed
        self.most = 1.0 if for_training else LEAST_LIMIT
        self.generator = seeded_generator(seed, device)

    def rewind(self) -> None:
        """Reset the generator, so that the next pass hides the same values as the first."""
        self.generator.manual_seed(self.seed)

    def hidden(self, missing: Tensor) -> Tensor:
        """Return a mask of the values to hide, of the shape of the batch."""
        others = missing[torch.randperm(len(missing), generator=self.generator, device=missing.device)]
        chosen = others & ~missing
        n_present = (~missing).sum(dim=1, keepdim=True)
        most = n_present * (n_present / missing.shape[1]).clamp(LEAST_LIMIT, self.most)
        hidden = chosen & (self._drawn(chosen) * chosen.sum(dim=1, keepdim=True) < most)
        # At least one value is left from which the others are imputed.
        return hidden & (hidden.sum(dim=1, keepdim=True) < n_present)

    def compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return samples with NaN for hidden values, and the target of their reconstructions.

        The target has the hidden values, which represent the missing ones, and a random part of the other values, with
        NaN elsewhere. The part decreases with the fraction of missing values: with few missing values the loss is that
        of the reconstruction, and from one half on it is only that of the imputation.
        """
        missing = x.isnan()
        hidden = self.hidden(missing)
        missing_fraction = float(missing.double().mean())
        fraction = (1.0 - 2.0 * missing_fraction) / max(1.0 - missing_fraction, 0.5)
        counted = hidden | (~missing & (self._drawn(missing) < fraction))
        return x.masked_fill(hidden, torch.nan), x.masked_fill(~counted, torch.nan)

    def _drawn(self, like: Tensor) -> Tensor:
        """Draw uniform numbers in the shape of a tensor."""
        return torch.rand(like.shape, generator=self.generator, device=like.device)


@dataclass(frozen=True)
class SampleBatches:
    """Iterable of the batches of a `SampleDataset`, as pairs of a batch and its target.

    The target is the batch itself. Missing values are imputed in the batch and NaN in the target. In a shuffled pass,
    the expected number of times that a sample is drawn is proportional to its weight. Otherwise, each sample is drawn
    once.

    Parameters
    ----------
    dataset : SampleDataset
        The samples.
    batch_size : int
        Number of samples per batch, about which the samples are divided evenly.
    generator : torch.Generator or None, default=None
        Generator that shuffles the samples at each pass. None does not shuffle.
    augment : callable, default=None
        Function that is applied to each batch and returns the augmented batch, which is its own target.
    hiding : Hiding or None, default=None
        Hides some values of each batch, which are then imputed in the batch but not in the target. Without shuffling,
        the same values are hidden at each pass, and the target lacks some of the other values.
    imputes : bool, default=True
        Whether missing values are imputed in the batch.
    announce : callable, default=None
        Function that is called before each batch with the samples and the positions of those in the batch.
    """

    dataset: SampleDataset
    batch_size: int
    generator: torch.Generator | None = None
    augment: Change | None = None
    hiding: Hiding | None = None
    imputes: bool = True
    announce: Callable[[Sample, NDArray], None] | None = None

    def __len__(self) -> int:
        return len(self._starts())

    def _starts(self) -> list[int]:
        """Return the position of the first sample of each batch; all batches have about the same size.

        A small last batch would have as much weight in a step as the others.
        """
        n_samples = self.n_drawn
        # All processes take the same number of steps, with a part of each batch in proportion to their samples.
        count = len(self.dataset) if self.generator is None else self.dataset.count
        # A batch of one sample has no variance, by which batch normalization divides.
        most = count if self.batch_size == 1 else count // 2
        n_batches = max(min(round(count / self.batch_size), most), min(count, 1))
        ranks = self.dataset.sample.ranks
        # Parts that are rounded down are rounded down in different steps of different processes.
        phase = 0 if self.generator is None else ranks.rank * n_batches // ranks.size
        return [(index * n_samples + phase) // n_batches for index in range(n_batches)]

    @property
    def n_drawn(self) -> int:
        """Number of samples that this process draws in a pass, in proportion to the sum of their weights."""
        if self.generator is None or self.dataset.totals is None:
            return len(self.dataset)
        ends = np.cumsum(self.dataset.totals)
        ends = np.rint(ends * (self.dataset.count / ends[-1])).astype(int)
        return int(np.diff(ends, prepend=0)[self.dataset.sample.ranks.rank])

    def _drawn(self, generator: torch.Generator) -> NDArray:
        """Draw the positions of a shuffled pass, with weighted samples drawn in proportion to their weights."""
        n_samples, weights = len(self.dataset), self.dataset.sample.weights
        order = self._shuffled(generator)
        if weights is None or n_samples == 0:
            return order
        n_drawn, count = self.n_drawn, self.dataset.count
        # Systematic sampling. With a single batch the offset is fixed, because a line search must evaluate the same
        # samples again.
        full = self.batch_size >= count
        offset = 0.5 if full else float(torch.rand((), generator=generator, dtype=torch.float64))
        ends = np.cumsum(weights[order])
        ticks = (np.arange(n_drawn) + offset) * (ends[-1] / max(n_drawn, 1))
        return order[np.searchsorted(ends, ticks, side="right").clip(max=n_samples - 1)]

    def _shuffled(self, generator: torch.Generator) -> NDArray:
        """Draw a random order of all positions; large data are shuffled within windows of blocks."""
        sample = self.dataset.sample
        if not is_large(sample.X):
            return torch.randperm(len(sample), generator=generator).numpy()
        # The indices of a sample of large data are sorted, so that the samples of a block are at consecutive positions.
        length = block_length(sample.shape[1])
        firsts = np.searchsorted(sample.numbers, np.arange(math.ceil(len(sample.X) / length) + 1) * length)
        order: list[NDArray] = []
        for window in torch.randperm(len(firsts) - 1, generator=generator).split(WINDOW_BLOCKS):
            positions = np.concatenate([np.arange(firsts[block], firsts[block + 1]) for block in window.tolist()])
            order.append(positions[torch.randperm(len(positions), generator=generator).numpy()])
        return np.concatenate(order)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = np.arange(len(self.dataset)) if self.generator is None else self._drawn(self.generator)
        starts = self._starts()
        if self.hiding is not None and self.generator is None:
            self.hiding.rewind()
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=False):
            positions = order[start:stop]
            if self.announce is not None:
                self.announce(self.dataset.sample, positions)
            yield self._batch(self.dataset.take(positions))

    def _batch(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Impute and augment samples, and return them with their target."""
        fill, hiding = self.dataset.fill, self.hiding
        if fill is None:
            batch = samples if self.augment is None else self.augment(samples)
            return batch, batch
        seen, target = samples, samples
        if hiding is not None and self.generator is None:
            seen, target = hiding.compared(samples)
        elif hiding is not None:
            seen = samples.masked_fill(hiding.hidden(samples.isnan()), torch.nan)
        if not self.imputes:
            return seen, target
        filled = fill(seen)
        batch = filled if self.augment is None else self.augment(filled)
        # The change of a value by the augmentation is added to the hidden values of the target, too.
        hidden = seen.isnan() & ~samples.isnan()
        return batch, (batch + torch.where(hidden, samples - filled, 0.0)).masked_fill(target.isnan(), torch.nan)


class PerSampleBuffer:
    """Preallocated array with one value per sample, filled batch by batch.

    A list of small tensors would fragment the memory between the large tensors of each batch and keep it from being
    reused.

    Parameters
    ----------
    n_samples : int
        Number of samples.

    Attributes
    ----------
    array : ndarray of shape (n_samples,)
        The values.
    n_written : int
        Number of values written so far.
    """

    def __init__(self, n_samples: int) -> None:
        self.array = np.empty(n_samples)
        self.n_written = 0

    def append(self, values: Tensor) -> None:
        """Write the values of the next samples."""
        stop = self.n_written + len(values)
        self.array[self.n_written : stop] = values.cpu().numpy()
        self.n_written = stop


@torch.inference_mode()
def apply_in_batches(
    function: Callable[[Tensor], Tensor], X: Any, n_features: int, like: Tensor, dtype: DTypeLike
) -> Any:
    """Apply a function to all samples of X, a limited number at a time.

    Parameters
    ----------
    function : callable
        Maps a tensor of shape (n, X.shape[1]) to a tensor of shape (n, n_features). The input may be a view of X, so
        the function must not modify it. Nor may the input be an operand of a matrix product: the alignment of its
        memory is not fixed, and the last bits of the product depend on it.
    X : Sample, Samples or Tensor of shape (n_samples, X.shape[1])
        The samples, float32 or float64.
    n_features : int
        Number of features of the result.
    like : Tensor
        Tensor whose dtype and device the input of the function gets.
    dtype : dtype-like
        NumPy dtype of the result.

    Returns
    -------
    ndarray or Tensor of shape (n_samples, n_features)
        The results in the order of the samples. If X is a tensor, a tensor on the device of X.
    """
    is_tensor = isinstance(X, Tensor)
    device = X.device if is_tensor else "cpu"
    result = torch.empty((len(X), n_features), dtype=torch_dtype(np.dtype(dtype)), device=device)
    chunk_size = max(EVALUATION_VALUES // max(X.shape[1], n_features), 1)
    for first in range(0, len(X), chunk_size):
        chunk = slice(first, first + chunk_size)
        samples = X[chunk].detach() if is_tensor else as_tensor(X[chunk])
        result[chunk] = function(samples.to(like.device, like.dtype))
    return result if is_tensor else result.numpy()
