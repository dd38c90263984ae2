"""Version and validation of the states of fitted estimators and their networks."""

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import MISSING, fields
from reprlib import repr
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch.overrides import TorchFunctionMode

from skae._data.array_api import to_numpy
from skae._network.architecture import ACTIVATIONS, Architecture
from skae._network.layers import check_images
from skae._network.scaling import build
from skae._objectives.losses import LOSSES
from skae._objectives.regularizers import REGULARIZERS

# Increased whenever the content or the meaning of states changes.
FORMAT_VERSION = 2
VERSION, WRITER = "_format_version", "_skae_version"
# Whether a state is for `skae.save`, which saves neither callbacks nor the array library of X in `fit`.
IN_FILE: ContextVar[bool] = ContextVar("IN_FILE", default=False)
NETWORK, STREAM = "_network", "_stream"
NUMBERS = ("n_features_in_", "n_components_", "n_iter_", "best_epoch_")
# Attributes of fitted autoencoders and detectors.
OF_TRANSFORMER = (NETWORK, *NUMBERS, "mean_", "loss_curve_", "validation_scores_", "validation_epochs_", "device_")
CURVES = ("loss_curve_", "validation_scores_")
OF_DETECTOR = ("estimator_", "offset_", "n_features_in_")
# Number of integers in the state of the Mersenne Twister of NumPy.
TWISTER_SIZE = 624
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
# Exceptions of torch for sizes with which no network can be built.
BUILD_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


def stamped(state: dict) -> dict:
    """Add the version to a state, and convert its curves to arrays, which need a tenth of the space in a file."""
    curves = {name: np.array(state[name]) for name in CURVES if type(state.get(name)) is list}
    state = {**state, **curves}
    if IN_FILE.get():
        state = {name: to_numpy(value) for name, value in state.items() if name != "_skl_callbacks"}
    return {**state, VERSION: FORMAT_VERSION, WRITER: sys.modules["skae"].__version__}


def checked(estimator: BaseEstimator, state: dict, fitted_attributes: tuple[str, ...]) -> dict:
    """Check the version, the parameters and the feature names of a state, and return it without the version.

    Parameters
    ----------
    estimator : estimator
        Estimator to which the state belongs.
    state : dict
        State as returned by `stamped`.
    fitted_attributes : tuple of str
        Names of the attributes of a fitted estimator.

    Returns
    -------
    dict
        The state without the version.

    Raises
    ------
    ValueError
        If the state has no version or another one, or lacks an attribute.
    """
    cls = type(estimator).__name__
    state = dict(state)
    version, writer = state.pop(VERSION, None), state.pop(WRITER, "unknown")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(
            f"this {cls} was saved in format {version} by skae {writer}, but this skae, "
            f"{sys.modules['skae'].__version__}, reads format {FORMAT_VERSION}: fit again, or load it with the version "
            "of skae that saved it."
        )
    # The number of features is also set by an unsuccessful fit.
    fitted = any(name in state for name in fitted_attributes if name != "n_features_in_")
    required = (*type(estimator)._get_param_names(), *(fitted_attributes if fitted else ()))
    check_names(state, f"the state of this {cls}", required, state)
    state.update({name: state[name].tolist() for name in CURVES if isinstance(state.get(name), np.ndarray)})
    random_state = state.get("random_state")
    if isinstance(random_state, np.random.RandomState):
        check_twister(random_state.get_state(), "random_state")
    names = state.get("feature_names_in_")
    if fitted and names is not None and np.shape(names) != (state["n_features_in_"],):
        raise ValueError(f"feature_names_in_ must have {state['n_features_in_']} names, got {repr(names)}.")
    return state


def check_twister(state: Any, name: str) -> None:
    """Raise a ValueError for a position of a RandomState beyond its memory, which NumPy does not check."""
    if type(state) is not tuple or len(state) < 3 or type(state[2]) is not int or not 0 <= state[2] <= TWISTER_SIZE:
        raise ValueError(f"{name} must be the state of a RandomState at a position of 0 to {TWISTER_SIZE}.")


