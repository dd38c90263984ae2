"""Convert a network to plain arrays and back, and check such a description."""

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

# Grows whenever a state would mean something else, or needs something else, than before.
FORMAT_VERSION = 1
VERSION, WRITER = "_format_version", "_skae_version"
# Whether a state is for `skae.save`, which keeps neither callbacks nor the kind of the arrays that `fit` was given.
IN_FILE: ContextVar[bool] = ContextVar("IN_FILE", default=False)
NETWORK, STREAM = "_network", "_stream"
NUMBERS = ("n_features_in_", "n_components_", "n_iter_", "best_epoch_")
# What a fitted autoencoder or detector has.
OF_TRANSFORMER = (NETWORK, *NUMBERS, "mean_", "loss_curve_", "validation_scores_", "device_")
CURVES = ("loss_curve_", "validation_scores_")
OF_DETECTOR = ("estimator_", "offset_", "n_features_in_")
# Numbers in the state of numpy's Mersenne Twister.
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
# What torch raises where sizes make no network.
NO_NETWORK = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


def stamped(state: dict) -> dict:
    """Add the version to a state, and make arrays of its curves, which take a tenth of the room in a file."""
    curves = {name: np.array(state[name]) for name in CURVES if type(state.get(name)) is list}
    state = {**state, **curves}
    if IN_FILE.get():
        state = {name: to_numpy(value) for name, value in state.items() if name != "_skl_callbacks"}
    return {**state, VERSION: FORMAT_VERSION, WRITER: sys.modules["skae"].__version__}


def checked(estimator: BaseEstimator, state: dict, learnt: tuple[str, ...]) -> dict:
    """Return a state without its version, once that and what the state says of parameters and names are right.

    Parameters
    ----------
    estimator : estimator
        To which the state belongs.
    state : dict
        As `stamped` has made it.
    learned : tuple of str
        What a fitted estimator has.

    Raises
    ------
    ValueError
        If the state is of another version or of none, or lacks something.
    """
    cls = type(estimator).__name__
    state = dict(state)
    version, writer = state.pop(VERSION, None), state.pop(WRITER, "unknown")
    if type(version) is not int or version != FORMAT_VERSION:
        raise ValueError(
            f"this {cls} was saved in format {version} by skae {writer}, but this skae, "
            f"{sys.modules['skae'].__version__}, reads format {FORMAT_VERSION}: fit again, or load it with the skae "
            "that has saved it."
        )
    # The names of the features are there before anything is learned from them.
    fitted = any(name in state for name in learnt if name != "n_features_in_")
    required = (*type(estimator)._get_param_names(), *(learnt if fitted else ()))
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
    """Refuse a position that numpy believes, and at which it would read beyond the end of its memory."""
    if type(state) is not tuple or len(state) < 3 or type(state[2]) is not int or not 0 <= state[2] <= TWISTER_SIZE:
        raise ValueError(f"{name} must be the state of a RandomState at a position of 0 to {TWISTER_SIZE}.")


def check_transformer(state: dict) -> None:
    """Compare the attributes of a fitted autoencoder with its network.

    Raises
    ------
    ValueError
        If they do not belong together.
    """
    sizes = check_network_dict(state[NETWORK])
    for name in NUMBERS:
        if type(state[name]) is not int or state[name] < 0:
            raise ValueError(f"{name} must be an int of at least 0, got {repr(state[name])}.")
    for attribute, size in (("n_features_in_", sizes.n_features), ("n_components_", sizes.n_components)):
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
    """Compare the losses and scores with the numbers of epochs."""
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
    """Check the networks and the random states in what `partial_fit` keeps."""
    if isinstance(stream, dict):
        for name in ("before", "preferred"):
            if stream.get(name) is not None:
                check_network_dict(stream[name])
        for name in ("random", "seeds"):
            check_twister(stream.get(name), f"{STREAM}[{name!r}]")


def check_detector(state: dict) -> None:
    """Compare the attributes of a fitted detector with its autoencoder.

    Raises
    ------
    ValueError
        If they do not belong together.
    """
    offset, n_features = state["offset_"], getattr(state["estimator_"], "n_features_in_", None)
    # A pipeline whose first step takes texts or data frames may not know a number of features.
    differs = n_features is not None and state["n_features_in_"] != n_features
    if not isinstance(state["estimator_"], BaseEstimator) or differs:
        raise ValueError(
            f"n_features_in_ is {state['n_features_in_']!r}, but estimator_ has {n_features} and is of type "
            f"{type(state['estimator_']).__name__}."
        )
    if not isinstance(offset, float) or np.isnan(offset):
        raise ValueError(f"offset_ must be a float that is a number, got {repr(offset)}.")


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
    check_names(frozen, "the network", ("architecture", "arrays", "history", "projection"))
    arrays, history = frozen["arrays"], frozen["history"]
    if not isinstance(arrays, dict) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("the arrays of the network must be a dict of arrays, but it holds something else.")
    if not _is_history(history):
        raise ValueError("the history of the network must have one entry an epoch, in a list or in features.")
    described = frozen["architecture"]
    if isinstance(described, dict) and isinstance(described.get("module"), torch.nn.Module):
        return Architecture(**described)  # a network of the user's own, which only a pickle brings
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


def _checked_architecture(described: Any, arrays: Mapping[str, NDArray]) -> Architecture:
    """Return the architecture, after a check of each field and each size."""
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
            # PCA alone has no layers, whatever their sizes would be.
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


def _is_the_same(value: Any, one: Any) -> bool:
    """Whether two values are equal and of one kind: numpy's bool is a bool, but 1 is not True."""
    kinds = (bool, np.bool_) if type(one) is bool else type(one)
    return isinstance(value, kinds) and value == one


def _is_history(history: Any) -> bool:
    """Whether it has one dict an epoch, or features of one length."""
    if type(history) is list:
        return all(type(epoch) is dict for epoch in history)
    features: list[Any] = list(history.values()) if type(history) is dict else [None]
    flat = all(type(one) is list or (isinstance(one, np.ndarray) and one.ndim == 1) for one in features)
    return flat and len(set(map(len, features))) <= 1


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
