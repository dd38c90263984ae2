"""Devices, seeded generators, thread counts, and links into the documentation."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

# Up to this many multiplications a batch, a second torch thread costs more than it brings.
SINGLE_THREAD_WORK = 20_000_000
REFERENCE = "https://skae.readthedocs.io/en/stable/api.html"


def available_devices() -> list[str]:
    """Names of the devices that this machine can compute on, the processor first."""
    names = ["cpu"]
    if torch.cuda.is_available():
        names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the ``device`` parameter into a device that this machine has.

    Parameters
    ----------
    device : str or torch.device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"`` for the fastest one present.

    Returns
    -------
    torch.device
        The device, with its index where the kind has several.

    Raises
    ------
    ValueError
        If the name is no device, or none that this machine has.
    """
    available = available_devices()
    if device == "auto":
        return torch.device(available[1] if len(available) > 1 else "cpu")
    try:
        resolved = canonical_device(torch.device(device))
    except RuntimeError:
        resolved = None
    if resolved is not None and str(resolved) in available:
        return resolved
    raise ValueError(
        f"device={str(device)!r} is not available: this machine has {', '.join(map(repr, available))}. "
        "Pass one of these, or device='auto' for the fastest one present."
    )


def canonical_device(device: torch.device) -> torch.device:
    """Write a device as `available_devices` does: with its index where the kind has several."""
    if device.type == "cuda":
        return torch.device("cuda", device.index or 0)
    return torch.device(device.type) if device.index in (None, 0) else device


def check_dtype_on_device(dtype: np.dtype, device: torch.device) -> None:
    """Refuse float64 where the device has no such numbers."""
    if device.type == "mps" and dtype == np.float64:
        raise ValueError(
            "device='mps' computes in float32 only, but X is float64. Pass X.astype(numpy.float32) or device='cpu'."
        )


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """Torch's name for a numpy floating dtype."""
    return torch.float64 if dtype == np.float64 else torch.float32


def aligned_tensor(values: np.ndarray) -> torch.Tensor:
    """Copy an array into memory of torch's own.

    The last bits of a matrix product depend on how its operands are aligned, which numpy leaves to chance.
    The copy also takes what torch refuses: read-only memory and negative strides.
    """
    tensor = torch.empty(values.shape, dtype=torch_dtype(values.dtype))
    np.copyto(tensor.numpy(), values)
    return tensor


def as_tensor(values: np.ndarray) -> torch.Tensor:
    """View an array as a tensor where torch allows it, copy it elsewhere; to be read only."""
    # An array of one sample or feature may be contiguous and have negative strides all the same.
    shared = values.flags.c_contiguous and values.flags.writeable and min(values.strides) >= 0
    return torch.from_numpy(values) if shared else aligned_tensor(values)


def draw_seed(random_state: np.random.RandomState) -> int:
    """Draw one seed for a generator of its own."""
    return int(random_state.randint(np.iinfo(np.int32).max))


def seeded_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator that no other code shares, so that threads cannot disturb each other."""
    return torch.Generator(device=device).manual_seed(seed)


class _ThreadLimit:
    """One torch thread while anybody asks for it, the caller's count again after the last one left.

    ``torch.set_num_threads`` acts on the calling thread and on threads that start later. Counting the
    users keeps a fit in one Python thread from handing its limit to the others for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1
        self._depth = threading.local()

    def enter(self) -> None:
        with self._lock:
            if self._users == 0:
                self._before = torch.get_num_threads()
            self._users += 1
            self._depth.value = getattr(self._depth, "value", 0) + 1
            torch.set_num_threads(1)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            self._depth.value -= 1
            if self._depth.value == 0:
                torch.set_num_threads(self._before)


_THREAD_LIMIT = _ThreadLimit()


@contextmanager
def threads_for(work: int) -> Iterator[None]:
    """Compute on one thread inside this block if ``work``, in multiplications a batch, is small.

    Larger work keeps the caller's thread count.
    """
    if work > SINGLE_THREAD_WORK:
        yield
        return
    _THREAD_LIMIT.enter()
    try:
        yield
    finally:
        _THREAD_LIMIT.leave()


class Documented:
    """Goes before BaseEstimator: the question mark and the tooltips of parameters lead to our reference."""

    _doc_link_module = "skae"
    _doc_link_template = REFERENCE + "#skae.{estimator_name}"
    _doc_link_url_param_generator: Callable | None = None
