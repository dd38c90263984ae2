"""Sums over the processes of a process group of torch, and errors that end all of them."""

import pickle
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from skae._data.ranks import Ranks

# Seconds in which the processes that notice a failure say so, before those that did not are named.
GRACE = 5.0


class GroupRanks(Ranks):
    """The processes of a process group.

    Before each exchange, the processes tell each other whether one of them has failed; within an epoch, the message
    with the gradient says so. A process that fails takes part in the exchange that the others are at, so that none
    waits in vain, and all raise its error.

    Parameters
    ----------
    group : ProcessGroup or None
        The process group, None for the default one.

    Attributes
    ----------
    n_steps : int
        Number of gradients that were summed.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.source = 0 if group is None else dist.get_global_rank(group, 0)
        on_gpu = dist.get_backend(group) == "nccl"
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        self.n_steps, self.where = 0, "start"
        self.expected: tuple[int, int, torch.dtype] | None = None  # number, length and dtype of gradients to come
        self.message: Tensor | None = None  # kept, because to get so much memory in each step takes time
        self.ended, self.key = False, ""

    @contextmanager
    def together(self) -> Iterator[None]:
        """End all processes with the error that one of them raises in this block."""
        try:
            self.key = f"skae/{self.first(int(np.random.SeedSequence().generate_state(1)[0]))}"
            yield
        except Exception as error:
            if not self.ended:
                self._share(error)
            raise
        except BaseException as interrupt:
            self._post(f"was ended by {type(interrupt).__name__}")
            raise

    def stage(self, name: str) -> None:
        self.where = name

    def sum(self, values: Any) -> Any:
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Any) -> Any:
        return self._reduced(values, dist.ReduceOp.MAX)

    def gather(self, values: NDArray) -> NDArray:
        ends = np.cumsum(self.of_each(len(values)))
        dtype = np.int64 if values.dtype.kind in "iu" else values.dtype
        everything = np.zeros((ends[-1], *values.shape[1:]), dtype=dtype)
        everything[ends[self.rank] - len(values) : ends[self.rank]] = values
        return self._exchanged(torch.from_numpy(everything), dist.ReduceOp.SUM).numpy()

    def gather_objects(self, value: Any) -> list:
        """Return small objects of all processes."""
        self._check_in("objects")
        values: list = [None] * self.size
        self._guarded(dist.all_gather_object, values, value)
        return values

    def first(self, values: Any) -> Any:
        array = np.array(values)
        self._check_in("first", array.shape, array.dtype.name)
        tensor = torch.from_numpy(array.astype(np.uint8) if array.dtype == bool else array).to(self.device)
        self._guarded(dist.broadcast, tensor, self.source)
        received = tensor.cpu().numpy().astype(array.dtype)
        return received if array.ndim else received.item()

    def sync(self, tensors: list[Tensor]) -> None:
        self._check_in("sync", len(tensors))
        for dtype in sorted({one.dtype for one in tensors}, key=str):
            chosen = [one for one in tensors if one.dtype == dtype]
            flat = torch.cat([one.detach().flatten() for one in chosen]).to(self.device)
            self._guarded(dist.broadcast, flat, self.source)
            with torch.no_grad():
                for tensor, part in zip(chosen, flat.split([one.numel() for one in chosen]), strict=True):
                    tensor.copy_(part.view_as(tensor))

    def expect(self, n_steps: int, n_values: int, dtype: torch.dtype) -> None:
        self.expected, self.message = (n_steps, n_values, dtype) if n_steps > 0 else None, None

    def sum_gradients(self, parts: list[Tensor]) -> Tensor:
        self.n_steps += 1
        if self.expected is None:  # a line search evaluates the loss an unknown number of times
            self._check_in("gradient", sum(one.numel() for one in parts))
            self.message = None
        flat = [*(one.flatten() for one in parts), parts[0].new_zeros(1)]  # the last value says whether one failed
        self.message = torch.cat(flat, out=self.message)
        summed = self._exchanged(self.message, dist.ReduceOp.SUM)
        if self.expected is not None:
            n_steps, n_values, dtype = self.expected
            self.expected = (n_steps - 1, n_values, dtype) if n_steps > 1 else None
        if float(summed[-1]) > 0:
            self._raise_shared(None)
        return summed[:-1]

    def _reduced(self, values: Any, operation: Any) -> Any:
        """Reduce numbers or arrays over the processes in 64 bits."""
        array = np.asarray(values)
        self._check_in("reduction", str(operation), array.shape, array.dtype.kind in "iub")
        # A copy, which torch can write to.
        copied = torch.from_numpy(np.array(array, dtype=np.int64 if array.dtype.kind in "iub" else np.float64))
        reduced = self._exchanged(copied, operation)
        return reduced.numpy() if array.ndim else reduced.item()

    def _check_in(self, *exchange: Any) -> None:
        """Raise the error of a process that has failed, or one if the next exchange is not that of the others."""
        code = float(zlib.crc32(repr(exchange).encode()))
        status = self._exchanged(torch.tensor([0.0, code, -code], dtype=torch.float64), dist.ReduceOp.MAX)
        if status[0] > 0:
            self._raise_shared(None)
        if status[1] != -status[2]:
            self.ended = True
            raise RuntimeError(
                f"The processes are at different exchanges, rank {self.rank} at {exchange} ({self.where}). Pass "
                "estimators with the same parameters to all, and use the same versions of skae and torch."
            )

    def _exchanged(self, values: Tensor, operation: Any) -> Tensor:
        """Reduce a tensor over the processes. The order of summation is fixed, so runs do not differ."""
        moved = values.to(self.device)
        self._guarded(dist.all_reduce, moved, operation)
        return moved.to(values.device)

    def _guarded(self, exchange: Any, *args: Any) -> None:
        """Call an exchange, and name the process that did not take part in it."""
        try:
            exchange(*args, group=self.group)
        except RuntimeError as error:
            self.ended = True
            raise self._absence(error) from error

    def _share(self, error: Exception) -> None:
        """Take part in the exchange that the others are at, and raise an error in all processes."""
        if self.expected is None:
            self._exchanged(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), dist.ReduceOp.MAX)
        else:
            _, n_values, dtype = self.expected
            message = torch.zeros(n_values + 1, dtype=dtype)
            message[-1] = 1.0
            self._exchanged(message, dist.ReduceOp.SUM)
        self._raise_shared(error)

    def _raise_shared(self, error: Exception | None) -> None:
        """Raise the error of the first process that has one in all of them."""
        self.ended = True
        values: list = [None] * self.size
        own = None if error is None else (_pickled(error), f"{type(error).__name__}: {error}")
        self._guarded(dist.all_gather_object, values, own)
        rank, (dumped, text) = next((rank, value) for rank, value in enumerate(values) if value is not None)
        if rank == self.rank and error is not None:
            raised = error
        else:
            raised = RuntimeError(text)
            with suppress(Exception):
                raised = pickle.loads(dumped)
        raised.add_note(f"Raised on rank {rank} of {self.size} ({self.where}).")
        raise raised

    def _post(self, text: str) -> Any:
        """Tell the other processes where this one is, by the store of the process group, and return the store."""
        with suppress(Exception):
            store = dist.distributed_c10d._get_default_store()
            store.set(f"{self.key}/{self.rank}", text)
            return store
        return None

    def _absence(self, error: Exception) -> Exception:
        """Return the error that names the processes that did not take part in an exchange."""
        at = f"step {self.n_steps}" if self.n_steps > 0 and self.where == "training" else f"the {self.where}"
        timed_out = "imed out" in str(error)
        store = self._post(f"{'timed out' if timed_out else 'was left'} at {at}")
        absent, said = [], []
        deadline = time.monotonic() + GRACE
        for rank in range(self.size) if store is not None else ():
            key, left = f"{self.key}/{rank}", max(deadline - time.monotonic(), 0.01)
            try:
                store.wait([key], timedelta(seconds=left))
                text = store.get(key).decode()
                timed_out |= text.startswith("timed out")
                if text.startswith("was ended"):
                    said.append(f"Rank {rank} {text}")
            except Exception:  # of several types, and the process of the store may have left
                absent.append(rank)
        who = f"Rank {', '.join(map(str, absent))} of {self.size}" if absent else "A rank"
        who = f"{said[0]}; it" if said else who
        kind = TimeoutError if timed_out else ConnectionError
        return kind(
            f"{who} did not take part at {at}, for which rank {self.rank} waited: {error}. See the messages of that "
            "rank. If it only needs more time, pass a longer timeout to torch.distributed.init_process_group."
        )


def _pickled(error: Exception) -> bytes:
    """Return an error as bytes, empty if that is not possible."""
    with suppress(Exception):
        return pickle.dumps(error)
    return b""