def check_transformer(state: dict) -> None:
    """Check that the attributes of a fitted autoencoder are consistent with its network.

    Raises
    ------
    ValueError
        If they are not.
    """
    architecture = check_network_dict(state[NETWORK])
    for name in NUMBERS:
        if type(state[name]) is not int or state[name] < 0:
            raise ValueError(f"{name} must be an int of at least 0, got {repr(state[name])}.")
    for attribute, size in (("n_features_in_", architecture.n_features), ("n_components_", architecture.n_components)):
        if state[attribute] != size:
            raise ValueError(f"{attribute} is {state[attribute]}, but the network has {size}.")
    mean, found = state[NETWORK]["arrays"]["mean"], to_numpy(state["mean_"])
    if getattr(found, "dtype", None) != mean.dtype or not np.array_equal(found, mean):
        raise ValueError(f"mean_ is not that of the network: {repr(found)}.")
    _check_curves(state)
    if type(state["device_"]) is not str:
        raise ValueError(f"device_ must be a string, got {repr(state['device_'])}.")
    _check_stream(state.get(STREAM))


def _check_curves(state: dict) -> None:
    """Check that the numbers of losses and scores are consistent with the number of epochs."""
    scores = [] if state["validation_scores_"] is None else state["validation_scores_"]
    for name, curve in zip(CURVES, (state["loss_curve_"], scores), strict=True):
        if type(curve) is not list or not all(isinstance(value, float) for value in curve):
            raise ValueError(f"{name} must be a list of float, got {repr(curve)}.")
    if not state["best_epoch_"] <= state["n_iter_"] == len(state["loss_curve_"]):
        raise ValueError(
            f"best_epoch_={state['best_epoch_']}, n_iter_={state['n_iter_']} and {len(state['loss_curve_'])} values in "
            "loss_curve_ do not belong together."
        )


def _check_stream(stream: Any) -> None:
    """Check the networks and the random states in the state of `partial_fit`."""
    if isinstance(stream, dict):
        for name in ("before", "preferred"):
            if stream.get(name) is not None:
                check_network_dict(stream[name])
        for name in ("random", "seeds"):
            check_twister(stream.get(name), f"{STREAM}[{name!r}]")


def check_detector(state: dict) -> None:
    """Check that the attributes of a fitted detector are consistent with its autoencoder.

    Raises
    ------
    ValueError
        If they are not.
    """
    offset, n_features = state["offset_"], getattr(state["estimator_"], "n_features_in_", None)
    # A pipeline whose first step accepts texts or data frames may not have a number of features.
    differs = n_features is not None and state["n_features_in_"] != n_features
    if not isinstance(state["estimator_"], BaseEstimator) or differs:
        raise ValueError(
            f"n_features_in_ is {state['n_features_in_']!r}, but estimator_ has {n_features} and is of type "
            f"{type(state['estimator_']).__name__}."
        )
    if not isinstance(offset, float) or np.isnan(offset):
        raise ValueError(f"offset_ must be a float that is a number, got {repr(offset)}.")


def check_network_dict(network: Any) -> Architecture:
    """Check the architecture, arrays and history of a network, as returned by `net_to_dict`.

    The network is built without allocating memory.

    Parameters
    ----------
    network : dict
        Architecture, arrays and history of a network.

    Returns
    -------
    Architecture
        Architecture of the network.

    Raises
    ------
    ValueError
        If the architecture or the history is not valid, an array is missing, unknown, or has another shape or dtype
        than in the architecture, or an array has NaN.
    """
    check_names(network, "the network", ("architecture", "arrays", "history", "projection"))
    arrays, history = network["arrays"], network["history"]
    if not isinstance(arrays, dict) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("the arrays of the network must be a dict of arrays only.")
    if not _is_history(history):
        raise ValueError("the history of the network must have one entry per epoch, as a list or as columns.")
    _check_projection(network["projection"])
    described = network["architecture"]
    if isinstance(described, dict) and isinstance(described.get("module"), torch.nn.Module):
        return Architecture(**described)  # a custom module, which can only come from a pickle
    architecture = _checked_architecture(described, arrays)
    check_names(arrays, "the network", shapes := _shapes(architecture, arrays))
    for name, array in arrays.items():
        found = array.dtype.name, array.shape
        if found != shapes[name]:
            raise ValueError(f"array {name!r} has {found}, but the architecture asks for {shapes[name]}.")
        if array.dtype.kind == "f" and np.isnan(array).any():
            n_wrong = int(np.isnan(array).sum())
            raise ValueError(f"array {name!r} has NaN in {n_wrong} of {array.size} values, but none is allowed.")
    return architecture


