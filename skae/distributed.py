"""Fit an autoencoder to samples in several processes, on one machine or many."""

from pathlib import Path
from typing import Any

# Its functions have the default process group as a default value, so that a group that exists when torch first imports
# it, as its optimizers do, is kept until the interpreter ends, when the threads of the group may abort the process.
import torch.distributed.nn.functional  # noqa: F401

from skae._autoencoder import AutoEncoderTransformer
from skae._distributed.fit import fit_collectively
from skae._distributed.launch import launch_on_one_machine

__all__ = ["fit", "launch"]


def fit(
    estimator: AutoEncoderTransformer,
    X_shard: Any,
    *,
    sample_weight: Any = None,
    groups: Any = None,
    process_group: Any = None,
    snapshot: str | Path | None = None,
) -> AutoEncoderTransformer:
    """Fit an autoencoder to the samples of all processes of a process group.

    Each process calls it with its own samples. Principal components are computed from sums over all processes, each
    step of the training takes the gradient of a batch of which each process has a part in proportion to its samples,
    and held-out samples of all processes select the network.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        Estimator with the same parameters in all processes.
    X_shard : {array-like, sparse matrix, memory map} of shape (n_samples, n_features), iterator of these, or None
        The samples of this process; the chunks of an iterator are concatenated. There may be none.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples of this process, as in `AutoEncoderTransformer.fit`. All processes have weights, or none.
    groups : array-like of shape (n_samples,), default=None
        Group labels of the samples of this process. A group may have samples in several processes.
    process_group : torch.distributed.ProcessGroup, default=None
        The process group; None is the default one.
    snapshot : str or Path, default=None
        Directory in which each process keeps its state after each epoch. If all are started again with the same
        arguments, they continue from there, and the result is that of a fit without interruption. The files are removed
        at the end. None keeps nothing.

    Returns
    -------
    AutoEncoderTransformer
        The estimator, fitted. It is the same in all processes, to the last bit.

    Raises
    ------
    RuntimeError
        If there is no process group.
    ValueError, TypeError
        As by `AutoEncoderTransformer.fit`, if shards or parameters differ between processes, or if a parameter needs
        all samples in one process: ``regularizer="neighbors"``, "supervised" and "sparse", batch normalization, and a
        splitter as ``validation_split``. All processes raise the error of the first one that has one.
    TimeoutError, ConnectionError
        If a process does not take part in a step, or has left. The error names the process and the step.

    See Also
    --------
    AutoEncoderTransformer.fit : Fit in one process.

    Notes
    -----
    Near copies of samples are not searched for; identical samples are on one side of the validation split, as with
    large data. Validation samples that are passed as ``validation_split`` are the same in all processes. A custom
    regularizer or module is called with the part of a batch that a process has, and must not depend on the others.

    Examples
    --------
    >>> import tempfile
    >>> import torch.distributed as dist
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer
    >>> from skae.distributed import fit
    >>> store = dist.FileStore(tempfile.mkdtemp() + "/store", 1)
    >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> fit(AutoEncoderTransformer(2, max_epochs=2, random_state=0), load_digits().data).n_components_
    2
    >>> dist.destroy_process_group()
    """
    return fit_collectively(estimator, X_shard, sample_weight, groups, process_group, snapshot)


def launch(
    estimator: AutoEncoderTransformer, shards: Any, n_processes: int, *, max_restarts: int = 0, timeout: float = 1800.0
) -> AutoEncoderTransformer:
    """Fit an autoencoder in several processes of this machine.

    The processes are started by the launcher of torch. Each opens its shard itself; samples are not sent to processes.

    Parameters
    ----------
    estimator : AutoEncoderTransformer
        The estimator. If its ``device`` is "cuda" and there are enough devices, each process has its own.
    shards : str, Path or sequence of length ``n_processes``
        The path of an .npy file, of which each process takes a part; or one shard for each process: a path, a pair of a
        path and a slice of rows, or a function of a module without arguments that returns what `fit` takes.
    n_processes : int
        Number of processes. Each has an equal part of the threads of the machine.
    max_restarts : int, default=0
        How often all processes are started again if one has ended unexpectedly. They continue from the last epoch.
    timeout : float, default=1800.0
        Number of seconds after which a process that others wait for is given up.

    Returns
    -------
    AutoEncoderTransformer
        The estimator, fitted.

    Raises
    ------
    ValueError, TypeError
        If a shard is not as described, and as by `fit`.
    RuntimeError
        If a process has ended unexpectedly, too often.

    See Also
    --------
    fit : Is called in each process; in a script that torchrun starts on many machines.

    Notes
    -----
    As with all processes that are spawned, a script must call it below ``if __name__ == "__main__":``.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import AutoEncoderTransformer
    >>> from skae.distributed import launch
    >>> path = os.path.join(tempfile.mkdtemp(), "digits.npy")
    >>> np.save(path, load_digits().data)
    >>> autoencoder = AutoEncoderTransformer(2, max_epochs=2, random_state=0)
    >>> launch(autoencoder, path, n_processes=2).transform(load_digits().data).shape  # doctest: +SKIP
    (1797, 2)
    """
    return launch_on_one_machine(estimator, shards, n_processes, max_restarts, timeout)
