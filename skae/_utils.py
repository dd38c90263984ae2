"""Devices, tensors, seeded generators, thread counts and documentation links."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch

# Number of multiplications per batch up to which torch uses a single thread: starting further threads takes longer
# than it saves. No measurement of this value is recorded.
SINGLE_THREAD_WORK = 20_000_000
REFERENCE = "https://skae.readthedocs.io/en/stable/api.html"
# What to do instead of setting a nested parameter of an object without parameters.
ADVICE = {
    "optimizer": "Pass options of the optimizer as optimizer_params={!r}.",
    "module": "Pass options of a module class as module_params={!r}.",
    "loss": "Pass an object with parameters, such as loss=skae.Huber(delta=0.5).",
    "regularizer": "Pass an object with parameters, such as regularizer=skae.Denoising(noise=0.2).",
}


class NestedParamsMixin:
    """Mixin that rejects nested parameters of objects without parameters; it must come before BaseEstimator."""

    def set_params(self: Any, **params: Any) -> Any:
        """Set the parameters of this estimator.

        Parameters
        ----------
        **params : dict
            Names and values of parameters. ``regularizer__noise`` is the parameter ``noise`` of the object that is
            passed as ``regularizer``.

        Returns
        -------
        estimator instance
            The estimator itself.

        Raises
        ------
        ValueError
            If there is no such parameter. Options of the optimizer and of a module class are passed as
            ``optimizer_params`` and ``module_params``.
        """
        for name, value in params.items():
            outer, _, option = name.partition("__")
            if option and outer in self._get_param_names():
                nested = params.get(outer, getattr(self, outer))
                if isinstance(nested, type) or not hasattr(nested, "get_params"):
                    advice = ADVICE.get(outer, f"Set {outer} itself.").format({option: value})
                    raise ValueError(
                        f"Invalid parameter {name!r} for {type(self).__name__}: {outer}={nested!r} has no parameters. "
                        f"{advice}"
                    )
        return super().set_params(**params)  # type: ignore[misc]


def check_parameter(obj: Any, name: str, valid: bool, rule: str) -> None:
    """Raise a ValueError that states the rule if the value of a parameter of an object is not valid."""
    if not valid:
        raise ValueError(f"{type(obj).__name__}({name}={getattr(obj, name)!r}): {name} {rule}.")


def available_devices() -> list[str]:
    """Return the names of the devices available on this machine, the CPU first."""
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{index}" for index in range(n_cuda)), *mps]


def resolve_device(device: str | torch.device) -> torch.device:
    """Convert the ``device`` parameter to an available device.

    Parameters
    ----------
    device : str or torch.device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"`` for an accelerator if there is one and the CPU
        otherwise.

    Returns
    -------
    torch.device
        The device, with an index if it is a CUDA device.

    Raises
    ------
    ValueError
        If ``device`` is not the name of a device, or the device is not available.
    """
    available = available_devices()
    if device == "auto":
        return torch.device(available[1] if len(available) > 1 else "cpu")
    with suppress(RuntimeError):  # by torch.device
        if str(resolved := canonical_device(torch.device(device))) in available:
            return resolved
    raise ValueError(
        f"device={str(device)!r} is not available: this machine has {', '.join(map(repr, available))}. "
        "Pass one of these, or device='auto' to choose one automatically."
    )


def canonical_device(device: torch.device) -> torch.device:
    """Return a device in the form used by `available_devices`: only CUDA devices have an index."""
    if device.type == "cuda":
        return torch.device("cuda", device.index or 0)
    return torch.device(device.type) if device.index in (None, 0) else device


def check_dtype_on_device(dtype: np.dtype, device: torch.device) -> None:
    """Raise a ValueError if the device does not support the dtype."""
    if device.type == "mps" and dtype == np.float64:
        raise ValueError(
            "device='mps' computes in float32 only, but X is float64. Pass X.astype(numpy.float32) or device='cpu'."
        )


def torch_dtype(dtype: np.dtype) -> torch.dtype:
    """Return the torch dtype of a floating-point NumPy dtype."""
    return torch.float64 if dtype == np.float64 else torch.float32


def aligned_tensor(values: np.ndarray) -> torch.Tensor:
    """Copy an array into memory allocated by torch.

    The last bits of a matrix product depend on the memory alignment of its operands, and the alignment of NumPy arrays
    varies from run to run. The copy also accepts arrays that torch does not: read-only ones and ones with negative
    strides.
    """
    tensor = torch.empty(values.shape, dtype=torch_dtype(values.dtype))
    np.copyto(tensor.numpy(), values)
    return tensor


def as_tensor(values: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor that must not be modified, without a copy if torch allows it."""
    # An array with a single sample or feature can be contiguous and still have negative strides.
    shared = values.flags.c_contiguous and values.flags.writeable and min(values.strides) >= 0
    return torch.from_numpy(values) if shared else aligned_tensor(values)


