"""Data-parallel fit: the same result in all processes, errors that end all, and shards of any size."""

import multiprocessing
import traceback
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from sklearn.base import clone
from sklearn.datasets import load_digits
from skorch.callbacks import Callback

from skae import AutoEncoderTransformer
from skae.distributed import fit

DIGITS = load_digits().data


def serve(pipe):
    """Run jobs in a process group of their own, until there are no more."""
    torch.set_num_threads(1)
    while (job := pipe.recv()) is not None:
        function, path, rank, size, timeout, args = job
        store = dist.FileStore(path, size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=timeout))
        try:
            result = function(rank, size, *args)
        except Exception as error:
            result = type(error)("".join([str(error), *getattr(error, "__notes__", [])]))
            result.trace = traceback.format_exc()
        dist.destroy_process_group()
        pipe.send(result)


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pairs = [context.Pipe() for _ in range(4)]
    servers = [context.Process(target=serve, args=(theirs,), daemon=True) for _, theirs in pairs]
    for server in servers:
        server.start()
    yield [ours for ours, _ in pairs]
    for ours, _ in pairs:
        ours.send(None)
    for server in servers:
        server.join(20)


@pytest.fixture
def run(processes, tmp_path):
    """Call a function in some processes, and return the results, or the errors, of all."""
    n_runs = 0

    def call(function, size, *args, timeout=60, raises=False):
        nonlocal n_runs
        n_runs += 1
        for rank in range(size):
            processes[rank].send((function, str(tmp_path / f"store{n_runs}"), rank, size, timeout, args))
        results = [processes[rank].recv() for rank in range(size)]
        for result in results:
            if isinstance(result, Exception) and not raises:
                raise AssertionError(result.trace)
        return results

    return call


def split(X, parts):
    """Return consecutive parts of X whose lengths are in these proportions."""
    ends = np.rint(np.cumsum([0, *parts]) / sum(parts) * len(X)).astype(int)
    return [X[first:last] for first, last in zip(ends[:-1], ends[1:], strict=True)]


def state_of(estimator):
    """Return all that a fit gives, as bytes."""
    arrays = [value.numpy() for value in estimator.net_.module_.state_dict().values()]
    arrays += [estimator.components_, estimator.explained_variance_ratio_, estimator.mean_]
    return b"".join(np.ascontiguousarray(one).tobytes() for one in arrays) + repr(estimator.loss_curve_).encode()


def fitted(rank, size, estimator, shards):
    estimator = fit(clone(estimator), shards[rank])
    return state_of(estimator), estimator.score(DIGITS), estimator.validation_scores_, estimator.best_epoch_


class Gradients(Callback):
    """Keeps the first gradient."""

    gradient = None

    def on_grad_computed(self, net, named_parameters, **kwargs):
        if Gradients.gradient is None:
            Gradients.gradient = {name: one.grad.clone().numpy() for name, one in named_parameters}


def first_gradient(rank, size, estimator, shards):
    Gradients.gradient = None
    fit(clone(estimator), shards[rank])
    return Gradients.gradient


def test_gradient_of_a_batch_does_not_depend_on_the_number_of_processes(run):
    # L-BFGS trains in double precision and takes all samples in a step.
    estimator = AutoEncoderTransformer(
        3,
        hidden_layer_sizes=(8,),
        optimizer="lbfgs",
        early_stopping=False,
        max_epochs=1,
        random_state=0,
        callbacks=[Gradients],
    )
    gradients = [
        run(first_gradient, size, estimator, split(DIGITS[:200], parts))[0]
        for size, parts in ((1, [1]), (2, [1, 3]), (3, [2, 0, 1]), (4, [1, 1, 1, 1]))
    ]
    for name, reference in gradients[0].items():
        for other in gradients[1:]:
            assert np.abs(other[name] - reference).max() < 1e-12 * max(np.abs(reference).max(), 1)


@pytest.mark.parametrize("parts", [[1, 1], [1, 100], [0, 1], [1, 0, 2, 1]])
def test_all_processes_have_the_same_result(run, parts):
    estimator = AutoEncoderTransformer(6, hidden_layer_sizes=(32,), max_epochs=60, random_state=0)
    results = run(fitted, len(parts), estimator, split(DIGITS, parts))
    again = run(fitted, len(parts), estimator, split(DIGITS, parts))
    assert len({result[0] for result in [*results, *again]}) == 1
    alone = clone(estimator).fit(DIGITS)
    assert results[0][1] > alone.score(DIGITS) - 0.02
    assert results[0][3] > 0
