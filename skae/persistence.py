"""Save estimators to files without pickle, and load them."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from skae._archive import read_archive, write_archive
from skae._autoencoder import AutoEncoderTransformer
from skae._data.array_api import to_numpy
from skae._network.state import check_names, check_network_dict, check_runs
from skae._objectives.losses import LOSSES
from skae._objectives.regularizers import REGULARIZERS
from skae._outliers import AutoEncoderOutlierDetector
from skae._plain import Reader, Writer, short

# Grows when an older skae could not read what a newer one writes.
PROTOCOL = 1
FORMAT = "skae"
PACKAGES = ("numpy", "torch", "scikit-learn", "skorch")
ESTIMATORS = (AutoEncoderTransformer, AutoEncoderOutlierDetector)
# All that a file may name.
CLASSES: dict[str, type[BaseEstimator]] = {
    cls.__name__: cls for cls in (*ESTIMATORS, *LOSSES.values(), *REGULARIZERS.values())
}
NETWORK, OUTPUT = "_network", "_sklearn_output_config"
CONTAINERS = (None, "default", "pandas", "polars")
NUMBERS = ("n_features_in_", "n_components_", "n_iter_", "best_epoch_")
REQUIRED: dict[type, tuple[str, ...]] = {
    AutoEncoderTransformer: (NETWORK, *NUMBERS, "mean_", "loss_curve_", "validation_scores_", "device_"),
    AutoEncoderOutlierDetector: ("estimator_", "offset_", "n_features_in_"),
}


def save(estimator, path):
    """Write an estimator to a file that holds no code: a zip of one JSON document and the arrays.

    The file appears complete or not at all, and takes the place of one that is there. Its size does not depend on the
    number of training samples.

    Parameters
    ----------
    estimator : AutoEncoderTransformer or AutoEncoderOutlierDetector
        Fitted or not.
    path : str or path-like
        Where to; ``.skae`` is the customary ending.

    Raises
    ------
    TypeError
        If ``estimator`` is neither, or if a parameter is code of your own, such as ``module``, a callable ``loss`` or
        ``callbacks``.
    ValueError
        If a parameter is not as described, if the network has NaN, or if the file would exceed 16 GiB.
    OSError
        If the file cannot be written; what was there before stays.

    See Also
    --------
    load : The way back.
    sklearn.pipeline.Pipeline : Can be saved with everything in it by pickle, joblib or skops.

    Notes
    -----
    What `fit` has learned, the parameters and the choice of `set_output` are kept, other attributes are not.
    Code of your own goes through pickle or joblib: what they load must come from somebody you trust.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer, load, save
    >>> X = load_digits().data[:200]
    >>> autoencoder = AutoEncoderTransformer(4, max_epochs=3, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "digits.skae")
    ...     save(autoencoder, path)
    ...     copy = load(path)
    >>> bool((copy.transform(X) == autoencoder.transform(X)).all())
    True
    """
    if type(estimator) not in ESTIMATORS:
        allowed = " or ".join(cls.__name__ for cls in ESTIMATORS)
        raise TypeError(
            f"estimator must be an {allowed}, got {short(estimator)}. Save a pipeline or a subclass of your "
            "own with pickle, joblib or skops."
        )
    writer = Writer(_described)
    described = writer.plain(estimator, "")
    document = {"format": FORMAT, "protocol": PROTOCOL, "versions": _versions(), "estimator": described}
    write_archive(path, document, writer.arrays)


def load(path):
    """Read an estimator that `save` has written.

    No code in the file is run and nothing is unpacked to disk, whoever has written it.

    Parameters
    ----------
    path : str or path-like
        The file.

    Returns
    -------
    AutoEncoderTransformer or AutoEncoderOutlierDetector
        With the parameters and results of the one that was saved, on its device, or on the processor where this machine
        lacks the device.

    Raises
    ------
    ValueError
        If the file is damaged, was not written by `save` or in a later protocol, or holds what no estimator has.
    OSError
        If the file cannot be opened.

    See Also
    --------
    save : Writes such a file.

    Notes
    -----
    The digest in the file tells damage, not forgery: somebody who changes an estimator on purpose can seal it anew.
    What is loaded then is an estimator, but not yours.

    Examples
    --------
    >>> import os, tempfile
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderOutlierDetector, load, save
    >>> X = load_digits().data[:200]
    >>> detector = AutoEncoderOutlierDetector(contamination=0.1, random_state=0).fit(X)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "digits.skae")
    ...     save(detector, path)
    ...     copy = load(path)
    >>> bool((copy.predict(X) == detector.predict(X)).all())
    True
    """
    try:
        document, arrays = read_archive(path)
        _check_protocol(document)
        reader = Reader(arrays, _revived)
        estimator = reader.value(document["estimator"], "estimator")
        if type(estimator) not in ESTIMATORS:
            raise ValueError(f"it holds {short(estimator)}, which is no estimator.")
        reader.finish()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be loaded: {error}") from error
    return estimator


def _versions() -> dict[str, str]:
    """Versions of everything that the numbers may depend on."""
    versions = {"skae": sys.modules["skae"].__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def _check_protocol(document: dict) -> None:
    """Refuse what is written in another way."""
    if document.get("format") != FORMAT:
        raise ValueError(f"its format is {short(document.get('format'))}, but must be {FORMAT!r}.")
    protocol, versions = document.get("protocol"), document.get("versions")
    if type(protocol) is not int or not 1 <= protocol <= PROTOCOL:
        wrote = short(versions.get("skae", "unknown") if isinstance(versions, dict) else "unknown")
        raise ValueError(
            f"it was written in protocol {short(protocol)} by skae {wrote}, but this skae, "
            f"{_versions()['skae']}, reads protocols 1 to {PROTOCOL}. Install a newer skae."
        )
    check_names(document, "the document", ("format", "protocol", "versions", "estimator"))


def _described(value: Any, name: str, writer: Writer) -> dict:
    """An object of one of the known classes: its parameters, and what it has learned."""
    cls = type(value)
    if CLASSES.get(cls.__name__) is not cls:
        raise TypeError(
            f"{name}={short(value)} cannot be saved: a file of skae.save has numbers, strings, arrays, "
            "lists of these, torch's optimizers and skae's own losses and regularizers, but no code. Save the "
            "estimator with pickle or joblib, or, where it is fitted and no longer needs this, replace it first, as "
            "with set_params(callbacks=None)."
        )
    parameters = value.get_params(deep=False)
    state = _state(value, parameters) if cls in ESTIMATORS else {}
    prefix = f"{name}/" if name else ""
    plain = {key: writer.plain(one, f"{prefix}{key}") for key, one in parameters.items()}
    described = {"object": cls.__name__, "parameters": plain}
    if state:
        described["state"] = {key: writer.plain(one, f"{prefix}{key}") for key, one in state.items()}
        _check_state(value, state)
    return described


def _state(estimator: Any, parameters: dict) -> dict:
    """What an estimator has learned, and the output that was chosen."""
    estimator._validate_params()
    cls, everything = type(estimator), estimator.__getstate__()
    fitted = REQUIRED[cls][0] in everything
    return {
        name: to_numpy(value)
        for name, value in everything.items()
        if name == OUTPUT or (fitted and name not in parameters and _is_kept(cls, name))
    }


def _revived(plain: dict, name: str, reader: Reader) -> BaseEstimator:
    """The object that was described, once everything about it is as it must be."""
    check_names(plain, name, ("object", "parameters"), ("state",))
    cls = CLASSES.get(plain["object"]) if isinstance(plain["object"], str) else None
    if cls is None:
        raise ValueError(
            f"{name} is an object of class {short(plain['object'])}, but only {', '.join(CLASSES)} may be."
        )
    check_names(plain["parameters"], f"{cls.__name__}'s parameters", (), cls._get_param_names())
    instance = cls(**{key: reader.value(one, f"{name}/{key}") for key, one in plain["parameters"].items()})
    if cls not in ESTIMATORS:
        check_names(plain, name, ("object", "parameters"))
        return instance
    instance._validate_params()
    if "state" in plain:
        check_names(plain["state"], f"{cls.__name__}'s state", (), plain["state"])
        state = {key: reader.value(one, f"{name}/{key}") for key, one in plain["state"].items()}
        _check_state(instance, state)
        instance.__setstate__({**vars(instance), **state})
        if isinstance(instance, AutoEncoderTransformer) and NETWORK in state:
            check_runs(instance.net_.module_)
    return instance


def _is_kept(cls: type, name: str) -> bool:
    """Whether an attribute is one that `fit` or `set_output` makes, and shadows nothing of the class."""
    fitted = name.isidentifier() and name.endswith("_") and not name.startswith("_") and not hasattr(cls, name)
    return fitted or name == OUTPUT or (name == NETWORK and cls is AutoEncoderTransformer)


def _check_state(estimator: BaseEstimator, state: dict) -> None:
    """Refuse a state that does not belong to an estimator, or not to itself."""
    cls = type(estimator)
    unknown = [name for name in state if not _is_kept(cls, name)]
    if unknown:
        raise ValueError(f"{cls.__name__} has no attribute {unknown[0]!r} that fit makes.")
    if OUTPUT in state:
        check_names(state[OUTPUT], "the output", (), ("transform",))
        if state[OUTPUT].get("transform") not in CONTAINERS:
            raise ValueError(f"the output is {short(state[OUTPUT])}, but must be one of {CONTAINERS}.")
    if set(state) == {OUTPUT}:
        return
    check_names(state, f"{cls.__name__}'s state", REQUIRED[cls], state)
    n_features = _check_transformer(state) if cls is AutoEncoderTransformer else _check_detector(state)
    if "feature_names_in_" in state:
        names = state["feature_names_in_"]
        if not isinstance(names, np.ndarray) or names.dtype.kind != "O" or names.shape != (n_features,):
            raise ValueError(f"feature_names_in_ must be {n_features} strings, got {short(names)}.")


def _check_transformer(state: dict) -> int:
    """Compare the attributes of a fitted autoencoder with its network, and give the number of features."""
    architecture = check_network_dict(state[NETWORK])
    for name in NUMBERS:
        if type(state[name]) is not int or state[name] < 0:
            raise ValueError(f"{name} must be an int of at least 0, got {short(state[name])}.")
    for name in ("n_features", "n_components"):
        attribute = "n_features_in_" if name == "n_features" else "n_components_"
        if state[attribute] != getattr(architecture, name):
            raise ValueError(f"{attribute} is {state[attribute]}, but the network has {getattr(architecture, name)}.")
    mean = state[NETWORK]["arrays"]["mean"]
    if getattr(state["mean_"], "dtype", None) != mean.dtype or not np.array_equal(state["mean_"], mean):
        raise ValueError(f"mean_ is not that of the network: {short(state['mean_'])}.")
    scores = [] if state["validation_scores_"] is None else state["validation_scores_"]
    for name, curve in (("loss_curve_", state["loss_curve_"]), ("validation_scores_", scores)):
        if type(curve) is not list or not all(isinstance(value, float) for value in curve):
            raise ValueError(f"{name} must be a list of float, got {short(curve)}.")
    if not state["best_epoch_"] <= state["n_iter_"] == len(state["loss_curve_"]):
        raise ValueError(
            f"best_epoch_={state['best_epoch_']}, n_iter_={state['n_iter_']} and {len(state['loss_curve_'])} values in "
            "loss_curve_ do not belong together."
        )
    if type(state["device_"]) is not str:
        raise ValueError(f"device_ must be a string, got {short(state['device_'])}.")
    return architecture.n_features


def _check_detector(state: dict) -> int:
    """Compare the attributes of a fitted detector with its autoencoder, and give the number of features."""
    estimator, offset, n_features = (state[name] for name in REQUIRED[AutoEncoderOutlierDetector])
    if type(estimator) not in ESTIMATORS:
        raise ValueError(f"estimator_ must be an autoencoder, got {short(estimator)}.")
    check_is_fitted(estimator)
    if type(n_features) is not int or n_features != estimator.n_features_in_:
        raise ValueError(f"n_features_in_ is {short(n_features)}, but the autoencoder has {estimator.n_features_in_}.")
    if type(offset) is not float or np.isnan(offset):
        raise ValueError(f"offset_ must be a float that is a number, got {short(offset)}.")
    return n_features
