"""Construction and application of custom modules."""

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

# Needs of a custom module: random numbers in training or evaluation, or a default dtype and device of new tensors.
DRAWS_IN_TRAINING, DRAWS_IN_EVALUATION, MAKES_TENSORS = "draws", "draws in evaluation", "makes tensors"
# Functions that create tensors of the default dtype and device.
_FACTORIES = {torch.zeros, torch.ones, torch.empty, torch.full, torch.rand, torch.randn, torch.eye, torch.linspace}
_FACTORIES |= {torch.logspace, torch.arange, torch.tensor, torch.scalar_tensor}
# In evaluation mode, each call draws the same random numbers, so that results are reproducible.
_EVALUATION_SEEDS = {"encode": 1, "decode": 2}


class CustomModuleHalf(nn.Module):
    """Encoder or decoder of a custom module.

    Parameters
    ----------
    module : nn.Module
        Module with the methods ``encode`` and ``decode``.
    direction : {"encode", "decode"}
        Name of the method.
    needs : tuple of str, default=()
        Needs of the module, as returned by `skae._network.probe.tried_module`.

    Attributes
    ----------
    draws : Draws or None
        Random generators for training.
    """

    def __init__(self, module: nn.Module, direction: str, needs: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.module = module
        self.direction = direction
        self.needs = needs
        self.draws: Draws | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Call the method."""
        draws = None
        if self.training and DRAWS_IN_TRAINING in self.needs:
            draws = self.draws
        elif DRAWS_IN_EVALUATION in self.needs:
            draws = Draws(_EVALUATION_SEEDS[self.direction])
        return called(self.module, self.direction, values, MAKES_TENSORS in self.needs, draws)


class _CreateLike(TorchFunctionMode):
    """Context in which tensors that are created without a dtype or device get those of another tensor."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in _FACTORIES or "out" in kwargs:
            return func(*args, **kwargs)
        kwargs = {"device": self.values.device, **kwargs}
        result = func(*args, **kwargs)
        if "dtype" in kwargs or not result.is_floating_point() or result.dtype == self.values.dtype:
            return result
        return func(*args, **kwargs, dtype=self.values.dtype)


def called(module: nn.Module, direction: str, values: Tensor, like_input: bool, draws: Draws | None) -> Tensor:
    """Call a method of a custom module.

    Parameters
    ----------
    module : nn.Module
        Module with the methods ``encode`` and ``decode``.
    direction : {"encode", "decode"}
        Name of the method.
    values : Tensor of shape (n, n_features) or (n, n_components)
        Input.
    like_input : bool
        Whether tensors that the module creates without a dtype or device get those of the input.
    draws : Draws or None
        Random generators. None are the global generators of torch.

    Returns
    -------
    Tensor of shape (n, n_components) or (n, n_features)
        Output of the method.
    """
    with ExitStack() as stack:
        if like_input:
            stack.enter_context(_CreateLike(values))
        if draws is not None:
            stack.enter_context(SeededDraws(draws))
        return getattr(module, direction)(values)


def freeze_like(network: nn.Module, module: nn.Module | None) -> None:
    """Set ``requires_grad`` of the parameters of a custom module in a network to that of another instance."""
    for stack in network.modules():
        if isinstance(stack, CustomModuleHalf) and module is not None:
            for parameter, other in zip(stack.module.parameters(), module.parameters(), strict=True):
                parameter.requires_grad_(other.requires_grad)


def custom_module(
    module: "nn.Module | type[nn.Module]", params: Mapping[str, Any], n_features: int, n_components: int, seed: int
) -> nn.Module:
    """Create an instance of a module class, or copy an instance, and initialize its lazy layers.

    Parameters
    ----------
    module : nn.Module class or instance
        A class is called with ``n_features`` and ``n_components``.
    params : dict
        Other keyword arguments of a class.
    n_features : int
        Number of features of the samples.
    n_components : int
        Number of features of the codes.
    seed : int
        Seed of the initial weights of a class and of lazy layers.

    Returns
    -------
    nn.Module
        The new instance.

    Raises
    ------
    TypeError
        If ``module`` is not a torch module, or does not have the methods ``encode`` and ``decode``.
    ValueError
        If a class cannot be called with these parameters, an instance is passed with parameters or cannot be copied, or
        ``encode`` and ``decode`` do not initialize a lazy layer.
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
            f"module {type(module).__name__} lacks {' and '.join(missing)}. It needs encode(x), from shape "
            f"(n, {n_features}) to (n, {n_components}), and decode(z), from (n, {n_components}) to (n, {n_features})."
        )
    if _lazy_layers(module):
        _materialize(module, n_features, draws)
    return module


def _check_call(module: type[nn.Module], params: Mapping[str, Any], n_features: int, n_components: int) -> None:
    """Raise a ValueError if the class cannot be called with these arguments."""
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


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy of an instance."""
    # torch can copy uninitialized parameters, but not uninitialized buffers.
    lazy: list[Any] = [buffer for buffer in module.buffers() if is_lazy(buffer)]
    memo = {id(buffer): type(buffer)(device=buffer.device, dtype=buffer.dtype) for buffer in lazy}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # the user's code can raise any exception
        raise ValueError(
            f"module {type(module).__name__} cannot be copied, but a copy of the instance is trained: {error} "
            "Register its tensors as parameters or buffers, or pass the class."
        ) from error


def _lazy_layers(module: nn.Module) -> list[str]:
    """Return the names of the layers whose weights are not initialized."""
    layers: list[Any] = [pair for pair in module.named_modules() if isinstance(pair[1], LazyModuleMixin)]
    return [name for name, layer in layers if layer.has_uninitialized_params()]


def _materialize(module: nn.Module, n_features: int, draws: Draws) -> None:
    """Initialize lazy layers by encoding and decoding two samples."""
    like = next((parameter for parameter in module.parameters() if not is_lazy(parameter)), torch.empty(0))
    mode = module.training
    module.eval()
    with torch.no_grad():
        x = torch.zeros(2, n_features, dtype=like.dtype, device=like.device)
        z = called(module, "encode", x, True, draws)
        called(module, "decode", z, True, draws)
    module.train(mode)
    uninitialized = _lazy_layers(module)
    if uninitialized:
        raise ValueError(
            f"The lazy layer {uninitialized[0]!r} of module {type(module).__name__} has no weights after encode and "
            "decode, because neither calls it. Call it there, or remove it."
        )
