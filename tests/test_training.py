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
from threadpoolctl import threadpool_limits

from skae import AutoEncoderTransformer
from skae._training import fit
from skae._training.schedule import STRONG, WEAK

KINDS = {
    "searched": SEARCHED,
    "all_rows": TRAINED,
    "no_skip": {**TINY, "linear_skip": False},
    "lbfgs": {**TRAINED, "optimizer": "lbfgs", "max_epochs": 2, "batch_size": "auto"},
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

    @pytest.mark.skipif(os.cpu_count() == 1, reason="there is one thread")
    def test_threads_of_numpy(self):
        """A wide table is trained in a basis; its coordinates are the same for any number of threads of NumPy."""
        X, scores = noise_rows(2000, 617), []
        for n_threads in (1, 2):
            with threadpool_limits(n_threads, user_api="blas"):
                estimator = AutoEncoderTransformer(2, hidden_layer_sizes=8, max_epochs=1, random_state=0).fit(X)
            scores.append(estimator.validation_scores_)
        assert scores[0] == scores[1]

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


class Strengths(Callback):
    """Writes down the learning rate of each step, and how strongly it is regularized."""

    def __init__(self, steps):
        self.steps = steps

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            schedule = next(callback for _, callback in net.callbacks_ if hasattr(callback, "decay"))
            decay = schedule.decay * schedule.n_batches
            rate = net.optimizer_.param_groups[0]["lr"]
            self.steps.append((schedule.noise.amount, schedule.difference.amount, decay, rate))


def steps_of(X, **parameters):
    """The estimator, and noise, augmentation, weight decay and learning rate of each step of its first training."""
    steps = []
    estimator = AutoEncoderTransformer(**{**SEARCHED, "lr": 0.02, **parameters}, callbacks=[Strengths(steps)]).fit(X)
    steps = np.array(steps)
    assert len(steps) % estimator.n_iter_ == 0
    return estimator, steps, len(steps) // estimator.n_iter_


def assert_falls(steps, regularization, peak, position=0.0):
    """Regularization goes linearly from its first strength to its last, the learning rate from its peak to zero."""
    n_steps = len(steps)
    first, last = np.transpose([regularization.noise, regularization.difference, regularization.weight_decay])
    first = first + position * (last - first)
    np.testing.assert_allclose(steps[:, :3], np.linspace(first, last, n_steps), atol=1e-12)
    warm_up = np.minimum(1.0, np.arange(1, n_steps + 1) / (0.05 * n_steps))
    np.testing.assert_allclose(steps[:, 3], peak * warm_up * (1.0 - np.arange(n_steps) / n_steps), rtol=1e-6)


class TestSchedule:
    """Runs, in each of which the learning rate falls to zero, while held-out samples gain."""

    @pytest.fixture(autouse=True)
    def short_runs(self, monkeypatch):
        """Let the first run have 40 steps, ten epochs of 180 samples, and all of them 160."""
        monkeypatch.setattr(fit, "FIRST_STEPS", 40)
        monkeypatch.setattr(fit, "MOST_STEPS", 160)

    def test_a_first_run_is_regularized_strongly(self):
        estimator, steps, n_batches = steps_of(curved_rows(200), tol=10.0, max_epochs=100)
        assert n_batches == 4
        assert estimator.validation_epochs_[:2] == [0, 10]
        assert_falls(steps[:40], STRONG, 0.02)

    def test_weak_ones_follow_that_double_the_budget(self):
        estimator, steps, _ = steps_of(curved_rows(200), tol=1e-6, max_epochs=100)
        assert estimator.validation_epochs_[:4] == [0, 10, 20, 40]
        ends = np.multiply(estimator.validation_epochs_[1:4], 4)
        for start, stop in itertools.pairwise(ends):
            assert_falls(steps[start:stop], WEAK, 0.02)

    def test_a_gain_below_the_tolerance_ends_the_search(self):
        estimator, _, _ = steps_of(curved_rows(200), tol=0.02, max_epochs=100)
        expected = zip(estimator.validation_epochs_, [0, 10, 20, 40], strict=False)
        runs = list(itertools.takewhile(lambda epochs: epochs[0] == epochs[1], expected))
        gains = np.diff(estimator.validation_scores_[: len(runs)])
        assert len(gains) > 1
        assert (gains[:-1] > 0.02).all()
        assert gains[-1] < 0.02

    def test_the_tuning_is_tried_first(self, monkeypatch):
        """They begin where regularization is half way between its strengths, at half the learning rate."""
        monkeypatch.setattr(fit, "LARGE_GAIN", np.inf)
        estimator, steps, _ = steps_of(curved_rows(200), tol=10.0, max_epochs=100)
        start, stop = estimator.validation_epochs_[2:4]
        assert start == 20  # a gain that never counts ends the search after the first weak run
        assert stop - start == 12  # half of the hundred steps that are taken on all samples
        assert_falls(steps[4 * start : 4 * stop], WEAK, 0.01, position=0.5)

    def test_a_large_gain_needs_no_trial(self, monkeypatch):
        monkeypatch.setattr(fit, "LARGE_GAIN", 1e-3)
        estimator, _, _ = steps_of(curved_rows(200), tol=10.0, max_epochs=100)
        assert estimator.validation_epochs_ == [0, 10, 20]

    def test_little_that_is_left_ends_the_search(self, monkeypatch):
        monkeypatch.setattr(fit, "LITTLE_LEFT", 0.5)
        estimator, _, _ = steps_of(curved_rows(200), tol=0.0, max_epochs=100)
        assert 20 not in estimator.validation_epochs_

    @pytest.mark.parametrize("max_epochs", [1, 3, 10])
    def test_max_epochs_bounds_the_search(self, max_epochs):
        estimator, steps, _ = steps_of(curved_rows(200), max_epochs=max_epochs)
        assert estimator.validation_epochs_[1] == max_epochs
        assert_falls(steps[: 4 * max_epochs], STRONG, 0.02)

    def test_many_samples_have_longer_runs(self):
        """Three quarters of a power more from 2000 samples on."""
        estimator, _, n_batches = steps_of(curved_rows(6000), tol=10.0, max_epochs=100, batch_size=256)
        assert estimator.validation_epochs_[1] * n_batches == pytest.approx(40 * 2.7**0.75, abs=n_batches / 2)

    def test_without_held_out_rows_one_run_is_like_the_first(self):
        estimator, steps, _ = steps_of(curved_rows(200), early_stopping=False)
        assert estimator.n_iter_ == SEARCHED["max_epochs"]
        assert_falls(steps, STRONG, 0.02)

    def test_without_held_out_rows_the_automatic_length_is_that_of_two_first_runs(self):
        estimator, steps, n_batches = steps_of(curved_rows(200), early_stopping=False, max_epochs="auto")
        assert estimator.n_iter_ * n_batches == 80

    @pytest.mark.parametrize("optimizer", ["sgd", "adamw", torch.optim.RMSprop])
    def test_whatever_the_optimizer(self, optimizer):
        _, steps, _ = steps_of(curved_rows(200), optimizer=optimizer, early_stopping=False)
        assert_falls(steps, STRONG, 0.02)

    def test_a_warm_start_does_not_begin_anew(self):
        X, steps = curved_rows(200), []
        estimator = AutoEncoderTransformer(**SEARCHED, lr=0.02, warm_start=True).fit(X)
        estimator.set_params(callbacks=[Strengths(steps)], max_epochs=10).fit(X)
        assert_falls(np.array(steps)[:40], WEAK, 0.01)

    def test_the_linear_path_learns(self):
        core = AutoEncoderTransformer(**TRAINED).fit(curved_rows()).net_.module_.network
        start = core.pca_encoding * core.output_gain
        assert not torch.allclose(core.linear_encoder, start, rtol=1e-3)


class TestHeldOutRows:
    @pytest.mark.parametrize("n_wild, searched", [(10, False), (90, True)])
    def test_a_few_rows_that_carry_the_variance_are_no_evidence(self, n_wild, searched):
        """Fewer than thirty effective rows leave PCA without a search."""
        X = curved_rows(300)
        X[:n_wild] *= 20
        estimator = AutoEncoderTransformer(2, **SMALL, random_state=0).fit(X)
        assert (estimator.n_iter_ > 0) == searched
        assert searched or estimator.score(X) == pytest.approx(PCA(2).fit(X).explained_variance_ratio_.sum())


class Trainings(Callback):
    """Writes down on how many samples each net is trained; what has a method for gradients acts in every training."""

    seen = ()

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        type(self).seen += (len(X),)

    def on_grad_computed(self, net, named_parameters, **kwargs):
        pass


class TestLastSteps:
    """What held-out samples have found good is trained a little on all samples, if a trial keeps the gain."""

    @pytest.fixture
    def trainings(self, monkeypatch):
        monkeypatch.setattr(Trainings, "seen", ())
        return Trainings

    def test_on_all_samples(self, trainings):
        X = curved_rows(200)
        estimator = AutoEncoderTransformer(**SEARCHED, callbacks=[trainings]).fit(X)
        *searched, last = trainings.seen
        assert searched
        assert max(searched) < last == 200
        np.testing.assert_allclose(estimator.mean_, X.mean(axis=0), atol=1e-12)
        assert estimator.score(X) > PCA(2).fit(X).explained_variance_ratio_.sum() + 0.01

    def test_not_where_the_trial_loses_the_gain(self, trainings, monkeypatch):
        monkeypatch.setattr(fit, "LARGE_GAIN", np.inf)
        monkeypatch.setattr(fit, "GAIN_LEFT", 2.0)
        X = curved_rows(200)
        estimator = AutoEncoderTransformer(**SEARCHED, callbacks=[trainings]).fit(X)
        assert max(trainings.seen) < 200
        assert estimator.best_epoch_ > 0
        assert estimator.score(X) > PCA(2).fit(X).explained_variance_ratio_.sum() + 0.01

    def test_not_where_validation_samples_are_given(self, trainings):
        X = curved_rows(200)
        parameters = {**SEARCHED, "validation_split": curved_rows(80, seed=1), "callbacks": [trainings]}
        assert AutoEncoderTransformer(**parameters).fit(X).best_epoch_ > 0
        assert trainings.seen == (200,)

    @pytest.mark.parametrize("n_samples, n_sets", [(200, 2), (1000, 1)])
    def test_few_samples_are_held_out_in_several_sets(self, n_samples, n_sets, trainings):
        kind = {**SEARCHED, "max_epochs": 2, "callbacks": [trainings]}
        AutoEncoderTransformer(**kind).fit(curved_rows(n_samples))
        assert trainings.seen[:n_sets] == (9 * n_samples // 10,) * n_sets
        assert len(trainings.seen) <= n_sets + 1


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
        assert events.count("epoch_begin") == estimator.n_iter_
        assert estimator.n_iter_ in ((6, 8) if early_stopping else (4,))  # one or two trials of two epochs
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
        assert estimator.n_iter_ > 12  # the trial too
        np.testing.assert_allclose(rates, 0.01 * 0.5 ** np.arange(estimator.n_iter_), rtol=1e-6)
        assert bits({**SEARCHED, "lr": 0.01}, X) != bits({**SEARCHED, "lr": 0.01, "callbacks": [scheduler]}, X)

    def test_epoch_scoring(self, curved):
        scoring = EpochScoring(largest_absolute_error, name="worst", lower_is_better=True)
        estimator = AutoEncoderTransformer(**{**SEARCHED, "max_epochs": 3}, callbacks=[scoring]).fit(curved_rows(200))
        worst = estimator.net_.history[:, "worst"]
        assert len(worst) == estimator.n_iter_ > 3
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
        trained = AutoEncoderTransformer(
            2,
            **{
                **TRAINED,
                "max_epochs": 15,
                "optimizer": optimizer,
                "batch_size": "auto" if optimizer == "lbfgs" else 20,
            },
        ).fit(X)
        assert trained.score(X) > AutoEncoderTransformer(2, max_epochs=0).fit(X).score(X) + 0.01

    @pytest.mark.parametrize("n_components", [1, 2])
    def test_what_the_loss_curve_reaches_is_kept(self, n_components):
        """The loss that lbfgs sees has no noise in it: what it reached on all rows is what `score` measures."""
        X = curved_rows(200)
        parameters = {**TRAINED, "max_epochs": 10, "optimizer": "lbfgs", "batch_size": "auto"}
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
        estimator.set_params(max_epochs=12).fit(X)
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
        estimator = AutoEncoderTransformer(**parameters).fit(curved_rows(200))
        lines = capfd.readouterr().out.splitlines()
        assert "train_loss" in lines[0]
        assert [line.split()[0] for line in lines if line.split()[0].isdigit()] == [
            str(epoch) for epoch in range(1, estimator.n_iter_ + 1)
        ]
