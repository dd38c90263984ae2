"""Training as a user sees it: determinism, global state, callbacks, interrupts, optimizers, warm starts, noise."""

import hashlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
import torch
from helpers import SEARCHED, SMALL, TINY, TRAINED, curved_rows, noise_rows, python_environment, run_python
from joblib import Parallel, delayed, parallel_config
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring, LRScheduler

from skae import AutoEncoderTransformer
from skae._training import fit

KINDS = {
    "searched": SEARCHED,
    "all_rows": TRAINED,
    "no_skip": {**TINY, "linear_skip": False},
    "lbfgs": {**TRAINED, "optimizer": "lbfgs", "max_epochs": 2},
    "sgd": {**TRAINED, "optimizer": "sgd"},
}


def bits(parameters, X):
    """Codes and reconstruction of a new fit, as bytes."""
    estimator = AutoEncoderTransformer(**parameters)
    codes = estimator.fit_transform(X)
    return codes.tobytes(), estimator.inverse_transform(codes).tobytes()


def digest(parameters, X):
    """A short name of the same."""
    return hashlib.sha256(b"".join(bits(parameters, X))).hexdigest()


class Recorder(Callback):
    """Writes down what it is told."""

    def initialize(self):
        self.events_ = []
        return self

    def on_train_begin(self, net, **kwargs):
        self.events_.append("train_begin")

    def on_train_end(self, net, **kwargs):
        self.events_.append("train_end")

    def on_epoch_begin(self, net, **kwargs):
        self.events_.append("epoch_begin")

    def on_epoch_end(self, net, **kwargs):
        self.events_.append(dict(net.history[-1]))

    def on_batch_end(self, net, training=False, **kwargs):
        self.events_.append("training_batch" if training else "held_out_batch")


class Interrupt(Callback):
    """Presses Ctrl-C."""

    def __init__(self, at="on_epoch_end"):
        self.at = at

    def on_train_begin(self, net, **kwargs):
        self._interrupt("on_train_begin")

    def on_epoch_end(self, net, **kwargs):
        self._interrupt("on_epoch_end")

    def on_batch_end(self, net, **kwargs):
        self._interrupt("on_batch_end")

    def on_grad_computed(self, net, *args, **kwargs):
        self._interrupt("on_grad_computed")

    def _interrupt(self, at):
        if at == self.at:
            raise KeyboardInterrupt


class TestDeterminism:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_refits(self, kind, dtype):
        X = curved_rows(200).astype(dtype)
        torch.manual_seed(1)
        first = bits(KINDS[kind], X)
        torch.manual_seed(2)
        np.random.seed(2)
        assert bits(KINDS[kind], X) == first
        assert bits(KINDS[kind], X.copy()) == first

    def test_the_search_above_trains(self):
        assert AutoEncoderTransformer(**SEARCHED).fit(curved_rows(200)).best_epoch_ > 0

    def test_processes(self):
        code = (
            "from helpers import curved_rows\n"
            "from test_training import KINDS, digest\n"
            "print(*(digest(kind, curved_rows(200)) for kind in KINDS.values()))"
        )
        assert run_python(code).split() == [digest(kind, curved_rows(200)) for kind in KINDS.values()]

    def test_threads(self):
        X = curved_rows(200)
        kinds = list(KINDS.values())
        alone = [bits(kind, X) for kind in kinds]
        with parallel_config("threading"):
            together = Parallel(n_jobs=4)(delayed(bits)(kind, X) for kind in 2 * kinds)
        assert together == 2 * alone

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_rows_standardised_once_or_batch_by_batch(self, dtype, monkeypatch, curved):
        X = curved.astype(dtype)
        once = bits(SEARCHED, X)
        monkeypatch.setattr("skae._data.dataset.RESIDENT_VALUES", 0)
        assert bits(SEARCHED, X) == once

    @pytest.mark.parametrize("parameters", [{"linear_skip": False}, {"early_stopping": False}])
    def test_without_a_seed_runs_differ(self, parameters, curved):
        kind = {**TRAINED, **parameters, "random_state": None}
        assert bits(kind, curved) != bits(kind, curved)

    def test_a_random_state_instance_is_drawn_from(self, curved):
        instance = np.random.RandomState(0)
        first = bits({**TRAINED, "random_state": instance}, curved)
        second = bits({**TRAINED, "random_state": instance}, curved)
        assert first != second
        assert bits({**TRAINED, "random_state": np.random.RandomState(0)}, curved) == first

    def test_seeds_differ(self, curved):
        assert bits({**TRAINED, "random_state": 1}, curved) != bits({**TRAINED, "random_state": 2}, curved)