def draw_seed(random_state: np.random.RandomState) -> int:
    """Draw a seed for a separate generator."""
    return int(random_state.randint(np.iinfo(np.int32).max))


def seeded_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Create a generator that is independent of the global one, which other threads may use."""
    return torch.Generator(device=device).manual_seed(seed)


@contextmanager
def gradients_on() -> Iterator[None]:
    """Enable gradients in this block, even inside ``torch.no_grad`` or ``torch.inference_mode`` of the caller."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class _SingleThread:
    """Limit of one torch thread, removed when the last user leaves.

    ``torch.set_num_threads`` applies to the calling thread and to threads that start later. The number of users is
    counted because a fit that starts while the limit applies would otherwise restore a thread count of one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1
        self._depth = threading.local()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Apply the limit inside this block."""
        depth = getattr(self._depth, "value", 0)
        with self._lock:
            self._before = self._before if self._users else torch.get_num_threads()
            self._users += 1
            torch.set_num_threads(1)
        self._depth.value = depth + 1
        try:
            yield
        finally:
            self._depth.value = depth
            with self._lock:
                self._users -= 1
                torch.set_num_threads(1 if depth else self._before)


_single_thread = _SingleThread()


def threads_for(work: int) -> AbstractContextManager[None]:
    """Return a context in which torch is limited to one thread if there is little work.

    Parameters
    ----------
    work : int
        Number of multiplications per batch. Above `SINGLE_THREAD_WORK`, the number of threads is not changed.
    """
    return nullcontext() if work > SINGLE_THREAD_WORK else _single_thread()


class Documented:
    """Mixin for links to the API reference in the HTML representation; it must come before BaseEstimator."""

    _doc_link_module = "skae"
    _doc_link_template = REFERENCE + "#skae.{estimator_name}"


_FOLLOWERS: list[Callable[[type], None]] = []


class FollowedMixin:
    """Mixin of classes whose subclasses are reported to functions registered with `follow`."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for follower in _FOLLOWERS:
            follower(cls)


def follow(base: type, follower: Callable[[type], None]) -> None:
    """Call a function with a class, its subclasses, and every subclass that is defined later."""
    if follower not in _FOLLOWERS:
        _FOLLOWERS.append(follower)
    follower(base)
    subclasses: list[type] = base.__subclasses__()
    for cls in subclasses:
        follow(cls, follower)


def check_inherited(cls: type, base: type, *names: str) -> None:
    """Check that a class does not override methods of a base class.

    Raises
    ------
    TypeError
        If it overrides one of the methods.
    """
    overridden = [name for name in names if getattr(cls, name) is not getattr(base, name)]
    if overridden:
        raise TypeError(
            f"{cls.__name__} overrides the method {overridden[0]!r}, but skae.onnx converts that of {base.__name__} "
            f"only. Convert an {base.__name__}, or register a converter with skl2onnx.update_registered_converter."
        )
