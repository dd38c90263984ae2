"""How far a fit has come: scikit-learn's callbacks and the bar."""

import io
import pickle
import sys

import numpy as np
import pytest
import sklearn
from helpers import TINY, curved_rows, run_python
from joblib import parallel_config
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.fixes import parse_version

import skae
from skae import AutoEncoderTransformer

# PCA explains most of the variance, so that the tuning is tried first. Four epochs do not order the codes: if they had
# to be ordered, PCA would be kept.
SEARCHED = {**TINY, "n_components": 3, "hidden_layer_sizes": 64, "max_epochs": 4, "batch_size": 32, "ordered": False}
with_callbacks = pytest.mark.skipif(
    parse_version(sklearn.__version__) < parse_version("1.9.dev0"), reason="scikit-learn has callbacks since 1.9"
)


@pytest.fixture(scope="module")
def rows():
    return curved_rows(300)


class Told:
    """A callback that notes what it is told, and may ask to stop."""

    max_propagation_depth = None

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.tasks, self.results, self.set_up = [], [], 0

    def setup(self, estimator, context):
        self.set_up += 1

    def teardown(self, estimator, context):
        self.set_up -= 1

    def on_fit_task_begin(self, estimator, context):
        self.tasks.append(f"+{context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.tasks.append(f"-{context.task_name}")
        if fitted_estimator is not None:
            self.results.append((context.task_name, fitted_estimator, X, y, metadata))
        return self.stop_after is not None and self.tasks.count("-epoch") >= self.stop_after


def share_explained(estimator, X, y, sample_weight=None):
    """Scores by name, as ScoringMonitor takes them."""
    return {"explained": estimator.score(X, sample_weight=sample_weight)}


@with_callbacks
class TestCallbacks:
    def test_tasks(self, rows):
        told = Told()
        fitted = AutoEncoderTransformer(**SEARCHED).set_callbacks(told).fit(rows)
        n_trial = fitted.n_iter_ - 4
        n_tuning = told.tasks.count("-epoch") - fitted.n_iter_
        parts = {"search": 4, "trial": n_trial, "tuning": n_tuning}
        epochs = [[f"+{name}", *["+epoch", "-epoch"] * count, f"-{name}"] for name, count in parts.items()]
        assert told.tasks == ["+fit", *sum(epochs, []), "-fit"]
        assert n_trial > 0
        assert n_tuning > 0
        assert told.set_up == 0

    def test_without_held_out_rows(self, rows):
        told = Told()
        AutoEncoderTransformer(**{**SEARCHED, "early_stopping": False}).set_callbacks(told).fit(rows)
        assert told.tasks == ["+fit", "+training", *["+epoch", "-epoch"] * 4, "-training", "-fit"]

    @pytest.mark.parametrize("early_stopping", [True, False])
    @pytest.mark.parametrize("whiten", [True, False])
    def test_results_so_far(self, rows, early_stopping, whiten):
        told = Told()
        parameters = {**SEARCHED, "early_stopping": early_stopping, "whiten": whiten}
        fitted = AutoEncoderTransformer(**parameters).set_callbacks(told).fit(rows)
        *_, (name, last, X, y, _), (whole, result, _, _, _) = told.results
        assert (name, whole) == ("epoch", "fit")
        assert X is y is rows
        # Nothing comes after the last epoch but the decision to keep it.
        np.testing.assert_array_equal(last.transform(rows), fitted.transform(rows))
        np.testing.assert_array_equal(result.transform(rows), fitted.transform(rows))
        codes = [one.transform(rows) for _, one, *_ in told.results]
        assert not np.array_equal(codes[0], codes[1])
        assert [len(one.loss_curve_) for _, one, *_ in told.results][:4] == [1, 2, 3, 4]

    def test_looking_changes_nothing(self, rows):
        fitted = AutoEncoderTransformer(**SEARCHED).set_callbacks(Told()).fit(rows)
        alone = AutoEncoderTransformer(**SEARCHED).fit(rows)
        np.testing.assert_array_equal(fitted.transform(rows), alone.transform(rows))
        assert fitted.validation_scores_ == alone.validation_scores_

    def test_stop(self, rows):
        told = Told(stop_after=2)
        fitted = AutoEncoderTransformer(**SEARCHED).set_callbacks(told).fit(rows)
        assert fitted.n_iter_ == fitted.best_epoch_ == 2
        assert told.tasks[-2:] == ["-search", "-fit"]

    @pytest.mark.parametrize(("stop_after", "part"), [(5, "trial"), (8, "tuning")])
    def test_stop_in_later_parts(self, rows, stop_after, part):
        told = Told(stop_after)
        fitted = AutoEncoderTransformer(**SEARCHED).set_callbacks(told).fit(rows)
        assert told.tasks.count("-epoch") == stop_after
        assert told.tasks[-2:] == [f"-{part}", "-fit"]
        assert fitted.best_epoch_ == fitted.n_iter_

    def test_stop_in_a_trial_without_gain(self, rows):
        """Nothing else is tried then."""
        told = Told(stop_after=5)
        fitted = AutoEncoderTransformer(**SEARCHED, lr=0.1).set_callbacks(told).fit(rows)
        assert fitted.best_epoch_ == 4
        assert fitted.validation_epochs_ == [0, 4, 5]
        assert told.tasks.count("-epoch") == fitted.n_iter_ == 5

    def test_stop_in_training(self, rows):
        fitted = AutoEncoderTransformer(**{**SEARCHED, "early_stopping": False}).set_callbacks(Told(1)).fit(rows)
        assert fitted.n_iter_ == 1

    def test_scores(self, rows):
        from sklearn.callback import ScoringMonitor

        weights = np.arange(len(rows)) % 3.5
        monitor = ScoringMonitor(scoring=share_explained)
        fitted = AutoEncoderTransformer(**SEARCHED).set_callbacks(monitor).fit(rows, sample_weight=weights)
        log = monitor.get_logs().data
        epochs = [entry["explained"] for entry in log if entry["task_name"] == "epoch"]
        assert len(epochs) > fitted.n_iter_
        assert log[0]["task_name"] == "fit"
        assert log[0]["explained"] == fitted.score(rows, sample_weight=weights) == epochs[-1]

    @pytest.mark.parametrize("backend", ["sequential", "loky"])
    def test_nested(self, backend):
        pytest.importorskip("rich")
        from sklearn.callback import ProgressBar, ScoringMonitor

        X, y = load_digits(return_X_y=True)
        monitor = ScoringMonitor(scoring=share_explained)
        autoencoder = AutoEncoderTransformer(**{**SEARCHED, "max_epochs": 2}).set_callbacks(monitor)
        pipeline = make_pipeline(StandardScaler(), autoencoder, LogisticRegression(max_iter=5, tol=1.0))
        search = GridSearchCV(pipeline, {"autoencodertransformer__n_components": [1, 2]}, cv=2)
        search.set_callbacks(ProgressBar(max_propagation_depth=None))
        shown = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, parallel_config(backend, n_jobs=2):
            patch.setattr(sys, "stdout", shown)
            search.fit(X[:200], y[:200])
        lines = shown.getvalue().splitlines()
        assert sum("AutoEncoderTransformer - search" in line for line in lines) == 5
        epochs = [entry for entry in monitor.get_logs().data if entry["task_name"] == "epoch"]
        assert {entry["estimator_name"] for entry in epochs} == {"AutoEncoderTransformer"}
        assert len({entry["task_id_path"] for entry in epochs}) == len(epochs) >= 5 * 2
        assert all(-1 < entry["explained"] < 1 for entry in epochs)

    def test_error_ends_every_callback_and_changes_nothing(self, rows):
        told = Told()
        estimator = AutoEncoderTransformer(**SEARCHED).set_callbacks(told)
        before = dict(vars(estimator))
        with pytest.raises(ValueError, match="NaN"):
            estimator.fit(np.full_like(rows, np.nan))
        assert told.set_up == 0
        assert vars(estimator) == before

    def test_clone_and_files(self, rows, tmp_path):
        told = Told()
        fitted = AutoEncoderTransformer(**SEARCHED).set_callbacks(told).fit(rows)
        told.results.clear()
        n_tasks = len(told.tasks)
        clone(fitted).fit(rows)
        assert len(told.tasks) == 2 * n_tasks
        told.results.clear()
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(rows), fitted.transform(rows))
        skae.save(fitted, tmp_path / "one.skae")
        loaded = skae.load(tmp_path / "one.skae")
        assert "_skl_callbacks" not in vars(loaded)
        np.testing.assert_array_equal(loaded.transform(rows), fitted.transform(rows))