def generator_states():
    """The state of every global generator."""
    numpy_state = np.random.get_state()
    return random.getstate(), numpy_state[1].tobytes(), numpy_state[2:], torch.random.get_rng_state().numpy().tobytes()


class TestGlobalState:
    @pytest.mark.parametrize("kind", KINDS)
    def test_left_alone(self, kind, curved):
        def settings():
            return torch.get_num_threads(), torch.get_default_dtype(), list(warnings.filters), torch.is_grad_enabled()

        AutoEncoderTransformer(**TINY).fit(curved)  # torch imports more of itself at its first steps, and adds filters
        before = generator_states(), settings(), np.geterr()
        estimator = AutoEncoderTransformer(**{**KINDS[kind], "random_state": 5}).fit(curved)
        estimator.inverse_transform(estimator.transform(curved))
        estimator.score(curved)
        assert (generator_states(), settings(), np.geterr()) == before

    def test_without_a_seed_only_numpys_generator_is_drawn_from(self, curved):
        """As in all of scikit-learn, None means numpy's global generator."""
        before = generator_states()
        AutoEncoderTransformer(**{**TRAINED, "random_state": None}).fit(curved)
        after = generator_states()
        assert after[0] == before[0]
        assert after[3] == before[3]
        np.random.seed(0)
        first = bits({**TRAINED, "random_state": None}, curved)
        np.random.seed(0)
        assert bits({**TRAINED, "random_state": None}, curved) == first

    def test_thread_count_survives_success_and_failure(self, curved):
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            AutoEncoderTransformer(**TRAINED).fit(curved).score(curved)
            assert torch.get_num_threads() == 3
            with pytest.raises(ValueError):
                AutoEncoderTransformer(**{**TRAINED, "lr": 1e30, "optimizer": "sgd"}).fit(curved)
            assert torch.get_num_threads() == 3
            with pytest.raises(KeyboardInterrupt):
                AutoEncoderTransformer(**TRAINED, callbacks=[Interrupt()]).fit(curved)
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    def test_thread_count_survives_fits_in_threads(self):
        """In this thread, in those that fitted, and in those that start afterwards."""
        code = (
            "import threading, torch\n"
            "from concurrent.futures import ThreadPoolExecutor\n"
            "from helpers import TRAINED, curved_rows\n"
            "from skae import AutoEncoderTransformer\n"
            "def in_new_thread():\n"
            "    seen = []\n"
            "    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))\n"
            "    thread.start(); thread.join()\n"
            "    return seen[0]\n"
            "together = threading.Barrier(4)\n"
            "def fits(index):\n"
            "    together.wait()\n"
            "    for seed in range(2):\n"
            "        parameters = {**TRAINED, 'random_state': seed}\n"
            "        AutoEncoderTransformer(2, **parameters).fit(curved_rows(50 + 10 * index))\n"
            "    together.wait()\n"
            "    return torch.get_num_threads()\n"
            "torch.set_num_threads(3)\n"
            "with ThreadPoolExecutor(4) as pool:\n"
            "    counts = list(pool.map(fits, range(4)))\n"
            "print(counts, torch.get_num_threads(), in_new_thread())"
        )
        assert run_python(code) == "[3, 3, 3, 3] 3 3"


class RegularizationStage(Callback):
    """Writes down how strongly each epoch is regularised."""

    def __init__(self, amounts):
        self.amounts = amounts

    def on_epoch_end(self, net, **kwargs):
        weight_decay = next(callback for _, callback in net.callbacks_ if hasattr(callback, "amount"))
        self.amounts.append((net.module_.corruption.amount, net.augment.amount, weight_decay.amount))


def amounts_of(X, **parameters):
    """The regularisation of each epoch, in its three parts."""
    amounts = []
    estimator = AutoEncoderTransformer(**{**SEARCHED, **parameters}, callbacks=[RegularizationStage(amounts)]).fit(X)
    assert len(amounts) == estimator.n_iter_
    return np.array(amounts)


