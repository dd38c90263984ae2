"""Version and validation of the states of fitted estimators and their networks."""

import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import fields
from reprlib import repr
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from torch.overrides import TorchFunctionMode

from skae._data.array_api import to_numpy
from skae._network.architecture import ACTIVATIONS, Architecture
from skae._network.scaling import build
from skae._objectives.losses import Loss
from skae._objectives.regularizer import Regularizer

# Increased whenever the content or the meaning of states changes.
FORMAT_VERSION = 5
VERSION, WRITER = "_format_version", "_skae_version"
# Whether a state is for `skae.save`, which saves neither callbacks nor the array library of X in `fit`.
IN_FILE: ContextVar[bool] = ContextVar("IN_FILE", default=False)
NETWORK, STREAM = "_network", "_stream"
NUMBERS = ("n_features_in_", "n_samples_", "n_components_", "n_iter_", "best_epoch_")
# Attributes of fitted autoencoders that `sklearn.decomposition.PCA` also has, and of autoencoders and detectors.
OF_PCA = ("components_", "explained_variance_", "explained_variance_ratio_", "noise_variance_", "n_samples_")
OF_TRANSFORMER = (
    NETWORK,
    *NUMBERS,
    "mean_",
    *OF_PCA,
    "loss_curve_",
    "validation_scores_",
    "validation_epochs_",
    "device_",
)
CURVES = ("loss_curve_", "validation_scores_")
OF_DETECTOR = ("estimator_", "codes_", "n_neighbors_", "offset_", "n_features_in_")
# Number of integers in the state of the Mersenne Twister of NumPy.
TWISTER_SIZE = 624
LINKS = ("identity", "sigmoid", "exp")
ALLOWED: dict[str, tuple] = {
    "activation": tuple(ACTIVATIONS),
    "kind": ("pca", "dense", "tied", "conv"),
    "normalization": (None, "batch", "layer"),
    "link": LINKS,
    "module": (None,),
    "module_needs": ((),),
    "linear_skip": (False, True, np.False_, np.True_),
    "variational": (False, True),
    "fills": (False, True),
}


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
    for name in CURVES:
        curve = [] if state[name] is None else state[name]
        if type(curve) is not list or not all(isinstance(value, float) for value in curve):
            raise ValueError(f"{name} must be a list of float, got {repr(curve)}.")
    n_losses = len(state["loss_curve_"])
    if not state["best_epoch_"] <= state["n_iter_"] == n_losses:
        raise ValueError(
            f"best_epoch_={state['best_epoch_']}, n_iter_={state['n_iter_']} and {n_losses} values in loss_curve_ do "
            "not belong together."
        )
    if type(state["device_"]) is not str:
        raise ValueError(f"device_ must be a string, got {repr(state['device_'])}.")
    _check_stream(state.get(STREAM))


def _check_stream(stream: Any) -> None:
    """Check the networks and the random states in the state of `partial_fit`."""
    if isinstance(stream, dict):
        for name in ("before", "preferred"):
            if stream.get(name) is not None:
                check_network_dict(stream[name])
        for name in ("random", "seeds"):
            check_twister(stream.get(name), f"{STREAM}[{name!r}]")


