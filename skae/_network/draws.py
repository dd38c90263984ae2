"""Draw random numbers in a user's own module from seeded generators."""

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

# A global generator is borrowed by one thread at a time.
_BORROWING = threading.Lock()


class Draws:
    """A seeded generator for each device, made when the device is first drawn on.

    Parameters
    ----------
    seed : int
        Of all of them.
    devices : torch.device
        Whose generators are made at once.

    Attributes
    ----------
    generators : dict of torch.Generator
        By the name of the device.
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
        """Whether anything has been drawn."""
        fresh = Draws(self.seed)
        pairs = [(one.get_state(), fresh.on(one.device).get_state()) for one in self.generators.values()]
        return any(not torch.equal(*pair) for pair in pairs)


class SeededDraws(TorchDispatchMode):
    """Inside this block every operation of the thread that draws random numbers does so from these generators.

    Operations that take a generator are handed one, whatever they were called with. The others, such as dropout on a
    GPU, find it in the place of the global one, for as long as the operation takes.

    Parameters
    ----------
    draws : Draws
        The generators.
    """

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        self.draws = draws

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        device = _device_of(args, kwargs)
        if device.type == "meta":
            return func(*args, **kwargs)
        generator = self.draws.on(device)
        func, position = _taking_generator(func)
        if position is None:
            with _in_place_of_global(generator):
                return func(*args, **kwargs)
        if position < len(args):
            return func(*args[:position], generator, *args[position + 1 :], **kwargs)
        return func(*args, **{**kwargs, "generator": generator})


@functools.cache
def _taking_generator(func: Any) -> tuple[Any, int | None]:
    """Return the variant of an operation that takes a generator, and the position of that argument or None."""
    name = "generator" if func._overloadname == "default" else f"{func._overloadname}_generator"
    variants = [func, *([getattr(func.overloadpacket, name)] if name in func.overloadpacket.overloads() else [])]
    for variant in variants:
        names = [argument.name for argument in variant._schema.arguments]
        if "generator" in names:
            return variant, names.index("generator")
    return func, None


def _device_of(args: Any, kwargs: dict[str, Any]) -> torch.device:
    """Return the device on which an operation computes."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    values = pytree.tree_leaves((args, kwargs))
    return next((value.device for value in values if isinstance(value, Tensor)), torch.device("cpu"))


@contextmanager
def _in_place_of_global(generator: torch.Generator) -> Iterator[None]:
    """Lend the state of a generator to the global one of its device, and take it back with what was drawn."""
    shared = _global_generator(generator.device)
    with _BORROWING:
        before = shared.get_state()
        shared.set_state(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(shared.get_state())
            shared.set_state(before)


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    return torch.default_generator