class TestStages:
    def test_from_strong_to_light(self):
        """Progress that never counts ends each stage after the patience, and the training after the last."""
        amounts = amounts_of(curved_rows(200), tol=10.0)
        stages, lengths = np.unique(-amounts, axis=0, return_counts=True)
        assert lengths.tolist() == [4, 3, 3]  # the first epoch is what progress is measured from
        assert (np.diff(amounts, axis=0) <= 0).all()
        assert (-stages[0] > 0).all()
        assert stages[-1][1:].tolist() == [0, 0]

    def test_progress_prolongs_a_stage(self):
        amounts = amounts_of(curved_rows(200), tol=0.0)
        assert (amounts == amounts[0]).all(axis=1).sum() > 3

    @pytest.mark.parametrize("parameters", [{"early_stopping": False}, {"optimizer": "sgd", "early_stopping": False}])
    def test_without_held_out_rows_all_is_light(self, parameters):
        amounts = amounts_of(curved_rows(200), **parameters)
        assert (amounts[:, 1:] == 0).all()

    def test_a_warm_start_does_not_begin_anew(self):
        X, amounts = curved_rows(200), []
        estimator = AutoEncoderTransformer(**SEARCHED, warm_start=True).fit(X)
        estimator.set_params(callbacks=[RegularizationStage(amounts)]).fit(X)
        assert (np.array(amounts)[:, 1:] == 0).all()

    @pytest.mark.parametrize("n_samples, patience", [(200, 15), (8000, 11)])
    def test_automatic_patience(self, n_samples, patience):
        """Fewer epochs where each has many batches."""
        estimator = AutoEncoderTransformer(2, hidden_layer_sizes=4, tol=10.0, max_epochs=200, random_state=0)
        assert estimator.fit(curved_rows(n_samples)).n_iter_ == 3 * patience + 1

    def test_early_stages_take_a_bounded_number_of_steps(self, monkeypatch):
        """Many rows in batches of two reach the second stage after two epochs."""
        monkeypatch.setattr(fit, "EARLY_STEPS", 450)
        amounts = amounts_of(
            curved_rows(600), batch_size=2, max_epochs=3, validation_fraction=0.1
        )
        of_stage = [sum(1 for _ in epochs) for _, epochs in itertools.groupby(amounts.tolist())]
        assert of_stage == [2, 1]  # 270 batches an epoch, of 450 a stage

    def test_the_linear_path_learns(self):
        core = AutoEncoderTransformer(**TRAINED).fit(curved_rows()).net_.module_.network
        start = core.pca_encoding * core.output_gain
        assert not torch.allclose(core.linear_encoder, start, rtol=1e-3)


class TestHeldOutRows:
    @pytest.mark.parametrize("n_wild, searched", [(10, False), (45, True)])
    def test_a_few_rows_that_carry_the_variance_are_no_evidence(self, n_wild, searched):
        """Fewer than thirty effective rows leave PCA without a search."""
        X = curved_rows(300)
        X[:n_wild] *= 20
        estimator = AutoEncoderTransformer(2, **SMALL, random_state=0).fit(X)
        assert (estimator.n_iter_ > 0) == searched
        assert searched or estimator.score(X) == pytest.approx(PCA(2).fit(X).explained_variance_ratio_.sum())


class TestRefit:
    """Up to 20,000 rows the network is trained again on all; with more the one that passed is kept."""

    @pytest.mark.parametrize("n_samples, again", [(1000, True), (1001, False)])
    def test_many_rows_are_not_trained_on_twice(self, n_samples, again, monkeypatch):
        assert fit.LARGE_SAMPLE_SIZE == 20_000
        monkeypatch.setattr(fit, "LARGE_SAMPLE_SIZE", 1000)
        X = curved_rows(n_samples)
        kind = {"n_components": 2, "hidden_layer_sizes": 16, "max_epochs": 8, "random_state": 0}
        automatic, refit, found = (
            AutoEncoderTransformer(**kind, refit=refit).fit(X) for refit in ("auto", True, False)
        )
        assert automatic.best_epoch_ > 0
        np.testing.assert_allclose(automatic.mean_, X.mean(axis=0), atol=1e-12)
        assert automatic.score(X) > PCA(2).fit(X).explained_variance_ratio_.sum() + 0.01
        assert np.array_equal(automatic.transform(X), refit.transform(X)) == again
        if not again:  # the same search, but for the directions, which are those of all rows
            np.testing.assert_allclose(automatic.validation_scores_, found.validation_scores_, atol=1e-2)


