"""Iterate over samples in batches, and apply a network to whole arrays batch by batch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from skae._data.containers import WINDOW_BLOCKS, Samples, block_length, gather, is_large
from skae._data.sample import Sample
from skae._utils import aligned_tensor, as_tensor, torch_dtype

# Values that one pass outside training may hold at once, intermediate layers not counted.
EVALUATION_VALUES = 1_000_000
# Up to this many values the samples of a set are standardized once instead of batch by batch.
RESIDENT_VALUES = 2_000_000


@dataclass(frozen=True)
class Standardizer:
    """How samples become inputs of a network: centered, of unit overall scale, in its dtype, on its device."""

    mean: Tensor
    scale: Tensor
    dtype: torch.dtype

    def __call__(self, samples: Tensor) -> Tensor:
        """Standardize samples in place, in their own precision, then convert them."""
        return samples.to(self.mean.device).sub_(self.mean).div_(self.scale).to(self.dtype)


class SampleDataset(torch.utils.data.Dataset):
    """Some samples of X, each its own target, gathered and standardized only when a batch asks for them.

    Parameters
    ----------
    X : Sample or Samples of shape (n_samples, n_features)
        Left as it is if the network is on the processor; the samples of an array are standardized and moved once where it
        is not. Few samples are copied.
    y : None
        Ignored; skorch hands one over where it builds a set of its own.
    standardize : Standardizer, default=None
        Makes them inputs of the network; None leaves them as they are.
    fill : callable, default=None
        Fills in missing values of samples that have been standardized; None where none are missing.
    """

    def __init__(
        self,
        X: Sample | Samples,
        y: None = None,
        *,
        standardize: Standardizer | None = None,
        fill: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.fill = fill
        self.sample = sample = X if isinstance(X, Sample) else Sample(X)
        self._standardize = standardize
        self._resident = None
        small = len(sample) * sample.shape[1] <= RESIDENT_VALUES
        moved = standardize is not None and standardize.mean.device.type != "cpu" and isinstance(sample.X, np.ndarray)
        if standardize is not None and (small or moved):
            self._resident = standardize(aligned_tensor(sample[:]))

    @property
    def X(self) -> NDArray:
        """The samples as one array, for skorch's scoring callbacks."""
        return self.take_filled(np.arange(len(self))).cpu().numpy()

    y = X

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, index):
        sample = self.take(np.atleast_1d(index))
        return (sample[0], sample[0]) if np.ndim(index) == 0 else (sample, sample)

    def take(self, positions: NDArray) -> Tensor:
        """Gather the samples at these positions of the set."""
        if self._resident is not None:
            return self._resident.index_select(0, torch.from_numpy(positions).to(self._resident.device))
        sample = self.sample
        samples = torch.empty((len(positions), sample.shape[1]), dtype=torch_dtype(sample.dtype))
        gather(sample.X, positions if sample.indices is None else sample.indices[positions], samples.numpy())
        return samples if self._standardize is None else self._standardize(samples)

    def take_filled(self, positions: NDArray) -> Tensor:
        """Gather samples, their missing values filled in."""
        samples = self.take(positions)
        return samples if self.fill is None else self.fill(samples)


