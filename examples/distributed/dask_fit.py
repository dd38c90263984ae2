"""
Fit to the partitions of a dask array or data frame
===================================================

Each worker of a dask cluster fits to the partitions that lie on it, in the manner of ``xgboost.dask``. ``transform`` is
then called for each partition where it is.
"""

import argparse
import uuid
from datetime import timedelta

import dask
import dask.array as da
import numpy as np
import torch
import torch.distributed as dist
from distributed import Client, LocalCluster, get_worker, wait

from skae import AutoEncoderTransformer
from skae.distributed import fit


def fit_on_worker(estimator, partitions, address, port, prefix, rank, size):
    """Fit to the partitions of one worker; those of the others are never sent."""
    torch.set_num_threads(1)
    store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=300))
    dist.init_process_group("gloo", store=dist.PrefixStore(prefix, store), rank=rank, world_size=size)
    try:
        fitted = fit(estimator, np.concatenate(partitions) if partitions else None)
        return fitted if rank == 0 else None
    finally:
        dist.destroy_process_group()


def dask_fit(client, estimator, X):
    """Fit an estimator to a dask array or data frame, whose partitions stay on their workers.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster.
    estimator : AutoEncoderTransformer
        The estimator.
    X : dask array or data frame of shape (n_samples, n_features)
        The samples. A partition has all features.

    Returns
    -------
    AutoEncoderTransformer
        The fitted estimator.
    """
    parts = [*np.asarray(X.to_delayed(), dtype=object).ravel()]
    futures = client.compute(parts)
    wait(futures)
    where = client.who_has(futures)
    # Each worker has the partitions that lie on it; one without any takes part without samples.
    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    own = {worker: [] for worker in workers}
    for future in futures:
        own[where[future.key][0]].append(future)
    # The store, by which the processes find each other, is on the first worker.
    host = workers[0].split("://")[1].rsplit(":", 1)[0]
    port = client.submit(open_store, workers=[workers[0]], pure=False).result()
    prefix = uuid.uuid4().hex
    tasks = [
        client.submit(
            fit_on_worker,
            estimator,
            own[worker],
            host,
            port,
            prefix,
            rank,
            len(workers),
            workers=[worker],
            allow_other_workers=False,
            pure=False,
        )
        for rank, worker in enumerate(workers)
    ]
    return client.gather(tasks)[0]


def open_store():
    """Open a store on a free port of a worker, for as long as the worker runs, and return the port."""
    worker = get_worker()
    if not hasattr(worker, "skae_store"):
        worker.skae_store = dist.TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)
    return worker.skae_store.port


def main(n_samples=4000, n_workers=2, max_epochs=20):
    """Fit to random curved samples on a local cluster, and transform them where they are."""
    cluster = LocalCluster(n_workers=n_workers, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        angles = da.random.default_rng(0).uniform(0, 3, size=(n_samples, 1), chunks=(500, 1))
        X = da.concatenate([da.cos(angles), da.sin(angles), angles**2], axis=1).rechunk((500, 3)).persist()
        estimator = dask_fit(client, AutoEncoderTransformer(1, max_epochs=max_epochs, random_state=0), X)
        codes = X.map_blocks(estimator.transform, chunks=(X.chunks[0], (1,)), meta=np.empty((0, 1)))
        print(f"codes {codes.compute().shape}, score {estimator.score(X.compute()):.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n-workers", type=int, default=2)
    dask.config.set({"distributed.worker.daemon": False})
    main(n_workers=parser.parse_args().n_workers)
