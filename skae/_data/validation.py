"""Validate X, sample weights, groups and missing values."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.validation import _check_sample_weight, validate_data

from skae._data.array_api import check_kind, float_dtypes, to_numpy
from skae._data.containers import (
    Samples,
    SparseSamples,
    StoredSamples,
    as_samples,
    chunks_of,
    is_large,
    lies_in_file,
)
from skae._data.sample import Sample

# Values of a file that are checked at a time.
CHECKED_VALUES = 1_000_000


def values_missing(sample: Sample) -> bool:
    """Whether any value is NaN."""
    if isinstance(sample.X, SparseSamples):
        return bool(np.isnan(sample.X.matrix.data).any())
    return any(np.isnan(sample[chunk]).any() for chunk in chunks_of(sample, CHECKED_VALUES))


def check_features(sample: Sample) -> None:
    """Refuse features without any value."""
    there = np.zeros(sample.shape[1], dtype=bool)
    for chunk in chunks_of(sample, CHECKED_VALUES):
        there |= (~np.isnan(sample[chunk])).any(axis=0)
    empty = np.flatnonzero(~there)
    if len(empty) > 0:
        raise ValueError(
            f"Feature {empty[0]} of X has no value at all, nor have {len(empty) - 1} other features: there is nothing to "
            "learn about it. Drop what is empty, for example with SimpleImputer."
        )


def n_present(X: Samples) -> NDArray:
    """Number of values that each sample has, at least one."""
    return np.concatenate(
        [np.maximum((~np.isnan(X[chunk])).sum(axis=1), 1.0) for chunk in chunks_of(X, CHECKED_VALUES)]
    )


def check_groups(X, groups):
    """Number the groups of the samples of X from zero."""
    groups = column_or_1d(to_numpy(groups), warn=True)
    if len(groups) != X.shape[0]:
        raise ValueError(
            f"groups has {len(groups)} labels, but X has {X.shape[0]} samples. Pass one label for each sample."
        )
    names, labels = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"groups has the single label {str(names[0])!r} for all {len(groups)} samples, but at least 2 groups are "
            "needed, one of which is held out. Pass groups=None if the samples are independent."
        )
    return labels


def validated_samples(estimator, X, method):
    """Samples for a method of a fitted estimator, dense or sparse, in floating point."""
    samples = validate_samples(estimator, X, reset=False)
    check_kind(X, estimator, "mean_", method)
    return samples


def validate_samples(estimator, X, **options):
    """Samples in floating point, dense or sparse; of a large file as they lie, checked a few at a time."""
    X = X.detach() if isinstance(X, torch.Tensor) else X
    checks = {"dtype": float_dtypes(X), "ensure_all_finite": "allow-nan" if estimator.allow_nan else True}
    if not (lies_in_file(X) and len(X.shape) == 2 and is_large(X)):
        samples = as_samples(validate_data(estimator, X, accept_sparse="csr", **checks, **options))
    else:
        validate_data(estimator, X, skip_check_array=True, reset=options.get("reset", True))
        for chunk in chunks_of(X, CHECKED_VALUES):
            check_array(X[chunk], estimator=estimator, input_name="X", **checks)
        samples = StoredSamples(X)
    if not options.get("reset", True):
        _check_fills(estimator, samples)
    return samples


def check_sample_weight(X, sample_weight):
    """Weights of samples as floating-point numbers; None where there are none."""
    if sample_weight is None:
        return None
    # Of X only the number of samples is asked for: it may be of another kind.
    weights = _check_sample_weight(
        to_numpy(sample_weight), np.empty((X.shape[0], 0)), dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():  # scikit-learn refuses that itself from 1.9 on
        raise ValueError(f"sample_weight must have at least one non-zero number, but all {len(weights)} are zero.")
    return weights


def _check_fills(estimator, samples):
    """Refuse missing values where `fit` has not learned what to expect of them."""
    learnt = estimator.net_.module_.filling is not None
    if estimator.allow_nan and not learnt and values_missing(Sample(to_numpy(samples))):
        raise ValueError(
            f"Input X contains NaN, but this {type(estimator).__name__} was fitted with allow_nan=False, before "
            "allow_nan=True was set: it does not know what to fill in. Call fit again with allow_nan=True."
        )