class SampleBatches:
    """Iterate over a `SampleDataset` in pairs of a batch and its target, which is the batch itself.

    Of missing values the batch has what they are filled in with, and the target NaN. Of weighted samples a shuffled pass
    has each as often as its weight says, in the long run where that is no whole number; other passes have each once.

    Parameters
    ----------
    dataset : SampleDataset
        The samples.
    batch_size : int
        Samples a batch. A last batch of a single sample joins the one before, because layers that
        normalize over the batch cannot take it.
    generator : torch.Generator or None
        Shuffles anew at each pass; None keeps the order.
    augment : callable, default=None
        Makes other samples of those of a batch.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        batch_size: int,
        generator: torch.Generator | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.generator = generator
        self.augment = augment

    def __len__(self) -> int:
        return len(self._starts())

    def _starts(self) -> list[int]:
        starts = list(range(0, len(self.dataset), self.batch_size))
        if len(starts) > 1 and len(self.dataset) - starts[-1] == 1:
            starts.pop()
        return starts

    def _drawn(self, generator: torch.Generator) -> NDArray:
        """Positions in the order of a shuffled pass."""
        n_samples, weights = len(self.dataset), self.dataset.sample.weights
        order = self._shuffled(generator)
        if weights is None:
            return order
        # Systematic sampling; a line search must meet the same samples again.
        full = self.batch_size >= n_samples
        offset = 0.5 if full else float(torch.rand((), generator=generator, dtype=torch.float64))
        ends = np.cumsum(weights[order])
        ticks = (np.arange(n_samples) + offset) * (ends[-1] / n_samples)
        return order[np.searchsorted(ends, ticks, side="right").clip(max=n_samples - 1)]

    def _shuffled(self, generator: torch.Generator) -> NDArray:
        """All positions, in any order; of many values in windows of blocks, so that few are read at a time."""
        sample = self.dataset.sample
        if not is_large(sample.X):
            return torch.randperm(len(sample), generator=generator).numpy()
        # Samples of large data stay in their order until here.
        n_blocks = math.ceil(len(sample.X) / block_length(sample.shape[1]))
        firsts = sample.first_at(np.arange(n_blocks + 1) * block_length(sample.shape[1]))
        order, n_filled = np.empty(len(sample), dtype=np.int64), 0
        for window in torch.randperm(n_blocks, generator=generator).split(WINDOW_BLOCKS):
            positions = np.concatenate([np.arange(firsts[block], firsts[block + 1]) for block in window.tolist()])
            shuffled = torch.randperm(len(positions), generator=generator).numpy()
            order[n_filled : n_filled + len(positions)] = positions[shuffled]
            n_filled += len(positions)
        return order

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        n_samples = len(self.dataset)
        order = np.arange(n_samples) if self.generator is None else self._drawn(self.generator)
        starts = self._starts()
        for start, stop in zip(starts, [*starts[1:], n_samples], strict=True):
            samples = self.dataset.take(order[start:stop])
            batch = samples if self.dataset.fill is None else self.dataset.fill(samples)
            if self.augment is not None:
                batch = self.augment(batch)
            yield batch, batch if self.dataset.fill is None else batch.masked_fill(samples.isnan(), torch.nan)


class PerSampleBuffer:
    """One number for each sample of a set, written a batch at a time into memory set aside before.

    Small tensors kept one by one would lie scattered where the large ones of each batch have been, and hold on to that
    memory.

    Parameters
    ----------
    n_samples : int
        Samples of the set.

    Attributes
    ----------
    n_written : int
        Samples whose number has been written.
    """

    def __init__(self, n_samples: int) -> None:
        self.array = np.empty(n_samples)
        self.n_written = 0

    def append(self, values: Tensor) -> None:
        """Write the numbers of the next samples."""
        stop = self.n_written + len(values)
        self.array[self.n_written : stop] = values.cpu().numpy()
        self.n_written = stop


@torch.inference_mode()
def apply_in_batches(
    function: Callable[[Tensor], Tensor], X: Any, n_features: int, asarray_like: Tensor, dtype: DTypeLike
) -> Any:
    """Send all samples of X through a network, a bounded number at a time.

    Parameters
    ----------
    function : callable
        Maps a tensor of shape (n, X.shape[1]) to one of shape (n, n_features). It may be handed a view of X, so it
        changes nothing in place and multiplies no matrix before it has computed samples of its own.
    X : Samples or Tensor of shape (n_samples, n_features)
        The samples, float32 or float64.
    n_features : int
        Width of the result.
    like : Tensor
        Has the dtype and lies on the device that the network computes in.
    dtype : dtype of numpy
        Of the result.

    Returns
    -------
    ndarray or Tensor of shape (n_samples, n_features)
        What the function made of the samples, in their order; of a tensor on its device.
    """
    here = isinstance(X, Tensor)
    result = torch.empty((len(X), n_features), dtype=torch_dtype(np.dtype(dtype)), device=X.device if here else "cpu")
    samples = max(EVALUATION_VALUES // max(X.shape[1], n_features), 1)
    for start in range(0, len(X), samples):
        chunk = slice(start, start + samples)
        some = X[chunk].detach() if here else as_tensor(X[chunk])
        result[chunk] = function(some.to(asarray_like.device, asarray_like.dtype))
    return result if here else result.numpy()
