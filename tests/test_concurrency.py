"""Many threads and processes at once: the results of one alone, and nothing left behind."""

import multiprocessing
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import TRAINED, curved_rows

from skae import AutoEncoderTransformer

N_THREADS = 8
N_FITS = 40


@pytest.fixture
def two_torch_threads():
    """A number of torch threads that a fit of this size would not choose, so that it shows where one remains."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def parts():
    """Twenty pieces of new rows, of different sizes."""
    return np.array_split(curved_rows(420, seed=1), np.cumsum(np.arange(2, 40, 2)))


def results(estimator, rows):
    codes = estimator.transform(rows)
    return codes, estimator.inverse_transform(codes), estimator.score_samples(rows)


def assert_same(many, alone):
    assert len(many) == len(alone)
    for found, expected in zip(many, alone, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def state():
    """What a fit could leave behind in a program."""
    numpy_state = np.random.get_state()
    with ThreadPoolExecutor(1) as pool:
        in_a_new_thread = pool.submit(torch.get_num_threads).result()
    return {
        "torch's threads": (torch.get_num_threads(), in_a_new_thread),
        "torch's dtype": torch.get_default_dtype(),
        "torch's device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "torch's generator": torch.random.get_rng_state().tolist(),
        "numpy's generator": (numpy_state[1].tolist(), numpy_state[2:]),
        "numpy's errors": np.geterr(),
        "warnings": list(warnings.filters),
        "threads": threading.active_count(),
    }


def in_threads(function, arguments):
    """Call a function in eight threads that all begin at once."""
    together = threading.Barrier(N_THREADS)
    with ThreadPoolExecutor(N_THREADS, initializer=together.wait, initargs=(60,)) as pool:
        return list(pool.map(function, arguments))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_transform_in_threads(dtype, two_torch_threads):
    """Float64 rows take a copy of a float32 network, for which threads might get in each other's way."""
    estimator = AutoEncoderTransformer(2, **TRAINED).fit(curved_rows().astype(dtype))
    alone = [results(estimator, rows) for rows in parts()]
    before = state()
    assert_same(in_threads(lambda rows: results(estimator, rows), parts()), alone)
    assert state() == before


def _in_child(estimator, rows):
    torch.set_num_threads(1)
    return results(estimator, rows)


def _fit_in_child(seed):
    torch.set_num_threads(1)
    return _fit(seed)


def forks(test):
    """Skip a test where there is no fork; Python 3.12 and newer warn of it wherever there are threads."""
    skip = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
    return skip(pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")(test))


def in_forked(function, *arguments):
    """Call a function in two forked processes, of one torch thread each."""
    # Torch's own pool of threads does not survive a fork; on one thread, as in these tests, it is never asked for.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        return list(pool.map(function, *arguments, timeout=60))


@forks
def test_transform_in_forked_workers():
    fitted = AutoEncoderTransformer(2, **TRAINED).fit(curved_rows())
    alone = [results(fitted, rows) for rows in parts()]
    assert_same(in_forked(_in_child, [fitted] * len(alone), parts()), alone)


VARIANTS = [
    {"linear_skip": False},
    {"linear_skip": False, "early_stopping": True},
    {"linear_skip": False, "regularizer": "denoising"},
    {},
]


def _fit(seed):
    """A tiny fit on rows and with parameters that depend on the seed."""
    parameters = {**TRAINED, "hidden_layer_sizes": 4, "max_epochs": 1, "random_state": seed}
    X = curved_rows(40, seed=seed)
    estimator = AutoEncoderTransformer(2, **parameters | VARIANTS[seed % len(VARIANTS)]).fit(X)
    return estimator.transform(X), np.array(estimator.loss_curve_), estimator.mean_


def test_fits_in_threads(two_torch_threads):
    alone = [_fit(seed) for seed in range(N_FITS)]
    before = state()
    assert_same(in_threads(_fit, range(N_FITS)), alone)
    assert state() == before
    assert len({codes.tobytes() for codes, *_ in alone}) == N_FITS


@forks
def test_fits_in_forked_workers():
    alone = [_fit(seed) for seed in range(8)]
    assert_same(in_forked(_fit_in_child, range(8)), alone)


def test_fits_on_one_array_in_threads():
    """The same X, read by all: nobody writes to it, not even for a while."""
    X = curved_rows()
    X.setflags(write=False)

    def fit(seed):
        return results(AutoEncoderTransformer(2, **{**TRAINED, "random_state": seed}).fit(X), X)

    alone = [fit(seed) for seed in range(8)]
    assert_same(in_threads(fit, range(8)), alone)
