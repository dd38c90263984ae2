"""Data-parallel fit: the same result in all processes, errors that end all, and shards of any size."""

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch
import torch.distributed as dist
from helpers import TwoLayers
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import KFold
from skorch.callbacks import Callback

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, ColumnLosses, Regularizer, load
from skae.distributed import fit, launch

DIGITS = load_digits().data
SMALL = AutoEncoderTransformer(3, hidden_layer_sizes=(8,), max_epochs=4, random_state=0)


def serve(pipe):
    """Run jobs in a process group of their own, until there are no more."""
    torch.set_num_threads(1)
    while (job := pipe.recv()) is not None:
        function, path, rank, size, timeout, args = job
        try:
            store = dist.FileStore(path, size)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
            dist.barrier()
            if timeout is not None:  # not before all have joined, which may take long on a busy machine
                dist.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout))
            result = function(rank, size, *args)
        except Exception as error:
            result = type(error)("".join([str(error), *getattr(error, "__notes__", [])]))
            result.trace = traceback.format_exc()
        if dist.is_initialized():
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

    def call(function, size, *args, timeout=None, raises=False):
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
    estimator = clone(SMALL).set_params(
        optimizer="lbfgs", optimizer_params={"max_iter": 1}, early_stopping=False, max_epochs=1, callbacks=[Gradients]
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
    estimator = AutoEncoderTransformer(6, hidden_layer_sizes=(32,), max_epochs=15, random_state=0)
    results = run(fitted, len(parts), estimator, split(DIGITS, parts))
    again = run(fitted, len(parts), estimator, split(DIGITS, parts))
    assert len({result[0] for result in [*results, *again]}) == 1
    alone = clone(estimator).fit(DIGITS)
    assert abs(results[0][1] - alone.score(DIGITS)) < 0.02
    assert results[0][3] > 0


CONFIGURATIONS = {
    "tied": {"architecture": "tied"},
    "conv": {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (4, 16)},
    "layer normalization, dropout": {"normalization": "layer", "dropout": 0.1},
    "absolute error": {"loss": "absolute_error"},
    "poisson": {"loss": "poisson"},
    "cosine": {"loss": "cosine"},
    "columns": {"loss": ColumnLosses([("counts", "poisson", slice(0, 8))])},
    "denoising": {"regularizer": "denoising"},
    "contractive": {"regularizer": "contractive"},
    "variational": {"regularizer": "variational"},
    "nested": {"regularizer": "nested"},
    "no skip": {"linear_skip": False},
    "PCA": {"activation": "identity"},
    "adamw, alpha, whiten": {"optimizer": "adamw", "alpha": 0.01, "whiten": True},
    "sgd": {"optimizer": "sgd"},
    "without early stopping": {"early_stopping": False},
    "validation samples": {"validation_split": DIGITS[300:340]},
    "fraction": {"n_components": 0.5},
    "automatic": {"n_components": "auto"},
    "no projection": {"projection_steps": 0},
    "generator": {"random_state": np.random.RandomState(3)},
}
ESTIMATORS = [clone(SMALL).set_params(max_epochs=2, **params) for params in CONFIGURATIONS.values()]


def fitted_all(rank, size, estimators, shards):
    return [state_of(fit(clone(estimator), shards[rank])) for estimator in estimators]


def test_all_configurations(run):
    shards = split(DIGITS[:300], [1, 2])
    for name, first, second in zip(CONFIGURATIONS, *run(fitted_all, 2, ESTIMATORS, shards), strict=True):
        assert first == second, name


def fitted_with(rank, size, kinds, X):
    """Fit to kinds of samples, and return what is the same on all ranks."""
    estimator = AutoEncoderTransformer(3, hidden_layer_sizes=(8,), max_epochs=3, random_state=0)
    own, states = np.arange(rank, len(X), size), []
    for kind in kinds:
        shard, options, fresh = X[own], {}, clone(estimator)
        if kind == "sparse":
            shard = scipy.sparse.csr_array(shard)
        elif kind == "chunks":
            shard = iter([shard[:20], shard[20:]])
        elif kind == "float32":
            shard = shard.astype(np.float32)
        elif kind == "weights":
            options = {"sample_weight": 1.0 + own % 3 / 2}
        elif kind == "repetitions":
            options = {"sample_weight": own % 3}
        elif kind == "groups":
            options = {"groups": [f"patient {number}" for number in own // 10]}
        elif kind == "missing":
            fresh.set_params(allow_nan=True)
            shard = np.where(np.random.RandomState(rank).uniform(size=shard.shape) < 0.2, np.nan, shard)
            shard[:, 0] = 0.0
        elif kind == "wide":
            fresh.set_params(n_components=2)
            shard = np.tile(shard, 80)[:, :5001] if rank > 0 else None
        states.append(state_of(fit(fresh, shard, **options)))
    return states


def test_all_kinds_of_samples(run):
    kinds = ["sparse", "chunks", "float32", "weights", "repetitions", "groups", "missing", "wide"]
    for kind, first, second in zip(kinds, *run(fitted_with, 2, kinds, DIGITS[:300]), strict=True):
        assert first == second, kind


def components_of(rank, size, X):
    """Fit PCA, of many features by subspace iterations, with weights."""
    weights = 1.0 + np.arange(len(X)) % 2
    estimator = AutoEncoderTransformer(3, activation="identity")
    own = np.arange(rank, len(X), size)
    fit(estimator, X[own], sample_weight=weights[own])
    return estimator.components_, estimator.explained_variance_, estimator.mean_


@pytest.mark.parametrize("n_features", [64, 5100])
def test_principal_components_are_those_of_all_samples(run, n_features):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(60, 8)) * 2.0 ** np.arange(8) @ rng.normal(size=(8, n_features)) + 5.0
    weights = 1.0 + np.arange(len(X)) % 2
    expected = AutoEncoderTransformer(3, activation="identity").fit(X, sample_weight=weights)
    components, variance, mean = run(components_of, 2, X)[1]
    assert np.abs(components - expected.components_).max() < 1e-8
    assert np.allclose(variance, expected.explained_variance_, rtol=1e-10)
    assert np.allclose(mean, expected.mean_, rtol=1e-12)


def fitted_again(rank, size, X):
    estimator = fit(clone(SMALL), X[rank::size])
    return state_of(fit(estimator.set_params(warm_start=True), X[rank::size]))


def test_training_continues_from_a_fitted_network(run):
    first, second = run(fitted_again, 2, DIGITS[:300])
    assert first == second


class Fails(Regularizer):
    """Raises an error in one process, at the start or in an epoch."""

    def __init__(self, rank=1, epoch=2):
        self.rank = rank
        self.epoch = epoch

    def penalty(self, x, z, network, context):
        if context.epoch == self.epoch and dist.get_rank() == self.rank:
            raise OverflowError("no space left")


def fitted_or_not(rank, size, estimator, shards):
    return fit(estimator, shards[rank]).n_iter_


def test_an_error_in_training_ends_all_processes(run):
    estimator = clone(SMALL).set_params(regularizer=Fails())
    for error in run(fitted_or_not, 3, estimator, split(DIGITS[:300], [1, 1, 1]), raises=True):
        assert isinstance(error, OverflowError)
        assert "no space left" in str(error) and "Raised on rank 1 of 3" in str(error)


def with_nan(X):
    return np.where(np.arange(X.shape[1]) == 7, np.nan, X)


class Normalized(TwoLayers):
    """A user's own network, with batch normalization."""

    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.inside.append(torch.nn.BatchNorm1d(n_components))


WRONG = {
    "NaN": (SMALL, [DIGITS[:50], with_nan(DIGITS[50:90])], "contains NaN"),
    "features": (SMALL, [DIGITS[:50], DIGITS[50:90, 1:]], "features 64 on rank 0, but 63 on rank 1"),
    "shape": (SMALL, [DIGITS[:50], DIGITS[0]], "rank 1 must be of shape"),
    "one sample": (SMALL, [DIGITS[:1], None], "1 samples together"),
    "batch": (clone(SMALL).set_params(normalization="batch"), split(DIGITS[:90], [1, 1]), "batch normalization"),
    "batch in a module": (
        AutoEncoderTransformer(2, module=Normalized, max_epochs=2),
        split(DIGITS, [1, 1]),
        "module has batch normalization",
    ),
    "sparse": (clone(SMALL).set_params(regularizer="sparse"), split(DIGITS[:90], [1, 1]), "of a batch"),
    "neighbors": (clone(SMALL).set_params(regularizer="neighbors"), split(DIGITS[:90], [1, 1]), "regularizer="),
    "splitter": (clone(SMALL).set_params(validation_split=KFold(3)), split(DIGITS[:90], [1, 1]), "splits all samples"),
    "counts": (clone(SMALL).set_params(loss="poisson"), [DIGITS[:50], DIGITS[50:90] - 1.0], "poisson"),
    "detector": (AutoEncoderOutlierDetector(), split(DIGITS[:90], [1, 1]), "takes an AutoEncoderTransformer"),
    "parameter": (clone(SMALL).set_params(lr=-1.0), split(DIGITS[:90], [1, 1]), "'lr' parameter"),
}


def all_errors(rank, size, cases):
    errors = []
    for estimator, shards, _ in cases:
        with pytest.raises((ValueError, TypeError)) as info:
            fit(clone(estimator), shards[rank])
        errors.append(str(info.value))
    return errors


def test_errors_are_those_of_all_processes(run):
    for errors in run(all_errors, 2, [*WRONG.values()]):
        for name, error, (_, _, expected) in zip(WRONG, errors, WRONG.values(), strict=True):
            assert expected.lower() in error.lower(), name


def unequal(rank, size, X):
    estimator = clone(SMALL).set_params(max_epochs=3 + rank)
    return fit(estimator, X[rank::size])


def test_parameters_must_be_equal(run):
    for error in run(unequal, 2, DIGITS[:90], raises=True):
        assert isinstance(error, ValueError) and "max_epochs=4 on rank 1, but 3 on rank 0" in str(error)


def late(rank, size, X):
    """Do not take part in the third process."""
    return None if rank == 2 else fit(clone(SMALL), X[rank::size])


def test_a_timeout_names_the_process(run):
    errors = run(late, 3, DIGITS[:90], timeout=2, raises=True)
    assert errors[2] is None
    for error in errors[:2]:
        assert isinstance(error, TimeoutError | ConnectionError)
        assert "Rank 2 of 3 did not take part at" in str(error)


class Leaves(Regularizer):
    """Waits in an epoch of one process until the others have given it up."""

    def penalty(self, x, z, network, context):
        if context.epoch == 2 and dist.get_rank() == 1:
            raise KeyboardInterrupt


def interrupted(rank, size, X):
    try:
        fit(clone(SMALL).set_params(regularizer=Leaves()), X[rank::size])
    except KeyboardInterrupt:
        return "interrupted"


def test_a_timeout_names_the_step(run):
    error, other = run(interrupted, 2, DIGITS[:90], timeout=2, raises=True)
    assert other == "interrupted"
    assert isinstance(error, TimeoutError | ConnectionError)
    assert "Rank 1 was ended by KeyboardInterrupt" in str(error) and "at step " in str(error)


RECIPES = Path(__file__).parents[1] / "examples" / "distributed"


def test_threads_of_a_destroyed_process_group_have_ended():
    """Threads that outlive the interpreter's end abort the process, at times."""
    script = """
from glob import glob
import torch.distributed as dist
from sklearn.datasets import load_iris
from skae import AutoEncoderTransformer
from skae.distributed import fit
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
fit(AutoEncoderTransformer(2, max_epochs=1), load_iris().data)
names = lambda: [open(path).read() for path in glob("/proc/self/task/*/comm")]
before = names()
dist.destroy_process_group()
print(sum("gloo" in name for name in before), sum("gloo" in name for name in names()))
"""
    if not Path("/proc/self/task").exists():
        pytest.skip("the names of threads are not in /proc")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before > 0 and after == 0


def test_torchrun(tmp_path):
    np.save(tmp_path / "X.npy", DIGITS[:300])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(RECIPES / "torchrun_fit.py"), str(tmp_path / "X.npy"), str(tmp_path / "model.skae"), "--max-epochs=2"]
    done = subprocess.run([*command, *script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "model.skae").n_samples_ == 300


@pytest.mark.parametrize(
    ("script", "package"), [("dask_fit.py", "distributed"), ("ray_fit.py", "ray"), ("spark_fit.py", "pyspark")]
)
def test_recipe(script, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    done = subprocess.run([sys.executable, str(RECIPES / script)], capture_output=True, text=True, timeout=200)
    assert "score 0.9" in done.stdout or "score 1.0" in done.stdout, done.stderr


def test_without_a_process_group():
    with pytest.raises(RuntimeError, match="init_process_group"):
        fit(SMALL, DIGITS)


class Killed(Regularizer):
    """Ends one process in an epoch, the first time."""

    def __init__(self, path, epoch):
        self.path = path
        self.epoch = epoch

    def check(self):
        """Accept the path."""

    def penalty(self, x, z, network, context):
        if context.epoch == self.epoch and dist.get_rank() == 1 and not os.path.exists(self.path):
            open(self.path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_started_again_and_continues(run, tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, DIGITS[:300])
    estimator = clone(SMALL).set_params(max_epochs=12, regularizer=Killed(str(tmp_path / "killed"), 7))
    launched = launch(clone(estimator), path, 2, max_restarts=1)
    assert os.path.exists(tmp_path / "killed")
    undisturbed = run(fitted, 2, estimator, split(DIGITS[:300], [1, 1]))
    assert state_of(launched) == undisturbed[0][0]


def shard_with_nan():
    return with_nan(DIGITS[:50])


def test_two_fits_at_once_do_not_collide(tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, DIGITS[:200])
    with ThreadPoolExecutor() as pool:
        good = pool.submit(launch, clone(SMALL), [path, (path, slice(0, 20))], 2)
        bad = pool.submit(launch, clone(SMALL), [path, shard_with_nan], 2)
        assert good.result().n_samples_ == 220
        with pytest.raises(ValueError, match="contains NaN") as info:
            bad.result()
    assert "Raised on rank 1 of 2" in info.value.__notes__[0]


INTERRUPTED = """
import os, sys
from skae import AutoEncoderTransformer, Regularizer
from skae.distributed import launch

class Says(Regularizer):
    def penalty(self, x, z, network, context):
        if context.epoch == 1:
            os.write(1, f"{os.getpid()}\\n".encode())

if __name__ == "__main__":
    try:
        launch(AutoEncoderTransformer(2, max_epochs=10**6, tol=0.0, random_state=0, regularizer=Says()), sys.argv[1], 2)
    except KeyboardInterrupt:
        os.write(1, b"interrupted\\n")
"""


def test_an_interrupt_ends_all_processes(tmp_path):
    np.save(tmp_path / "X.npy", DIGITS[:300])
    (tmp_path / "script.py").write_text(INTERRUPTED)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "X.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        pids = set()
        while len(pids) < 2:
            pids.add(int(process.stdout.readline()))
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0].splitlines()[-1] == "interrupted"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("shards", "error", "expected"),
    [
        ([DIGITS, DIGITS], TypeError, "got ndarray. Samples are not sent"),
        (["X.npy"], ValueError, "2 shards for n_processes=2, got 1"),
        (3, ValueError, "got int"),
    ],
)
def test_shards_must_be_opened_by_their_process(shards, error, expected):
    with pytest.raises(error, match=expected):
        launch(SMALL, shards, 2)
