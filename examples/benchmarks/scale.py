"""Measure the data-parallel fit: throughput, the time of exchanges, and scores for any number of processes.

``python examples/benchmarks/scale.py --steps`` prints, for 1, 2 and 4 processes of one thread, the samples per second
of steps at 784 features (or ``--features``) and 512 samples per process, the bytes that a process gives to the sum of
gradients, and the time that the sum takes. ``--scores DIR`` prints scores of test samples of five data sets.
"""

import argparse
import multiprocessing
import os
import tempfile
import time

import numpy as np
import torch
import torch.distributed as dist
from skorch.callbacks import Callback

from skae import AutoEncoderTransformer
from skae._distributed.group import GroupRanks
from skae.distributed import fit

BATCH, N_STEPS, N_EPOCHS = 512, 10, 40
SETS = ("letter", "optdigits", "spambase", "usps", "gas_drift")
exchanged = {"seconds": 0.0, "bytes": 0}


class Clock(Callback):
    """Measures the time of each epoch after the first."""

    seconds: list = []

    def on_epoch_begin(self, net, **kwargs):
        """Note the time."""
        self.started, self.exchange = time.perf_counter(), exchanged["seconds"]

    def on_epoch_end(self, net, **kwargs):
        """Keep the time since then, and that of exchanges."""
        Clock.seconds.append((time.perf_counter() - self.started, exchanged["seconds"] - self.exchange))


def count(method):
    """Count the time and the bytes of sums of gradients."""

    def counted(self, parts):
        started = time.perf_counter()
        summed = method(self, parts)
        exchanged["seconds"] += time.perf_counter() - started
        exchanged["bytes"] = summed.nbytes + 4
        return summed

    return counted


def steps(rank, size, path, results, n_features):
    """Take some steps."""
    join(rank, size, path)
    GroupRanks.sum_gradients = count(GroupRanks.sum_gradients)
    random = np.random.RandomState(rank)
    # The spectrum is flat, so that the network is trained on all features.
    X = random.normal(size=(BATCH * N_STEPS, n_features)).astype(np.float32)
    estimator = AutoEncoderTransformer(
        16,
        batch_size=BATCH * size,
        max_epochs=N_EPOCHS,
        early_stopping=False,
        callbacks=[Clock],
        random_state=0,
        regularizer="nested",
        projection_steps=0,
    )
    fit(estimator, X)
    seconds = np.array(Clock.seconds[1:])
    fastest = seconds[seconds[:, 0].argmin()] / N_STEPS
    if rank == 0:
        results.put((*fastest, *np.median(seconds, axis=0) / N_STEPS, exchanged["bytes"]))
    dist.destroy_process_group()


def scores(rank, size, path, results, X, test, seed):
    """Fit to a shard, and score the test samples."""
    join(rank, size, path)
    n = len(X)
    estimator = fit(AutoEncoderTransformer(8, random_state=seed), X[rank * n // size : (rank + 1) * n // size])
    if rank == 0:
        results.put(estimator.score(test))
    dist.destroy_process_group()


def join(rank, size, path):
    """Join the process group."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(path, size), rank=rank, world_size=size)


def in_processes(function, size, *args):
    """Call a function in some processes, and return what the first one gives."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    path = os.path.join(tempfile.mkdtemp(), "store")
    processes = [context.Process(target=function, args=(rank, size, path, results, *args)) for rank in range(size)]
    for process in processes:
        process.start()
    result = results.get()
    for process in processes:
        process.join()
    return result


def main():
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", action="store_true", help="measure the throughput of steps")
    parser.add_argument("--scores", metavar="DIR", help="directory of the data sets")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--features", type=int, default=784)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for size in options.sizes if options.steps else ():
        step, exchange, median, median_exchange, n_bytes = in_processes(steps, size, options.features)
        print(
            f"{size} processes: {size * BATCH / step:8.0f} samples/s; a step takes {1e3 * step:.2f} ms, of which the "
            f"sum of {n_bytes} bytes {1e3 * exchange:.2f} ms (fastest epoch; median {1e3 * median:.2f} and "
            f"{1e3 * median_exchange:.2f})",
            flush=True,
        )
    for name in SETS if options.scores else ():
        data = np.load(os.path.join(options.scores, f"{name}.npz"))
        train, test = (data[f"X_{part}"].astype(np.float32) for part in ("train", "test"))
        scale = np.where(train.std(axis=0) > 0, train.std(axis=0), 1.0)
        train, test = np.random.RandomState(0).permutation(train / scale)[:3000], test / scale
        texts = []
        for size in options.sizes:
            found = [in_processes(scores, size, train, test, seed) for seed in range(options.seeds)]
            texts.append(f"{size}: {np.mean(found):.4f} ({np.std(found) / np.sqrt(len(found)):.4f})")
        print(f"{name:10} {'; '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