class TestCallbacks:
    def test_none_and_nothing_are_the_same(self, curved):
        assert bits({**TINY, "callbacks": None}, curved) == bits({**TINY, "callbacks": []}, curved)

    @pytest.mark.parametrize("early_stopping", [True, False])
    def test_every_event_arrives_in_order(self, early_stopping):
        recorder = Recorder()
        parameters = {**SEARCHED, "max_epochs": 4, "early_stopping": early_stopping, "callbacks": [recorder]}
        estimator = AutoEncoderTransformer(**parameters).fit(curved_rows(200))
        events = recorder.events_
        assert events[0] == "train_begin"
        assert events[-1] == "train_end"
        assert events.count("train_begin") == events.count("train_end") == 1
        assert events.count("epoch_begin") == estimator.n_iter_ == 4
        assert ("held_out_batch" in events) == early_stopping
        records = [event for event in events if isinstance(event, dict)]
        assert [record["train_loss"] for record in records] == estimator.loss_curve_
        assert all(("valid_loss" in record) == early_stopping for record in records)

    def test_a_method_of_the_instance_is_called_too(self, curved):
        callback, heard = Callback(), []
        callback.on_batch_end = lambda net, **kwargs: heard.append(kwargs["training"])
        AutoEncoderTransformer(callbacks=[callback], **TRAINED).fit(curved)
        assert True in heard

    def test_a_callback_that_only_looks_changes_nothing(self, curved):
        assert bits({**TRAINED, "callbacks": [Recorder()]}, curved) == bits(TRAINED, curved)

    @pytest.mark.parametrize("entry", ["instance", "class", "pair", "pair with class"])
    def test_ways_to_name_a_callback(self, entry, curved):
        forms = {
            "instance": Interrupt(),
            "class": Interrupt,
            "pair": ("stop", Interrupt()),
            "pair with class": ("stop", Interrupt),
        }
        with pytest.raises(KeyboardInterrupt):
            AutoEncoderTransformer(2, **TRAINED, callbacks=[forms[entry]]).fit(curved)

    def test_a_tuple_of_callbacks(self, curved):
        with pytest.raises(KeyboardInterrupt):
            AutoEncoderTransformer(2, **TRAINED, callbacks=(Recorder(), Interrupt())).fit(curved)

    @pytest.mark.parametrize("entry", ["EarlyStopping", 5, dict, ("name", 5), ("a", Recorder, 3), None, len])
    @pytest.mark.parametrize("max_epochs", [0, 2])
    def test_what_is_no_callback(self, entry, max_epochs, curved):
        estimator = AutoEncoderTransformer(2, max_epochs=max_epochs, callbacks=[Recorder(), entry])
        with pytest.raises(TypeError, match="callbacks must hold skorch callbacks, their classes, or pairs .* got "):
            estimator.fit(curved)

    @pytest.mark.parametrize("early_stopping, monitor", [(True, "valid_loss"), (False, "train_loss")])
    def test_skorchs_early_stopping(self, early_stopping, monitor):
        """It ends training without an interrupt, and what was best so far is kept."""
        callback = EarlyStopping(monitor=monitor, patience=2, threshold=10.0, threshold_mode="abs")
        parameters = {**SEARCHED, "early_stopping": early_stopping, "callbacks": [callback]}
        estimator = AutoEncoderTransformer(**parameters).fit(curved_rows(200))
        assert estimator.n_iter_ == 3 < SEARCHED["max_epochs"]
        assert estimator.best_epoch_ <= 3
        assert np.isfinite(estimator.score(curved_rows(50, seed=1)))

    def test_learning_rate_scheduler(self):
        X = curved_rows(200)
        scheduler = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
        estimator = AutoEncoderTransformer(**SEARCHED, lr=0.01, callbacks=[scheduler]).fit(X)
        rates = estimator.net_.history[:, "event_lr"]
        np.testing.assert_allclose(rates, 0.01 * 0.5 ** np.arange(12), rtol=1e-6)
        assert bits({**SEARCHED, "lr": 0.01}, X) != bits({**SEARCHED, "lr": 0.01, "callbacks": [scheduler]}, X)

    def test_epoch_scoring(self, curved):
        scoring = EpochScoring(largest_absolute_error, name="worst", lower_is_better=True)
        estimator = AutoEncoderTransformer(**{**SEARCHED, "max_epochs": 3}, callbacks=[scoring]).fit(curved_rows(200))
        worst = estimator.net_.history[:, "worst"]
        assert len(worst) == 3
        assert all(error > 0 for error in worst)

    def test_checkpoint(self, tmp_path):
        checkpoint = Checkpoint(monitor=None, dirname=str(tmp_path), f_optimizer=None, f_criterion=None)
        AutoEncoderTransformer(**{**SEARCHED, "max_epochs": 3}, callbacks=[checkpoint]).fit(curved_rows(200))
        weights = torch.load(tmp_path / "params.pt", weights_only=True)
        assert all(torch.isfinite(weight).all() for weight in weights.values())

    def test_an_error_of_a_callback_is_the_users(self, curved):
        with pytest.raises(ZeroDivisionError):
            AutoEncoderTransformer(2, **TRAINED, callbacks=[Failing()]).fit(curved)

    def test_clone_and_grid_search_with_callbacks(self):
        estimator = AutoEncoderTransformer(**{**SEARCHED, "max_epochs": 2}, callbacks=[Recorder()])
        search = GridSearchCV(clone(estimator), {"n_components": [1, 2]}, cv=2).fit(curved_rows(100))
        assert search.best_estimator_.n_components == 2


