r"""
Fit on many machines by torchrun
================================

Each process opens its part of a file, and all fit together. On one machine, with two processes:

.. code-block:: bash

    torchrun --standalone --nproc-per-node=2 --max-restarts=1 torchrun_fit.py X.npy model.skae

On each of four machines, one of which is HOST:

.. code-block:: bash

    torchrun --nnodes=4 --nproc-per-node=2 --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 \
        torchrun_fit.py X.npy model.skae
"""

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist

from skae import AutoEncoderTransformer, save
from skae.distributed import fit

parser = argparse.ArgumentParser()
parser.add_argument("X", help="an .npy file that all machines can read")
parser.add_argument("model", help="where the fitted estimator is saved")
parser.add_argument("--n-components", type=int, default=8)
parser.add_argument("--max-epochs", type=int, default=None)
parser.add_argument("--snapshot", default=None, help="a directory, from which all continue after an interruption")

if __name__ == "__main__":
    options = parser.parse_args()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))
    # torchrun keeps its store when it starts all again: a prefix keeps the addresses of the processes before apart.
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    store = dist.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    X = np.load(options.X, mmap_mode="r")
    shard = X[rank * len(X) // size : (rank + 1) * len(X) // size]
    estimator = AutoEncoderTransformer(options.n_components, max_epochs=options.max_epochs or "auto", random_state=0)
    fit(estimator, shard, snapshot=options.snapshot)
    if rank == 0:
        save(estimator, options.model)
    dist.destroy_process_group()
