"""Convert arrays and tensors of the array API standard to numpy and back."""

from typing import Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.utils import _array_api

FLOAT_DTYPES = (np.float64, np.float32)


def is_foreign(X: Any) -> bool:
    """Whether X follows the array API and is neither numpy's nor torch's."""
    return hasattr(X, "__array_namespace__") and not isinstance(X, np.ndarray | np.generic | torch.Tensor)


def to_numpy(X: Any) -> Any:
    """A numpy array of what an array or tensor holds, without a copy where that is possible; others stay."""
    if isinstance(X, torch.Tensor):
        return X.detach().cpu().numpy()
    return _array_api._convert_to_numpy(X, X.__array_namespace__()) if is_foreign(X) else X


def asarray_like(values: np.ndarray, X: Any) -> Any:
    """An array of the kind of X and on its device."""
    if isinstance(X, torch.Tensor):
        return torch.from_numpy(values).to(X.device)
    return X.__array_namespace__().asarray(values, device=X.device) if is_foreign(X) else values


def float_dtypes(X: Any) -> tuple:
    """Floating dtypes that are kept, the first for all others: those of the kind of X where dispatch is on."""
    if not get_config()["array_api_dispatch"] or not (isinstance(X, torch.Tensor) or is_foreign(X)):
        return FLOAT_DTYPES
    namespace = _array_api.get_namespace(X)[0]
    on_mps = isinstance(X, torch.Tensor) and X.device.type == "mps"  # has no double precision
    return (namespace.float32,) if on_mps else (namespace.float64, namespace.float32)


def is_float64(X: Any) -> bool:
    """Whether an array or tensor has double precision."""
    return X.dtype == (torch.float64 if isinstance(X, torch.Tensor) else np.float64)


def check_kind(X: Any, estimator: Any, attribute: str, method: str) -> None:
    """Refuse arrays of another kind or device than those of `fit`, where dispatch is on; for scikit-learn 1.9."""
    check = getattr(_array_api, "check_same_namespace", None)
    if check is not None and get_config()["array_api_dispatch"]:
        check(X, estimator, attribute=attribute, method=method)