class Failing(Callback):
    """Has a mistake."""

    def on_epoch_end(self, net, **kwargs):
        raise ZeroDivisionError


def largest_absolute_error(net, X, y):
    """A scorer such as a user would write for skorch."""
    return float(np.abs(net.predict(X) - np.asarray(y)).max())


class TestInterrupts:
    @pytest.mark.parametrize("at", ["on_train_begin", "on_batch_end", "on_epoch_end", "on_grad_computed"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_an_unfitted_estimator_stays_unfitted(self, kind, at, curved):
        estimator = AutoEncoderTransformer(**KINDS[kind], callbacks=[Interrupt(at)])
        before = dict(vars(estimator))
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(curved)
        assert vars(estimator) == before

    @pytest.mark.parametrize("warm_start", [False, True])
    def test_a_fitted_estimator_keeps_its_fit(self, warm_start, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=warm_start).fit(curved)
        codes, iterations = estimator.transform(curved), estimator.n_iter_
        estimator.set_params(callbacks=[Interrupt("on_batch_end")], max_epochs=9)
        before = dict(vars(estimator))
        with pytest.raises(KeyboardInterrupt):
            estimator.fit(curved + 1.0)
        assert vars(estimator) == before
        assert estimator.n_iter_ == iterations
        np.testing.assert_array_equal(estimator.transform(curved), codes)
        assert not estimator.net_.module_.training

    def test_together_with_skorchs_early_stopping(self, curved):
        """Its presence does not turn a user's interrupt into a stop."""
        callbacks = [EarlyStopping(monitor="train_loss"), Interrupt("on_epoch_end")]
        with pytest.raises(KeyboardInterrupt):
            AutoEncoderTransformer(2, **TRAINED, callbacks=callbacks).fit(curved)

    def test_a_grid_search_ends(self, curved):
        search = GridSearchCV(
            AutoEncoderTransformer(**TINY, callbacks=[Interrupt()], early_stopping=False),
            {"n_components": [1, 2]},
            cv=2,
            error_score=0.0,
        )
        with pytest.raises(KeyboardInterrupt):
            search.fit(curved)
        assert not hasattr(search, "best_estimator_")

    @pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to other processes")
    @pytest.mark.parametrize("where", ["fit", "grid search"])
    def test_a_real_signal(self, where, tmp_path):
        code = (
            "import signal, sys\n"
            "from helpers import curved_rows\n"
            "from sklearn.model_selection import GridSearchCV\n"
            "from skae import AutoEncoderTransformer\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a parent in the background ignores it
            "estimator = AutoEncoderTransformer(2, max_epochs=10**9, early_stopping=False)\n"
            "program = estimator\n"
            "if sys.argv[1] == 'grid search':\n"
            "    program = GridSearchCV(estimator, {'n_components': [1, 2]}, cv=2, error_score=0.0)\n"
            "X = curved_rows(300)\n"
            "estimator.set_params(verbose=2)\n"  # an epoch's line tells that training is on
            "try:\n"
            "    program.fit(X)\n"
            "except KeyboardInterrupt:\n"
            "    print('interrupted', [name for name in vars(program) if name.endswith('_')], flush=True)\n"
        )
        # Older torch leaves a folder of its own to be removed at the end.
        torchs_own = "ignore:Implicitly cleaning up:ResourceWarning"
        with subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-W", torchs_own, "-c", code, where],
            env=python_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            watchdog = threading.Timer(100, process.kill)
            watchdog.start()
            seen = []
            for line in process.stdout:
                seen.append(line)
                if len(seen) == 5:
                    os.kill(process.pid, signal.SIGINT)
                    sent = time.monotonic()
            process.wait()
            watchdog.cancel()
        assert seen[-1].startswith("interrupted"), "".join(seen[-30:])
        assert "net_" not in seen[-1]
        assert "best_estimator_" not in seen[-1]
        assert process.returncode == 0
        assert time.monotonic() - sent < 20


class TestOptimizers:
    @pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "lbfgs", torch.optim.RMSprop, torch.optim.Adam])
    def test_each_improves_on_pca(self, optimizer):
        X = curved_rows(200)
        trained = AutoEncoderTransformer(2, **{**TRAINED, "max_epochs": 15, "optimizer": optimizer}).fit(X)
        assert trained.score(X) > AutoEncoderTransformer(2, max_epochs=0).fit(X).score(X) + 0.01

    @pytest.mark.parametrize("n_components", [1, 2])
    def test_what_the_loss_curve_reaches_is_kept(self, n_components):
        """The loss that lbfgs sees has no noise in it: what it reached on all rows is what `score` measures."""
        X = curved_rows(200)
        parameters = {**TRAINED, "max_epochs": 10, "optimizer": "lbfgs"}
        estimator = AutoEncoderTransformer(n_components, **parameters).fit(X)
        assert estimator.score(X) > 1.0 - estimator.loss_curve_[-1] - 1e-3

    @pytest.mark.parametrize("optimizer", ["adam", "sgd", "lbfgs", torch.optim.Adam])
    def test_the_learning_rate_counts(self, optimizer, curved):
        kind = {**TRAINED, "optimizer": optimizer, "linear_skip": False}
        assert bits({**kind, "lr": 1e-3}, curved) != bits({**kind, "lr": 1e-5}, curved)

    def test_numpy_numbers_as_parameters(self, curved):
        kind = {"lr": np.float64(0.003), "max_epochs": np.int64(5), "alpha": np.float32(0), "batch_size": np.int32(20)}
        plain = {"lr": 0.003, "max_epochs": 5, "alpha": 0.0, "batch_size": 20}
        assert bits({**TRAINED, **kind}, curved) == bits({**TRAINED, **plain}, curved)


