"""Seeded random numbers in custom modules."""

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from skae._utils import canonical_device, seeded_generator

# The state of a global generator is replaced by one thread at a time.
_GLOBAL_STATE_LOCK = threading.Lock()


class Draws:
    """Seeded random generators, one for each device, which are created at the first use.

    Parameters
    ----------
    seed : int
        Seed of all generators.
    *devices : torch.device
        Devices whose generators are created at once.

    Attributes
    ----------
    generators : dict of str to torch.Generator
        Generators by the name of the device.
    """

    def __init__(self, seed: int, *devices: torch.device) -> None:
        self.seed = seed
        self.generators: dict[str, torch.Generator] = {}
        for device in devices:
            self.on(device)

    def on(self, device: torch.device) -> torch.Generator:
        """Return the generator of a device."""
        name = str(canonical_device(device))
        if name not in self.generators:
            self.generators[name] = seeded_generator(self.seed, name)
        return self.generators[name]

    @property
    def used(self) -> bool:
        """Whether any random number has been drawn."""
        fresh = Draws(self.seed)
        return any(
            not torch.equal(one.get_state(), fresh.on(one.device).get_state()) for one in self.generators.values()
        )


class SeededDraws(TorchDispatchMode):
    """Context in which all operations of the thread draw random numbers from the given generators.

    Operations with a parameter ``generator`` get the generator, even if they are called with another one. For other
    operations, such as dropout on a GPU, the state of the global generator is replaced while they run.

    Parameters
    ----------
    draws : Draws
        The generators.
    """

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        device = _device_of(args, kwargs)
        if device.type == "meta":
            return func(*args, **kwargs)
        generator = self.draws.on(device)
        overload = _with_generator(func)
        if overload is not None:
            return overload(*args, **{**kwargs, "generator": generator})
        with _replaced_global_state(generator):
            return func(*args, **kwargs)


@functools.cache
def _with_generator(func: Any) -> Any:
    """Return the overload of an operation that has a parameter ``generator``, or None."""
    name = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
    overloads = [func, getattr(func.overloadpacket, name, None)]
    return next((one for one in overloads if one and "generator" in [a.name for a in one._schema.arguments]), None)


def _device_of(args: Any, kwargs: dict[str, Any]) -> torch.device:
    """Return the device of an operation: that of the argument ``device``, or else of the first tensor."""
    tensors = (value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor))
    return torch.device(kwargs.get("device") or next((tensor.device for tensor in tensors), "cpu"))


@contextmanager
def _replaced_global_state(generator: torch.Generator) -> Iterator[None]:
    """Replace the state of the global generator of a device by that of another one, which is advanced in its place."""
    shared = _global_generator(generator.device)
    with _GLOBAL_STATE_LOCK:
        original = shared.get_state()
        shared.set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(shared.get_state())
            shared.set_state(original)


def _global_generator(device: torch.device) -> torch.Generator:
    """Return the global generator of a device."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator
