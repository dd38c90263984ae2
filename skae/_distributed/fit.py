"""Fit an estimator to samples in several processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torch.distributed as dist
from sklearn.base import _fit_context
from sklearn.utils import check_random_state

from skae._autoencoder import AutoEncoderTransformer
from skae._data.ranks import ALONE
from skae._distributed.group import GroupRanks
from skae._distributed.snapshot import Snapshots
from skae._objectives.regularizers import Sparse, as_regularizers, needs_all, needs_y
from skae._utils import draw_seed


def fit_collectively(
    estimator: AutoEncoderTransformer, X_shard: Any, weight: Any, groups: Any, group: Any, snapshot: str | Path | None
) -> AutoEncoderTransformer:
    """Fit an estimator as `skae.distributed.fit`."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "skae.distributed.fit needs a process group. Call torch.distributed.init_process_group first, as in a "
            "script that torchrun starts, or use skae.distributed.launch."
        )
    ranks = GroupRanks(group)
    with ranks.together():
        check_supported(estimator)
        ranks.stage("reading of the shards")
        X = _with_features(own_samples(X_shard), ranks)
        with _agreed_parameters(estimator, ranks) as params:
            journal = None
            if snapshot is not None:
                if estimator.callbacks:
                    raise ValueError(
                        f"callbacks={estimator.callbacks!r} have a state of their own, which snapshots do not contain. "
                        "Pass snapshot=None, or max_restarts=0 to skae.distributed.launch, or no callbacks."
                    )
                journal = Snapshots(snapshot, ranks, (params, ranks.of_each(np.shape(X)[0]).tolist()))
            _validated_fit(estimator, X, None, weight, groups, ranks if ranks.size > 1 else ALONE, journal)
        ranks.stage("end")
        _equalize(estimator, ranks)
        if journal is not None:
            journal.remove()
    return estimator


@_fit_context(prefer_skip_nested_validation=True)
def _validated_fit(estimator: AutoEncoderTransformer, *args: Any) -> None:
    """Validate the parameters, and fit."""
    estimator._fit(*args)


def own_samples(X_shard: Any) -> Any:
    """Return the samples of this process: a function returns them, chunks are concatenated, and None is none."""
    X = X_shard() if callable(X_shard) else X_shard
    if X is not None and not isinstance(X, Iterator):
        return X
    chunks = [] if X is None else list(X)
    if not chunks:
        return np.empty((0, 0))
    return scipy.sparse.vstack(chunks).tocsr() if scipy.sparse.issparse(chunks[0]) else np.concatenate(chunks)


def check_supported(estimator: Any) -> None:
    """Check that the estimator can be fitted to samples in several processes.

    Raises
    ------
    TypeError
        If it is not an `AutoEncoderTransformer`.
    ValueError
        If a parameter needs all samples in one process.
    """
    if not isinstance(estimator, AutoEncoderTransformer):
        raise TypeError(
            f"skae.distributed.fit takes an AutoEncoderTransformer, got {type(estimator).__name__}. Fit that one, and "
            "use its codes or score_samples."
        )
    refused = None
    if needs_all(estimator.regularizer) or needs_y(estimator.regularizer):
        refused = f"regularizer={estimator.regularizer!r}", "compares all samples with each other or needs their labels"
    elif any(isinstance(one, Sparse) for one in as_regularizers(estimator.regularizer)):
        refused = f"regularizer={estimator.regularizer!r}", "compares the codes of all samples of a batch"
    elif estimator.normalization == "batch":
        refused = "batch normalization", "normalizes by the samples of one process"
    elif hasattr(estimator.validation_split, "split"):
        refused = f"validation_split={estimator.validation_split!r}", "splits all samples in one process"
    if refused is not None:
        raise ValueError(
            f"{refused[0]} {refused[1]}, and is not available for samples in several processes. Choose another one, "
            'such as normalization="layer" or validation_split=None, or call the fit method with all samples.'
        )


