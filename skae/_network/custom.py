"""Check and wrap a user's own module."""

import copy
import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from skae._network.draws import Draws, SeededDraws

# What a network may need besides its weights.
DRAWS_IN_TRAINING, DRAWS_IN_EVALUATION, MAKES_TENSORS = "draws", "draws in evaluation", "makes tensors"
# What makes a tensor of nothing but numbers.
_MAKERS = {
    torch.zeros,
    torch.ones,
    torch.empty,
    torch.full,
    torch.rand,
    torch.randn,
    torch.eye,
    torch.linspace,
    torch.logspace,
    torch.arange,
    torch.tensor,
    torch.scalar_tensor,
}
# Outside training the same samples meet the same random numbers in every call.
_EVALUATION_SEEDS = {"encode": 1, "decode": 2}


class CustomModuleHalf(nn.Module):
    """One direction of a user's own network.

    Parameters
    ----------
    module : nn.Module
        With ``encode`` and ``decode``.
    direction : {"encode", "decode"}
        Which of them.
    needs : sequence of str, default=()
        What `skae._probe.needs_of` has found.

    Attributes
    ----------
    draws : Draws or None
        What random numbers come from while training.
    """

    def __init__(self, module: nn.Module, direction: str, needs: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.module = module
        self.direction = direction
        self.needs = needs
        self.draws: Draws | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Call it."""
        if not self.needs:
            return getattr(self.module, self.direction)(values)
        draws = None
        if self.training and DRAWS_IN_TRAINING in self.needs:
            draws = self.draws or Draws(_EVALUATION_SEEDS[self.direction])
        elif DRAWS_IN_EVALUATION in self.needs:
            draws = Draws(_EVALUATION_SEEDS[self.direction])
        return called(self.module, self.direction, values, MAKES_TENSORS in self.needs, draws)


class _MadeLike(TorchFunctionMode):
    """Inside this block tensors that are made without dtype or device are made like another one."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in _MAKERS or "out" in kwargs:
            return func(*args, **kwargs)
        kwargs = {"device": self.values.device, **kwargs}
        result = func(*args, **kwargs)
        if "dtype" in kwargs or not result.is_floating_point() or result.dtype == self.values.dtype:
            return result
        return func(*args, **kwargs, dtype=self.values.dtype)


def called(module: nn.Module, direction: str, values: Tensor, asarray_like: bool, draws: Draws | None) -> Tensor:
    """Send values through one direction of a network.

    Parameters
    ----------
    module : nn.Module
        With ``encode`` and ``decode``.
    direction : {"encode", "decode"}
        Which of them.
    values : Tensor of shape (n, n_features) or (n, n_components)
        What it is called with.
    like : bool
        Whether tensors that it makes without dtype or device become like the values.
    draws : Draws or None
        What its random numbers come from; None are torch's global generators.
    """
    with ExitStack() as stack:
        if asarray_like:
            stack.enter_context(_MadeLike(values))
        if draws is not None:
            stack.enter_context(SeededDraws(draws))
        return getattr(module, direction)(values)


def freeze_like(network: nn.Module, module: nn.Module | None) -> None:
    """Freeze the same weights of a user's own network inside another one as this module has frozen."""
    for stack in network.modules():
        if isinstance(stack, CustomModuleHalf) and module is not None:
            for one, now in zip(stack.module.parameters(), module.parameters(), strict=True):
                one.requires_grad_(now.requires_grad)


def custom_module(
    module: "nn.Module | type[nn.Module]", params: Mapping[str, Any], n_features: int, n_components: int, seed: int
) -> nn.Module:
    """Make a network of a class, or copy the instance, and give it all its weights.

    Parameters
    ----------
    module : nn.Module class or instance
        A class is called with ``n_features`` and ``n_components``.
    params : dict
        What a class is called with besides.
    n_features, n_components : int
        Features of samples and codes.
    seed : int
        For the first weights of a class and of lazy layers.

    Raises
    ------
    TypeError
        If it is no torch module, or lacks ``encode`` or ``decode``.
    ValueError
        If a class does not take these parameters, an instance is handed any or cannot be copied, or a lazy layer stays
        without weights.
    """
    draws = Draws(seed)
    if isinstance(module, type) and issubclass(module, nn.Module):
        _check_call(module, params, n_features, n_components)
        with SeededDraws(draws):
            module = module(n_features, n_components, **params)
    elif isinstance(module, nn.Module):
        if params:
            raise ValueError(
                f"module_params={dict(params)!r} is for a module class, but module is an instance of "
                f"{type(module).__name__}. Pass the class, or build the instance with these options."
            )
        module = _copied(module)
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, class or instance, got {module!r}.")
    missing = [name for name in ("encode", "decode") if not callable(getattr(module, name, None))]
    if missing:
        raise TypeError(
            f"module {type(module).__name__} lacks {' and '.join(missing)}: it needs encode(x), from shape "
            f"(n, {n_features}) to (n, {n_components}), and decode(z) back."
        )
    if _lazy_layers(module):
        _materialize(module, n_features, draws)
    return module


def _check_call(module, params, n_features, n_components):
    """Refuse options that the class does not take."""
    if not all(isinstance(name, str) for name in params):
        raise ValueError(f"keys of module_params must be strings, got {dict(params)!r}.")
    signature = inspect.signature(module)
    try:
        signature.bind(n_features, n_components, **params)
    except TypeError as error:
        raise ValueError(
            f"module {module.__name__}{signature} cannot be called with (n_features, n_components) and "
            f"module_params={dict(params)!r}: {error}."
        ) from error


def _copied(module):
    """Copy an instance of a user's module."""
    # Torch copies parameters without weights, but no such buffers.
    memo = {id(one): type(one)(device=one.device, dtype=one.dtype) for one in module.buffers() if is_lazy(one)}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # copying is code of the user's, or of torch's
        raise ValueError(
            f"module {type(module).__name__} cannot be copied, and of an instance a copy is trained: {error} Hold "
            "tensors that belong to it as parameters or buffers, or pass the class."
        ) from error


def _lazy_layers(module):
    """Names of the layers that have no weights yet."""
    layers = ((name, layer) for name, layer in module.named_modules() if isinstance(layer, LazyModuleMixin))
    return [name for name, layer in layers if any(map(is_lazy, [*layer.parameters(), *layer.buffers()]))]


def _materialize(module, n_features, draws):
    """Have lazy layers make their weights, by a look at two samples."""
    known = (one for one in module.parameters() if not is_lazy(one))
    asarray_like = next(known, torch.empty(0))
    mode = module.training
    module.eval()
    with torch.no_grad():
        z = called(
            module,
            "encode",
            torch.zeros(2, n_features, dtype=asarray_like.dtype, device=asarray_like.device),
            True,
            draws,
        )
        called(module, "decode", z, True, draws)
    module.train(mode)
    left = _lazy_layers(module)
    if left:
        raise ValueError(
            f"The lazy layer {left[0]!r} of module {type(module).__name__} has no weights after encode and decode: "
            "neither calls it. Call it there, or leave it out."
        )
