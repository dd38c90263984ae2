"""Conversion of arrays that follow the array API standard to NumPy and back."""

from typing import Any

import numpy as np
import torch
from sklearn import get_config
from sklearn.utils import _array_api

# Floating-point dtypes that are kept. Other dtypes are converted to the first.
FLOAT_DTYPES = (np.float64, np.float32)


def is_foreign(X: Any) -> bool:
    """Return whether X follows the array API standard and is neither a NumPy array nor a torch tensor."""
    return hasattr(X, "__array_namespace__") and not isinstance(X, np.ndarray | np.generic | torch.Tensor)


def to_numpy(X: Any) -> Any:
    """Convert an array or tensor to NumPy, without a copy if possible; return other objects unchanged."""
    if isinstance(X, torch.Tensor):
        return X.detach().cpu().numpy()
    return _array_api._convert_to_numpy(X, X.__array_namespace__()) if is_foreign(X) else X


def asarray_like(values: np.ndarray, X: Any) -> Any:
    """Convert a NumPy array to the array library and device of X."""
    if isinstance(X, torch.Tensor):
        return torch.from_numpy(values).to(X.device)
    return X.__array_namespace__().asarray(values, device=X.device) if is_foreign(X) else values


def float_dtypes(X: Any) -> tuple:
    """Return the floating-point dtypes that are kept; other dtypes are converted to the first.

    With ``array_api_dispatch`` they are dtypes of the array library of X.
    """
    if not get_config()["array_api_dispatch"] or not (isinstance(X, torch.Tensor) or is_foreign(X)):
        return FLOAT_DTYPES
    namespace = _array_api.get_namespace(X)[0]
    on_mps = isinstance(X, torch.Tensor) and X.device.type == "mps"  # which does not support float64
    return (namespace.float32,) if on_mps else (namespace.float64, namespace.float32)


def is_float64(X: Any) -> bool:
    """Return whether an array or tensor has the dtype float64."""
    return X.dtype == (torch.float64 if isinstance(X, torch.Tensor) else np.float64)


def check_kind(X: Any, estimator: Any, attribute: str, method: str) -> None:
    """Check that X has the array library and device of the arrays of `fit`, with ``array_api_dispatch``.

    scikit-learn provides the check from version 1.9 on; earlier versions do nothing.
    """
    check = getattr(_array_api, "check_same_namespace", None)
    if check is not None and get_config()["array_api_dispatch"]:
        check(X, estimator, attribute=attribute, method=method)
