"""
Fit by pyspark's TorchDistributor
=================================

The function of a ``TorchDistributor`` runs on each of its processes. Each opens its part of a file that all can read.
"""

import os
import tempfile

import numpy as np
from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession


def fit_on_executor(path, model, max_epochs):
    """Fit to the part of the samples that this process has."""
    import torch
    import torch.distributed as dist

    from skae import AutoEncoderTransformer, save
    from skae.distributed import fit

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    X = np.load(path, mmap_mode="r")
    estimator = AutoEncoderTransformer(1, max_epochs=max_epochs, random_state=0)
    fit(estimator, X[rank * len(X) // size : (rank + 1) * len(X) // size])
    if rank == 0:
        save(estimator, model)
    dist.destroy_process_group()
    return estimator.best_epoch_


def main(n_samples=4000, n_processes=2, max_epochs=20):
    """Fit to random curved samples by two processes of this machine."""
    from skae import load

    directory = tempfile.mkdtemp()
    angles = np.random.RandomState(0).uniform(0, 3, size=(n_samples, 1))
    X = np.hstack([np.cos(angles), np.sin(angles), angles**2])
    path, model = os.path.join(directory, "X.npy"), os.path.join(directory, "model.skae")
    np.save(path, X)
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    TorchDistributor(num_processes=n_processes, local_mode=True, use_gpu=False).run(
        fit_on_executor, path, model, max_epochs
    )
    spark.stop()
    print(f"score {load(model).score(X):.3f}")


if __name__ == "__main__":
    main()
