"""Validation of X, sample weights, groups and missing values."""

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from skae._data.array_api import check_kind, float_dtypes, to_numpy
from skae._data.containers import Samples, StoredSamples, as_samples, chunks_of, is_large, lies_in_file, map_chunks
from skae._data.duplicates import N_BUCKETS
from skae._data.ranks import ALONE, Ranks
from skae._data.sample import Sample

# Number of values that are checked at a time, which limits the memory. No measurement of this value is recorded.
CHECKED_VALUES = 1_000_000


def values_missing(sample: Sample) -> bool:
    """Return whether any value is NaN."""
    return any(np.isnan(sample[chunk]).any() for chunk in chunks_of(sample, CHECKED_VALUES))


def check_features(sample: Sample) -> None:
    """Check that each feature has at least one value that is not missing.

    Raises
    ------
    ValueError
        If all values of a feature are missing.
    """
    observed = np.zeros(sample.shape[1], dtype=bool)
    for chunk in chunks_of(sample, CHECKED_VALUES):
        observed |= (~np.isnan(sample[chunk])).any(axis=0)
    empty = np.flatnonzero(sample.ranks.max(observed.astype(int)) == 0)
    if len(empty) > 0:
        raise ValueError(
            f"Feature {empty[0]} of X has no observed values, one of {len(empty)} such features among {len(observed)}. "
            "Each feature needs at least one value. Drop these features, for example with SimpleImputer."
        )


def n_present(X: Samples) -> NDArray:
    """Count the values of each sample that are not missing; the count is 1 if there are none, to divide by it.

    Returns
    -------
    ndarray of shape (n_samples,)
        The counts as floating-point numbers.
    """
    return np.maximum(map_chunks(lambda samples: (~np.isnan(samples)).sum(axis=1), X, CHECKED_VALUES), 1.0)


def check_groups(X: Any, groups: Any, ranks: Ranks = ALONE) -> NDArray:
    """Validate the groups of the samples and convert them to integers from 0.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        The samples.
    groups : array-like of shape (n_samples,)
        Group labels.
    ranks : Ranks
        The processes that have samples.

    Returns
    -------
    ndarray of int of shape (n_samples,)
        Labels from 0, in the order of the sorted group labels. In several processes, one of 65,536 numbers that
        depends on the group label alone.

    Raises
    ------
    ValueError
        If there is not one label for each sample, or there are fewer than two groups.
    """
    groups = column_or_1d(to_numpy(groups), warn=True)
    if len(groups) != X.shape[0]:
        raise ValueError(
            f"groups has {len(groups)} labels, but X has {X.shape[0]} samples. Pass one label for each sample."
        )
    names, labels = np.unique(groups, return_inverse=True)
    if ranks.size > 1:
        hashed = np.array([zlib.crc32(str(name).encode()) % N_BUCKETS for name in names], dtype=np.int64)
        if ranks.max(hashed.max(initial=-1)) == -ranks.max(-hashed.min(initial=N_BUCKETS)):
            raise ValueError(
                "groups has a single label in all processes, but at least 2 groups are needed, one of which is held "
                "out. Pass groups=None if the samples are independent."
            )
        return hashed[labels]
    if len(names) < 2:
        raise ValueError(
            f"groups has the single label {str(names[0])!r} for all {len(groups)} samples, but at least 2 groups are "
            "needed, one of which is held out. Pass groups=None if the samples are independent."
        )
    return labels


def validated_samples(estimator: Any, X: Any, method: str) -> Any:
    """Validate X for a method of a fitted estimator, and return it as floating-point samples, dense or sparse."""
    samples = validate_samples(estimator, X, reset=False)
    check_kind(X, estimator, "mean_", method)
    check_imputes(estimator, samples)
    return samples


def validate_samples(estimator: Any, X: Any, **options: Any) -> Any:
    """Validate X and return it as floating-point samples, dense or sparse.

    Large data in a file are checked a limited number of samples at a time, and stay in the file.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Its parameter ``allow_nan`` says whether X may contain NaN.
    X : {array-like, sparse matrix, tensor or array in a file} of shape (n_samples, n_features)
        The samples.
    **options : dict
        Passed to `sklearn.utils.validation.validate_data`.

    Returns
    -------
    array, tensor, SparseSamples or StoredSamples
        The samples.

    Raises
    ------
    ValueError
        If X is not valid input of the estimator.
    """
    X = X.detach() if isinstance(X, torch.Tensor) else X
    checks = {"dtype": float_dtypes(X), "ensure_all_finite": "allow-nan" if estimator.allow_nan else True}
    if not (lies_in_file(X) and len(X.shape) == 2 and is_large(X)):
        return as_samples(validate_data(estimator, X, accept_sparse="csr", **checks, **options))
    validate_data(estimator, X, skip_check_array=True, reset=options.get("reset", True))
    for chunk in chunks_of(X, CHECKED_VALUES):
        check_array(X[chunk], estimator=estimator, input_name="X", **checks)
    return StoredSamples(X)


def check_sample_weight(X: Any, sample_weight: Any, ranks: Ranks = ALONE) -> NDArray | None:
    """Validate sample weights and return them as float64; return None if there are none.

    Raises
    ------
    ValueError
        If there is not one finite, non-negative weight for each sample, or all weights are zero.
    """
    given = ranks.any(sample_weight is not None)
    if given and X.shape[0] == 0:
        sample_weight = np.zeros(0)
    if given != (sample_weight is not None):
        raise ValueError("sample_weight was passed in some processes, but not in this one. Pass it in all or in none.")
    if sample_weight is None:
        return None
    if ranks.size > 1:
        weights = _own_weights(X, sample_weight)
        if not ranks.any(bool(weights.any())):
            raise ValueError("sample_weight must have at least one non-zero number, but all are zero in all processes.")
        return weights
    # Only the number of samples of X is needed, and X may be of another array library.
    weights = _check_sample_weight(
        to_numpy(sample_weight), np.empty((X.shape[0], 0)), dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():  # scikit-learn raises this error from version 1.9 on
        raise ValueError(f"sample_weight must have at least one non-zero number, but all {len(weights)} are zero.")
    return weights


def _own_weights(X: Any, sample_weight: Any) -> NDArray:
    """Validate the weights of the samples of one of several processes, which may all be zero."""
    weights = column_or_1d(to_numpy(sample_weight)).astype(np.float64)
    if len(weights) != X.shape[0] or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError(
            f"sample_weight has {len(weights)} weights for the {X.shape[0]} samples of this process, from "
            f"{weights.min(initial=np.inf):g} to {weights.max(initial=-np.inf):g}. Pass one finite, non-negative "
            "weight for each sample."
        )
    return weights


def check_imputes(estimator: Any, samples: Any) -> None:
    """Raise a ValueError if samples have missing values that the estimator cannot impute."""
    imputes = estimator.net_.module_.filling is not None
    if estimator.allow_nan and not imputes and values_missing(Sample(to_numpy(samples))):
        raise ValueError(
            f"Input X contains NaN, but this {type(estimator).__name__} was fitted with allow_nan=False, before "
            "allow_nan=True was set, and cannot impute missing values. Call fit again with allow_nan=True."
        )
