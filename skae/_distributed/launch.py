"""Start the processes of a fit on one machine."""

import os
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from skae._autoencoder import AutoEncoderTransformer
from skae._distributed.fit import check_supported, fit_collectively


def launch_on_one_machine(
    estimator: AutoEncoderTransformer, shards: Any, n_processes: int, max_restarts: int, timeout: float
) -> AutoEncoderTransformer:
    """Fit an estimator as `skae.distributed.launch`."""
    check_supported(estimator)
    shards = shards_of(shards, n_processes)
    with tempfile.TemporaryDirectory(prefix="skae-", ignore_cleanup_errors=True) as directory:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=n_processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # a free port, so that several fits do not collide
            local_addr="localhost",
            max_restarts=max_restarts,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=directory),
        )
        snapshot = os.path.join(directory, "snapshot") if max_restarts > 0 else None
        try:
            with _own_signals():
                results = elastic_launch(config, _work)(estimator, shards, timeout, snapshot)
        except SignalException as interrupt:
            if interrupt.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            said = failure.message["message"] if isinstance(failure.message, dict) else failure.message
            raise RuntimeError(
                f"Rank {rank} of {n_processes} ended with exit code {failure.exitcode} after {max_restarts} restarts: "
                f"{said}. With a larger max_restarts, all processes continue from the last epoch. If the memory was "
                "not enough, use shards in files or fewer processes."
            ) from None
    if isinstance(results[0], Exception):
        raise results[0]
    estimator.__dict__.update(vars(results[0]))
    return estimator


def shards_of(shards: Any, n_processes: int) -> list:
    """Return what each process opens: a path, a path and a slice, or a function.

    Raises
    ------
    ValueError
        If there is not one shard for each process.
    TypeError
        If a shard is not as described.
    """
    if isinstance(shards, str | Path):
        n_samples = len(np.load(shards, mmap_mode="r"))
        ends = [rank * n_samples // n_processes for rank in range(n_processes + 1)]
        return [(shards, slice(*ends[rank : rank + 2])) for rank in range(n_processes)]
    if not isinstance(shards, Sequence) or len(shards) != n_processes:
        raise ValueError(
            f"shards must be the path of a file, or {n_processes} shards for n_processes={n_processes}, got "
            f"{len(shards) if hasattr(shards, '__len__') else type(shards).__name__}."
        )
    for one in shards:
        path = one[0] if isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], slice) else one
        if not (isinstance(path, str | Path) or callable(path)):
            raise TypeError(
                f"A shard must be the path of an .npy file, a pair of a path and a slice, or a function that returns "
                f"samples, got {type(one).__name__}. Samples are not sent to processes: save them by numpy.save."
            )
    return list(shards)


def open_shard(shard: Any) -> Any:
    """Return the samples of a shard; those in a file stay there until they are used."""
    if callable(shard):
        return shard()
    path, rows = shard if isinstance(shard, tuple) else (shard, slice(None))
    return np.load(path, mmap_mode="r")[rows]


def _work(estimator: AutoEncoderTransformer, shards: list, timeout: float, snapshot: str | None) -> Any:
    """Fit in one of the processes. The first one returns the estimator, and all return an error of the fit.

    An error that another process has left is raised, so that all are started again.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once, without a traceback
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(max((os.cpu_count() or 1) // size, 1))
    on_gpus = str(estimator.device).startswith("cuda") and torch.cuda.device_count() >= size
    if on_gpus:
        torch.cuda.set_device(rank)
    limit = timedelta(seconds=timeout)
    store: dist.Store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=limit)
    # The launcher keeps its store when all are started again, with the addresses of the processes before.
    store = dist.PrefixStore(f"skae/{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group("nccl" if on_gpus else "gloo", store=store, rank=rank, world_size=size, timeout=limit)
    try:
        fitted = fit_collectively(estimator, lambda: open_shard(shards[rank]), None, None, None, snapshot)
        return fitted if rank == 0 else None
    except (TimeoutError, ConnectionError):
        raise
    except Exception as error:
        return error
    finally:
        dist.destroy_process_group()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the signal handlers and the environment variable that the launcher of torch sets."""
    name = "TORCHELASTIC_SIGNALS_TO_HANDLE"
    before, main = os.environ.get(name), threading.current_thread() is threading.main_thread()
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    try:
        yield
    finally:
        for one, handler in handlers.items() if main else ():
            signal.signal(one, handler)
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
