"""Values of parameters and attributes as JSON and arrays, and back, each with its type."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skae._archive import DTYPES

TORCH_OPTIMIZERS = {
    name: value
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
}
NOT_FINITE = ("nan", "inf", "-inf")
# Numbers in the state of numpy's Mersenne Twister.
TWISTER_SIZE = 624
Describe = Callable[[Any, str, "Writer"], dict]
Revive = Callable[[dict, str, "Reader"], Any]
_NAMES = ("float", "tuple", "dict", "device", "optimizer", "scalar", "array", "strings", "random_state")
_KINDS = {f"_{name}" for name in _NAMES}


class Writer:
    """Makes JSON of values, and puts arrays aside.

    What JSON has itself stays as it is; everything else is an object whose one name says what it is.

    Parameters
    ----------
    describe : callable
        Makes a JSON object, with more than one name, of what is left, or raises a TypeError.

    Attributes
    ----------
    arrays : dict of ndarray
        The arrays that the JSON refers to.
    """

    def __init__(self, describe: Describe) -> None:
        self.describe = describe
        self.arrays: dict[str, NDArray] = {}

    def plain(self, value: Any, name: str) -> Any:
        """Make JSON of a value; the name is for arrays and errors."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if type(value) is list:
            return self._sequence(value, name)
        if type(value) is tuple:
            return {"tuple": self._sequence(value, name)}
        if type(value) is dict and all(type(key) is str for key in value):
            return {"dict": {key: self.plain(one, f"{name}/{key}") for key, one in value.items()}}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, type) and value in TORCH_OPTIMIZERS.values():
            return {"optimizer": value.__name__}
        if isinstance(value, np.generic | np.ndarray | np.random.RandomState):
            plain = self._of_numpy(value, name)
            if plain is not None:
                return plain
        return self.describe(value, name, self)

    def _sequence(self, values, name):
        return [self.plain(value, f"{name}/{index}") for index, value in enumerate(values)]

    def _of_numpy(self, value, name):
        """The same for what numpy has made; None where it is not plain."""
        if isinstance(value, np.str_):
            return {"scalar": ["str", str(value)]}
        if isinstance(value, np.random.RandomState):
            state = value.get_state(legacy=False)
            is_twister = state["bit_generator"] == "MT19937"
            return {"random_state": self.plain(state, name)["dict"]} if is_twister else None
        if value.dtype.name in DTYPES:
            if isinstance(value, np.generic):
                return {"scalar": [value.dtype.name, self.plain(value.item(), name)]}
            self.arrays[name] = value
            return {"array": name}
        if value.dtype == object and value.ndim == 1 and all(type(one) is str for one in value):
            return {"strings": value.tolist()}
        return None


class Reader:
    """Makes values of JSON and arrays again, and refuses what no `Writer` has written.

    Parameters
    ----------
    arrays : dict of ndarray
        What the JSON refers to.
    revive : callable
        Makes an object of a JSON object with more than one name.
    """

    def __init__(self, arrays: dict[str, NDArray], revive: Revive) -> None:
        self.arrays = dict(arrays)
        self.revive = revive

    def value(self, plain: Any, name: str) -> Any:
        """Make a value of JSON; the name is for errors."""
        if isinstance(plain, list):
            return [self.value(one, f"{name}/{index}") for index, one in enumerate(plain)]
        if not isinstance(plain, dict):
            return plain
        if len(plain) != 1:
            return self.revive(plain, name, self)
        ((kind, content),) = plain.items()
        if f"_{kind}" not in _KINDS:
            raise ValueError(f"{name} is of kind {kind!r}, but only {', '.join(_NAMES)} are known.")
        try:
            return getattr(self, f"_{kind}")(content, name)
        except (TypeError, KeyError, RuntimeError, ArithmeticError) as error:
            raise ValueError(f"{name} is no {kind}: {short(content)}.") from error

    def finish(self) -> None:
        """Refuse arrays to which nothing refers."""
        if self.arrays:
            raise ValueError(f"it has an array {min(self.arrays)!r} to which nothing refers.")

    def _float(self, content, name):
        return float(_one_of(content, NOT_FINITE, name))

    def _tuple(self, content, name):
        return tuple(self.value(_typed(content, list, name), name))

    def _dict(self, content, name):
        return {key: self.value(one, f"{name}/{key}") for key, one in _typed(content, dict, name).items()}

    def _device(self, content, name):
        return torch.device(_typed(content, str, name))

    def _optimizer(self, content, name):
        return TORCH_OPTIMIZERS[_one_of(content, TORCH_OPTIMIZERS, name)]

    def _scalar(self, content, name):
        dtype, value = _typed(content, list, name) if len(content) == 2 else (None, None)
        if _one_of(dtype, (*DTYPES, "str"), name) == "str":
            return np.str_(_typed(value, str, name))
        value = self.value(value, name)
        kind = {"f": float, "b": bool}.get(np.dtype(dtype).kind, int)
        with np.errstate(over="raise"):
            return np.dtype(dtype).type(_typed(value, kind, name))

    def _array(self, content, name):
        if _typed(content, str, name) not in self.arrays:
            raise ValueError(f"{name} refers to an array {content!r}, which is missing, or is referred to twice.")
        return self.arrays.pop(content)

    def _strings(self, content, name):
        values = [_typed(value, str, name) for value in _typed(content, list, name)]
        return np.array(values, dtype=object)

    def _random_state(self, content, name):
        content = self._dict(content, name)
        numbers = _typed(content["state"]["key"], np.ndarray, name)
        position = content["state"]["pos"]
        # Numpy believes these, and would read beyond the end of its memory.
        if type(position) is not int or not 0 <= position <= TWISTER_SIZE:
            raise ValueError(f"{name} is at position {position!r}, but must be at one of 0 to {TWISTER_SIZE}.")
        if content["bit_generator"] != "MT19937" or numbers.shape != (TWISTER_SIZE,) or numbers.dtype != np.uint32:
            raise ValueError(f"{name} must be of MT19937, with {TWISTER_SIZE} numbers of uint32.")
        random_state = np.random.RandomState(0)
        random_state.set_state(content)
        return random_state


def _typed(value, kind, name):
    """The value, if it is of exactly this type."""
    if type(value) is not kind:
        raise ValueError(f"{name} must be {kind.__name__}, got {short(value)}.")
    return value


def _one_of(value, allowed, name):
    """The value, if it is one of some strings."""
    if type(value) is not str or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {short(value)}.")
    return value


def short(value: Any) -> str:
    """How a value looks, at most a line of it."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
