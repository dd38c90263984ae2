"""Fit an autoencoder to samples in several processes, on one machine or many."""

from typing import Any

from skae._autoencoder import AutoEncoderTransformer
from skae._distributed.fit import fit_collectively

__all__ = ["fit"]


def fit(
    estimator: AutoEncoderTransformer,
    X_shard: Any,
    *,
    sample_weight: Any = None,
    groups: Any = None,
    process_group: Any = None,
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
        all samples in one process: ``regularizer="neighbors"`` and "supervised", batch normalization, and a splitter as
        ``validation_split``. All processes raise the error of the first one that has one.
    TimeoutError, ConnectionError
        If a process does not take part in a step, or has left. The error names the process and the step.

    See Also
    --------
    AutoEncoderTransformer.fit : Fit in one process.

    Notes
    -----
    Near copies of samples are not searched for; identical samples are on one side of the validation split, as with
    large data. Validation samples that are passed as ``validation_split`` are the same in all processes.

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
    return fit_collectively(estimator, X_shard, sample_weight, groups, process_group)
