"""Convert a network to plain arrays and back, and check such a description."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from skae._network.architecture import ACTIVATIONS, Architecture
from skae._network.layers import check_images
from skae._network.scaling import ScaledAutoEncoder, build

ALLOWED: dict[str, tuple] = {
    "activation": tuple(ACTIVATIONS),
    "kind": ("pca", "dense", "tied", "conv"),
    "normalization": (None, "batch", "layer"),
    "link": ("identity", "sigmoid", "exp"),
    "module": (None,),
    "module_needs": ((),),
    "linear_skip": (False, True),
    "variational": (False, True),
    "fills": (False, True),
}
SIZES = ("n_features", "n_components")
STACKS = ("encoder_sizes", "decoder_sizes")
# What torch raises where sizes make no network.
NO_NETWORK = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


def check_network_dict(frozen: Any) -> Architecture:
    """Refuse what `net_to_dict` would not have made; nothing is allocated that the arrays do not already take.

    Parameters
    ----------
    frozen : dict
        With the architecture, the arrays and the history of a network.

    Returns
    -------
    Architecture
        What the arrays belong to.

    Raises
    ------
    ValueError
        If the architecture is none, an array is missing, too many or of another shape or dtype than the architecture
        asks for, or has NaN, or if the history is none.
    """
    check_names(frozen, "the network", ("architecture", "arrays", "history"))
    arrays, history = frozen["arrays"], frozen["history"]
    if not isinstance(arrays, dict) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("the arrays of the network must be a dict of arrays, but it holds something else.")
    if type(history) is not list or not all(type(epoch) is dict for epoch in history):
        raise ValueError("the history of the network must be a list of one dict an epoch.")
    architecture = _checked_architecture(frozen["architecture"], arrays)
    check_names(arrays, "the network", shapes := _shapes(architecture, arrays))
    for name, array in arrays.items():
        found = array.dtype.name, array.shape
        if found != shapes[name]:
            raise ValueError(f"array {name!r} has {found}, but the architecture asks for {shapes[name]}.")
        if array.dtype.kind == "f" and np.isnan(array).any():
            n_wrong = int(np.isnan(array).sum())
            raise ValueError(f"array {name!r} has NaN in {n_wrong} of {array.size} values, but none is allowed.")
    return architecture


def check_names(found: Any, what: str, required: Any, optional: Any = ()) -> None:
    """Refuse a dict that lacks a name or has one too many.

    Raises
    ------
    ValueError
        If it does, or is no dict.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{what} must be a dict, got {type(found).__name__}.")
    missing = [name for name in required if name not in found]
    unknown = [name for name in found if name not in required and name not in optional]
    if missing or unknown:
        raise ValueError(
            f"{what} lacks {', '.join(map(repr, missing[:5])) or 'nothing'} and has "
            f"{', '.join(map(repr, unknown[:5])) or 'nothing'} that is not known here."
        )


def check_runs(module: ScaledAutoEncoder) -> None:
    """Send one sample through a network.

    Raises
    ------
    ValueError
        If it does not get through.
    """
    sizes = module.architecture
    try:
        with torch.no_grad():
            sample = module.mean[None]
            shapes = [module.encode(sample).shape, module(sample).shape, module.squares(sample).shape]
            if sizes.variational:
                shapes.append(module.log_variance(sample).shape)
    except NO_NETWORK as error:
        raise ValueError(f"the network of architecture {sizes} takes no sample: {error}") from error
    expected = [(1, sizes.n_components), (1, sizes.n_features), (1, 2), (1, sizes.n_components)]
    if [tuple(shape) for shape in shapes] != expected[: len(shapes)]:
        raise ValueError(f"the network of architecture {sizes} makes shapes {shapes} of one sample, not {expected}.")


def _checked_architecture(described: Any, arrays: Mapping[str, NDArray]) -> Architecture:
    """The architecture, if each field is what it may be, and no size is beyond what the arrays hold."""
    known = {one.name: one for one in fields(Architecture)}
    required = [one.name for one in known.values() if one.default is MISSING]
    check_names(described, "the architecture", required, known)
    most_values, most_layers = sum(array.size for array in arrays.values()), len(arrays)
    for name, value in described.items():
        if name in ALLOWED:
            good = any(_is_the_same(value, one) for one in ALLOWED[name])
        elif name in SIZES:
            good = _is_size(value, most_values)
        elif name in STACKS or (name == "input_shape" and value is not None):
            good = type(value) is tuple and len(value) <= most_layers
            good = good and all(_is_size(width, most_values) for width in value)
        elif name == "dropout":
            good = type(value) is float and 0.0 <= value < 1.0
        else:
            good = type(value) is type(known[name].default)
        if not good:
            default = known[name].default
            kind = "floats from 0 to below 1" if name == "dropout" else f"values like {default!r}"
            if default is MISSING or name == "input_shape":
                kind = f"sizes up to the {most_values} values of its arrays, at most {most_layers}"
            raise ValueError(f"the architecture has {name}={value!r}, but allowed are {ALLOWED.get(name, kind)}.")
    return Architecture(**described)


def _is_the_same(value: Any, one: Any) -> bool:
    """Whether two values are equal and of one kind: numpy's bool is a bool, but 1 is not True."""
    kinds = (bool, np.bool_) if type(one) is bool else type(one)
    return isinstance(value, kinds) and value == one


def _is_size(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


class _WithoutMemory(TorchFunctionMode):
    """Makes every tensor on torch's device of shapes alone, also where another one is named."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _shapes(architecture: Architecture, arrays: Mapping[str, NDArray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each array of a network, which is built without memory."""
    dtype = getattr(arrays.get("mean"), "dtype", None)
    if dtype not in (np.float64, np.float32):
        raise ValueError(f"the network computes in {dtype}, but only float64 and float32 are allowed.")
    sizes = architecture
    try:
        if sizes.kind == "conv":
            check_images(sizes.input_shape, sizes.n_features, sizes.encoder_sizes, sizes.decoder_sizes)
        with torch.device("meta"), _WithoutMemory():
            module = build(sizes, torch.float64 if dtype == np.float64 else torch.float32)
    except NO_NETWORK as error:
        raise ValueError(f"the architecture {sizes} cannot be built: {error}") from error
    state = module.state_dict()
    return {name: (str(one.dtype).removeprefix("torch."), tuple(one.shape)) for name, one in state.items()}