class TestWarmStart:
    @pytest.mark.parametrize("kind", ["all_rows", "no_skip", "searched"])
    def test_goes_on(self, kind):
        X = curved_rows(200)
        estimator = AutoEncoderTransformer(**{**KINDS[kind], "warm_start": True, "max_epochs": 3}).fit(X)
        first = estimator.score(X)
        for _ in range(6):
            estimator.fit(X)
        assert estimator.score(X) > first

    def test_begins_where_the_fit_before_ended(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(curved)
        codes = estimator.transform(curved)
        np.testing.assert_array_equal(estimator.set_params(max_epochs=0).fit(curved).transform(curved), codes)

    def test_the_first_fit_is_like_any(self, curved):
        assert bits({**TRAINED, "warm_start": True}, curved) == bits(TRAINED, curved)

    @pytest.mark.parametrize(
        "changed", [{"n_components": 3}, {"hidden_layer_sizes": 9}, {"activation": "tanh"}, {"linear_skip": False}]
    )
    def test_another_network_is_refused(self, changed, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(curved)
        with pytest.raises(
            ValueError, match="warm_start=True needs the network of the previous fit.* Set warm_start=False"
        ):
            estimator.set_params(**changed).fit(curved)

    def test_another_width_is_refused(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(curved)
        with pytest.raises(ValueError, match="warm_start=True needs the network of the previous fit"):
            estimator.fit(noise_rows())

    def test_another_dtype(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(curved)
        assert estimator.fit(curved.astype(np.float32)).transform(curved.astype(np.float32)).dtype == np.float32

    def test_of_a_clone_is_a_fresh_start(self, curved):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(curved)
        first = estimator.transform(curved)
        np.testing.assert_array_equal(clone(estimator.fit(curved)).fit(curved).transform(curved), first)


class TestOutput:
    @pytest.mark.parametrize("kind", KINDS)
    def test_silent_by_default(self, kind, curved, capfd):
        AutoEncoderTransformer(**KINDS[kind]).fit(curved)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("early_stopping", [True, False])
    def test_much_verbosity_prints_a_line_for_each_epoch(self, early_stopping, capfd):
        parameters = {**SEARCHED, "max_epochs": 3, "verbose": 2, "early_stopping": early_stopping}
        AutoEncoderTransformer(**parameters).fit(curved_rows(200))
        lines = capfd.readouterr().out.splitlines()
        assert "train_loss" in lines[0]
        assert [line.split()[0] for line in lines if line.split()[0].isdigit()] == ["1", "2", "3"]