def test_before_there_were_callbacks():
    code = (
        "import sys\n"
        "import sklearn.neighbors, sklearn.pipeline, sklearn.preprocessing, skorch\n"
        "sys.modules['sklearn.callback'] = None\n"
        "from skae._training.progress import CallbackSupportMixin, EpochReport, FitTasks, Progress\n"
        "estimator = CallbackSupportMixin()\n"
        "tasks = FitTasks(estimator, [[1.0]], {})\n"
        "progress = Progress([tasks])\n"
        "with tasks.whole(dict), progress.part('search', 3):\n"
        "    progress.epoch_begins()\n"
        "    progress.epoch_ends(EpochReport(0.5, 0.5, 0, tuple))\n"
        "assert progress.stopped is False\n"
        "try:\n"
        "    estimator.set_callbacks(object())\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert run_python(code).startswith('set_callbacks needs scikit-learn 1.9 or newer: pip install "scikit-learn>=1.9"')


class TestBar:
    def test_epochs_losses_and_time_left(self, rows, capfd):
        fitted = AutoEncoderTransformer(**{**SEARCHED, "verbose": 1}).fit(rows)
        out, err = capfd.readouterr()
        assert out == ""
        search, trial, tuning = (line.split("\r")[-1] for line in err.strip().split("\n"))
        assert search.startswith("search: 100%")
        assert "4/4 [" in search
        assert "epoch/s" in search or "s/epoch" in search
        assert f"train_loss={fitted.loss_curve_[3]:.4f}" in search
        assert "valid_loss=" in search
        assert "best_epoch=0" in search  # nothing is compared before a run is over
        assert trial.startswith("trial: 100%")
        assert f"train_loss={fitted.loss_curve_[-1]:.4f}" in trial
        assert "valid_loss=" in trial
        assert "best_epoch=4" in trial
        assert tuning.startswith("tuning: 100%")
        assert "valid_loss" not in tuning

    def test_without_held_out_rows(self, rows, capfd):
        fitted = AutoEncoderTransformer(**{**SEARCHED, "verbose": 1, "early_stopping": False}).fit(rows)
        (line,) = capfd.readouterr().err.strip().split("\n")
        assert line.split("\r")[-1].startswith("training: 100%")
        assert f"train_loss={fitted.loss_curve_[-1]:.4f}" in line

    def test_changes_nothing(self, rows):
        shown = AutoEncoderTransformer(**{**SEARCHED, "verbose": 1}).fit(rows)
        np.testing.assert_array_equal(
            shown.transform(rows), AutoEncoderTransformer(**SEARCHED).fit(rows).transform(rows)
        )

    def test_an_error_ends_the_bar(self, rows, capfd):
        diverging = {**SEARCHED, "verbose": 1, "lr": 1e30, "optimizer": "sgd"}
        with pytest.raises(ValueError, match="train_loss became"):
            AutoEncoderTransformer(**diverging).fit(rows)
        assert capfd.readouterr().err.endswith("\n")