def check_detector(state: dict, autoencoder: Any) -> None:
    """Check that the attributes of a fitted detector are consistent with its estimator, which ends with an autoencoder.

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
    codes, n_neighbors = to_numpy(state["codes_"]), state["n_neighbors_"]
    if codes is None and n_neighbors is None:
        return
    width = getattr(autoencoder, "n_components_", 0)
    good = isinstance(codes, np.ndarray) and codes.dtype.kind == "f" and codes.ndim == 2 and codes.shape[1] == width
    if not (good and np.isfinite(codes).all() and type(n_neighbors) is int and 1 <= n_neighbors <= len(codes)):
        raise ValueError(
            f"codes_ must be floats of shape (n, {width}), of which n_neighbors_ are used, but {repr(codes)} and "
            f"{repr(n_neighbors)} were found."
        )


def check_network_dict(network: Any) -> Architecture:
    """Check the architecture, arrays and projection of a network, as returned by `net_to_dict`.

    Parameters
    ----------
    network : dict
        Architecture, arrays, history and projection of a network.

    Returns
    -------
    Architecture
        Architecture of the network.

    Raises
    ------
    ValueError
        If the architecture or the projection is not valid, an array is missing, unknown, or has another shape or dtype
        than in the architecture, or an array has NaN.
    """
    check_names(network, "the network", ("architecture", "arrays", "history", "projection"))
    arrays, described, projection = network["arrays"], network["architecture"], network["projection"]
    if not isinstance(arrays, dict) or not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("the arrays of the network must be a dict of arrays only.")
    _check_projection(projection)
    if isinstance(described, dict) and isinstance(described.get("module"), torch.nn.Module):
        return Architecture(**described)  # a custom module, which can only come from a pickle
    architecture = _checked_architecture(described, arrays)
    shapes = _shapes(architecture, arrays)
    check_names(arrays, "the network", shapes)
    for name, array in arrays.items():
        found = array.dtype.name, array.shape
        if found != shapes[name]:
            raise ValueError(f"array {name!r} has {found}, but the architecture asks for {shapes[name]}.")
        if array.dtype.kind == "f" and np.isnan(array).any():
            n_wrong = int(np.isnan(array).sum())
            raise ValueError(f"array {name!r} has NaN in {n_wrong} of {array.size} values, but none is allowed.")
    return architecture


def _check_projection(projection: Any) -> None:
    """Check the description of a projection. Losses and regularizers in lists are checked where they are built."""
    check_names(projection, "the projection", ("n_steps", "loss", "penalties", "incomplete"))
    known = all(isinstance(part, list | Loss | Regularizer) for part in (projection["loss"], *projection["penalties"]))
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
    check_names(described, "the architecture", [field.name for field in fields(Architecture)])
    # PCA alone does not use the sizes of hidden layers.
    most = sys.maxsize if described["kind"] == "pca" else sum(array.size for array in arrays.values())
    for name, value in described.items():
        allowed: Any = ALLOWED.get(name, f"sizes up to the {most} values of its arrays, at most {len(arrays)}")
        if name == "link" and type(value) is tuple:
            allowed, good = "inverse links of blocks that have each column once", _divides(value, described)
        elif name in ALLOWED:
            good = any(isinstance(value, type(one)) and value == one for one in allowed)
        elif name in ("n_dropped", "n_outputs"):
            allowed, good = f"integers from 0 to {most}", type(value) is int and 0 <= value <= most
        elif name == "dropout":
            allowed, good = "floats from 0 to below 1", type(value) is float and 0.0 <= value < 1.0
        else:
            sizes = value if type(value) is tuple else (value,)
            good = len(sizes) <= len(arrays) and all(type(size) is int and 1 <= size <= most for size in sizes)
            good |= name == "input_shape" and value is None
        if not good:
            raise ValueError(f"the architecture has {name}={value!r}, but allowed are {allowed}.")
    return Architecture(**described)


def _divides(link: tuple, described: dict) -> bool:
    """Return whether an inverse link of blocks has each column of an architecture once, in variables that fit."""
    columns: list[int] = []
    for block in link:
        if type(block) is not tuple or len(block) != 3 or block[0] not in (*LINKS, "softmax"):
            return False
        of_block, sizes = block[1:]
        if not all(type(part) is tuple and all(type(one) is int for one in part) for part in (of_block, sizes)):
            return False
        if sum(sizes) != (len(of_block) if block[0] == "softmax" else 0) or min(sizes, default=1) < 1:
            return False
        columns.extend(of_block)
    return type(described["n_features"]) is int and sorted(columns) == list(range(described["n_features"]))


class _WithoutMemory(TorchFunctionMode):
    """Context in which all tensors are created on the meta device, without memory, even if another one is passed."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _shapes(architecture: Architecture, arrays: Mapping[str, NDArray]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and shape of each array of a network, which is built without memory."""
    dtype = torch.float64 if "mean" in arrays and arrays["mean"].dtype == np.float64 else torch.float32
    try:
        with torch.device("meta"), _WithoutMemory():
            state = build(architecture, dtype).state_dict().items()
    except Exception as error:  # torch raises errors of many kinds
        raise ValueError(f"the architecture {architecture} cannot be built: {error}") from error
    return {name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in state}