def _check_projection(projection: Any) -> None:
    """Check the description of the projection."""
    check_names(projection, "the projection", ("n_steps", "loss", "penalties", "incomplete"))
    named: list[tuple[Any, Any]] = [
        (projection["loss"], LOSSES),
        *((one, REGULARIZERS) for one in projection["penalties"] or ()),
    ]
    known = all(
        isinstance(part, BaseEstimator)
        or callable(part)
        or (type(part) is list and len(part) == 2 and part[0] in table and type(part[1]) is dict)
        for part, table in named
    )
    n_steps = projection["n_steps"]
    if not known or type(n_steps) is not int or n_steps < 0 or type(projection["incomplete"]) is not bool:
        raise ValueError(f"the projection must have steps, a loss and penalties, got {repr(projection)}.")


def check_names(found: Any, what: str, required: Any, optional: Any = ()) -> None:
    """Check that a dict has all required keys, and no other keys than the required and optional ones.

    Raises
    ------
    ValueError
        If it does not, or is not a dict.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{what} must be a dict, got {type(found).__name__}.")
    missing = [name for name in required if name not in found]
    unknown = [name for name in found if name not in required and name not in optional]
    if missing or unknown:
        raise ValueError(
            f"{what} lacks {', '.join(map(repr, missing[:5])) or 'nothing'} and has "
            f"{', '.join(map(repr, unknown[:5])) or 'nothing'} that is unknown."
        )


def _checked_architecture(described: Any, arrays: Mapping[str, NDArray]) -> Architecture:
    """Check each field of an architecture, and return the architecture."""
    known = {field.name: field for field in fields(Architecture)}
    required = [field.name for field in known.values() if field.default is MISSING]
    check_names(described, "the architecture", required, known)
    most_values, most_layers = sum(array.size for array in arrays.values()), len(arrays)
    for name, value in described.items():
        if name in ALLOWED:
            good = any(_is_the_same(value, allowed) for allowed in ALLOWED[name])
        elif name in SIZES:
            good = _is_size(value, most_values)
        elif name in STACKS or (name == "input_shape" and value is not None):
            good = type(value) is tuple and len(value) <= most_layers
            # The sizes are not used if there are no layers.
            most = sys.maxsize if described.get("kind") == "pca" else most_values
            good = good and all(_is_size(width, most) for width in value)
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


def _is_the_same(value: Any, allowed: Any) -> bool:
    """Return whether two values are equal and of the same type; bool of NumPy is a bool, but 1 is not True."""
    types = (bool, np.bool_) if type(allowed) is bool else type(allowed)
    return isinstance(value, types) and value == allowed


def _is_history(history: Any) -> bool:
    """Return whether a history is a list of one dict per epoch, or a dict of columns of the same length."""
    if type(history) is list:
        return all(type(epoch) is dict for epoch in history)
    columns: list[Any] = list(history.values()) if type(history) is dict else [None]
    flat = all(type(column) is list or (isinstance(column, np.ndarray) and column.ndim == 1) for column in columns)
    return flat and len(set(map(len, columns))) <= 1


def _is_size(value: Any, most: int) -> bool:
    """Return whether a value is an int from 1 to a maximum."""
    return type(value) is int and 1 <= value <= most


class _WithoutMemory(TorchFunctionMode):
    """Context in which all tensors are created on the meta device, without memory, even if another one is passed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _shapes(architecture: Architecture, arrays: Mapping[str, NDArray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape of each array of a network, which is built without memory."""
    dtype = getattr(arrays.get("mean"), "dtype", None)
    if dtype not in (np.float64, np.float32):
        raise ValueError(f"the network computes in {dtype}, but only float64 and float32 are allowed.")
    try:
        if architecture.kind == "conv":
            encoder, decoder = architecture.encoder_sizes, architecture.decoder_sizes
            check_images(architecture.input_shape, architecture.n_features, encoder, decoder)
        with torch.device("meta"), _WithoutMemory():
            module = build(architecture, torch.float64 if dtype == np.float64 else torch.float32)
    except BUILD_ERRORS as error:
        raise ValueError(f"the architecture {architecture} cannot be built: {error}") from error
    state = module.state_dict().items()
    return {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in state}