def _with_features(X: Any, ranks: GroupRanks) -> Any:
    """Return the samples with the number of features and the dtype of all processes."""
    ranks.stage("comparison of the shards")
    count, n_features = np.shape(X) if len(np.shape(X)) == 2 else (-1, 0)
    dtype = np.dtype(np.float32 if getattr(X, "dtype", None) == np.float32 else np.float64)
    shards = ranks.gather_objects((count, n_features, dtype.name, [str(name) for name in getattr(X, "columns", ())]))
    if any(one[0] < 0 for one in shards):
        rank = next(rank for rank, one in enumerate(shards) if one[0] < 0)
        raise ValueError(f"X_shard of rank {rank} must be of shape (n_samples, n_features). Reshape it.")
    full = [(rank, *one) for rank, one in enumerate(shards) if one[0] > 0]
    if sum(one[1] for one in full) < 2:
        raise ValueError(
            f"The {ranks.size} processes have {sum(one[1] for one in full)} samples together, but at least 2 are "
            "required. Pass more samples."
        )
    for index, what in ((2, "features"), (4, "feature names")):
        other = next((one for one in full if one[index] != full[0][index]), None)
        if other is not None:
            raise ValueError(
                f"X_shard has the {what} {full[0][index]} on rank {full[0][0]}, but {other[index]} on rank {other[0]}. "
                "Pass shards with the same features."
            )
    wanted = np.dtype("float32") if all(one[3] == "float32" for one in full) else np.dtype("float64")
    if count == 0:
        return np.empty((0, full[0][2]), wanted)
    return X.astype(wanted) if dtype != wanted and hasattr(X, "astype") else X


@contextmanager
def _agreed_parameters(estimator: Any, ranks: GroupRanks) -> Iterator[dict]:
    """Draw the seed in one process, and let one process report, inside this block. Yield the parameters.

    Raises
    ------
    ValueError
        If the parameters of two processes differ.
    """
    # Those that can be compared.
    given = {name: one for name, one in estimator.get_params().items() if isinstance(one, int | float | str | None)}
    del given["verbose"]
    params = ranks.gather_objects(given)
    for rank, others in enumerate(params):
        for name in given:
            if name in others and others[name] != params[0].get(name):
                raise ValueError(
                    f"{name}={others[name]!r} on rank {rank}, but {params[0].get(name)!r} on rank 0. Pass an estimator "
                    "with the same parameters to all processes."
                )
    if estimator.warm_start:
        fitted = ranks.of_each(int(hasattr(estimator, "net_")))
        if fitted.any() and not fitted.all():
            raise ValueError(
                f"warm_start=True, but the estimator is fitted on {fitted.sum()} of {ranks.size} ranks only. Pass the "
                "same estimator to all processes."
            )
        if fitted.all():
            ranks.sync([*estimator.net_.module_.state_dict().values()])
    random_state, verbose = estimator.random_state, estimator.verbose
    try:
        if not isinstance(random_state, Integral):
            estimator.random_state = int(ranks.first(draw_seed(check_random_state(random_state))))
        estimator.verbose = verbose if ranks.rank == 0 else 0
        yield {**given, "random_state": estimator.random_state}
    finally:
        estimator.random_state, estimator.verbose = random_state, verbose


def _equalize(estimator: Any, ranks: GroupRanks) -> None:
    """Give all processes the weights and attributes of the first one."""
    module = estimator.net_.module_
    ranks.sync([*module.state_dict().values()])
    module.keep_double()
    for name, value in sorted(vars(estimator).items()):
        if name.endswith("_") and not name.startswith("_"):
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                setattr(estimator, name, ranks.first(value))
            elif isinstance(value, torch.Tensor):
                ranks.sync([value])
    for epoch in estimator.net_.history:
        names = sorted(name for name, value in epoch.items() if isinstance(value, bool | int | float))
        values = ranks.first(np.array([float(epoch[name]) for name in names]))
        epoch.update((name, type(epoch[name])(value)) for name, value in zip(names, values, strict=True))
