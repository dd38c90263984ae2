"""Files: what goes in comes out, and whatever else comes in is refused and runs nothing."""

import copy
import os
import pickle
import stat
from functools import partial
from unittest.mock import Mock

import joblib
import numpy as np
import pytest
import skops.io
import skorch
import torch
from helpers import TINY, TRAINED, curved_rows, run_python, tiny
from numpy.random import PCG64, RandomState
from numpy.testing import assert_array_equal, assert_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import skae
from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, Contractive, Denoising, Huber, Regularizer, Sparse

X = curved_rows()
LABELS = (X[:, 0] > 0).astype(int)
IMAGES = load_digits().data[:60] / 16
PARAMETERS = {
    "defaults": {},
    "pca": {"activation": "identity"},
    "pca beside wide layers": {"activation": "identity", "hidden_layer_sizes": "auto"},
    "plain": {"linear_skip": False, "hidden_layer_sizes": (4, 3), "decoder_layer_sizes": [5]},
    "tied": {"architecture": "tied", "normalization": "layer", "dropout": 0.1},
    "poisson": {"loss": "poisson", "normalization": "batch", "allow_nan": True, "whiten": True},
    "bernoulli": {"loss": "binary_cross_entropy", "regularizer": "variational"},
    "objects": {
        "loss": Huber(delta=np.float32(0.3)),
        "regularizer": [Sparse(weight=np.float64(0.1)), "denoising", Contractive(n_probes=1)],
    },
    "pair": {"loss": Huber(delta=float("inf")), "regularizer": (Denoising(kind="swap"), "sparse"), "callbacks": []},
    "arrays": {"hidden_layer_sizes": np.array([5, 4]), "early_stopping": True, "validation_split": np.abs(X[:10])},
    "scalars": {"alpha": np.float64(1e-3), "activation": np.str_("relu"), "tol": np.float16(0.5)},
    "more scalars": {"batch_size": np.int64(20), "whiten": np.bool_(True), "linear_skip": np.bool_(True)},
    "torch": {"optimizer": torch.optim.RMSprop, "device": torch.device("cpu"), "lr": 1e-3},
    "options": {"optimizer": "adamw", "optimizer_params": {"betas": (0.8, 0.9), "amsgrad": True, "eps": np.float64(1)}},
    "splitter": {"early_stopping": True, "validation_split": ShuffleSplit(2, random_state=0)},
    "images": {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (2, 3, 4)},
    "series": {"architecture": "conv", "input_shape": (2, 32), "hidden_layer_sizes": (2, 3, 4)},
}


OF_IMAGES = ("images", "series", "bernoulli")


def fitted(name):
    rows = IMAGES if name in OF_IMAGES else np.abs(X)
    return AutoEncoderTransformer(2, **{**TINY, "early_stopping": False, **PARAMETERS[name]}).fit(rows)


def detector():
    return AutoEncoderOutlierDetector(AutoEncoderTransformer(1, **TINY), contamination=0.1).fit(X)


def grid_search():
    pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(2, **TINY), LogisticRegression())
    return GridSearchCV(pipeline, {"autoencodertransformer__n_components": [1, 2]}, cv=KFold(2)).fit(X, LABELS)


# What is saved, and samples to compare it with what is loaded.
WHOLE = {name: (partial(fitted, name), IMAGES if name in OF_IMAGES else np.abs(X)) for name in PARAMETERS}
WHOLE |= {
    "single precision, far samples": (lambda: AutoEncoderTransformer(2, **TRAINED).fit(X.astype("f")), 100 * X),
    "double precision, far samples": (lambda: AutoEncoderTransformer(2, **TRAINED).fit(X), 100 * X),
    "detector": (detector, X),
    "detector of defaults": (lambda: AutoEncoderOutlierDetector(random_state=0).fit(X[:20]), X),
    "grid search": (grid_search, X),
    "pipeline": (lambda: grid_search().best_estimator_, X),
    "transformer before fit": (lambda: AutoEncoderTransformer(3), None),
    "detector before fit": (AutoEncoderOutlierDetector, None),
}
METHODS = ("transform", "score_samples", "decision_function", "predict_proba")


def round_trip(estimator, path):
    skae.save(estimator, path)
    return skae.load(path)


class TestRoundTrip:
    @pytest.mark.parametrize("name", WHOLE)
    def test_everything_is_as_it_was(self, name, path):
        make, rows = WHOLE[name]
        estimator = make()
        there = round_trip(estimator, path)
        copied, results = pickle.loads(pickle.dumps(estimator)), "cv_results_"  # which have masks, of which is no hash
        assert_equal(*(vars(one).pop(results, None) for one in (there, copied)))
        assert joblib.hash(there) == joblib.hash(copied)
        writable = {name: value.flags.writeable for name, value in vars(estimator).items() if type(value) is np.ndarray}
        assert {name: vars(there)[name].flags.writeable for name in writable} == writable
        for method in METHODS if rows is not None else ():
            if hasattr(estimator, method):
                assert_array_equal(getattr(there, method)(rows), getattr(estimator, method)(rows))
        if hasattr(estimator, "net_"):
            codes = estimator.transform(rows)
            assert_array_equal(there.inverse_transform(codes), estimator.inverse_transform(codes))
            assert there.net_.module_.mean.dtype == estimator.net_.module_.mean.dtype

    @pytest.mark.parametrize("container", ["pandas", "polars"])
    def test_names_and_output(self, container, path):
        names = list("abcdß")
        frame = pytest.importorskip(container).DataFrame(dict(zip(names, X.T, strict=True)))
        estimator = AutoEncoderTransformer(2, **TINY).set_output(transform=container).fit(frame)
        there = round_trip(estimator, path)
        assert there.feature_names_in_.tolist() == names
        assert type(there.transform(frame)) is type(frame)
        assert_array_equal(there.transform(frame).to_numpy(), estimator.transform(frame).to_numpy())

    def test_the_same_estimator_gives_the_same_bytes(self, saved, tmp_path):
        skae.save(skae.load(saved), tmp_path / "b.skae")
        assert saved.read_bytes() == (tmp_path / "b.skae").read_bytes()

    @pytest.mark.parametrize(
        "parameters, groups",
        [
            ({**TRAINED, "warm_start": True}, None),
            ({**TRAINED, "random_state": RandomState(3)}, None),
            ({**TINY, "validation_split": GroupKFold(3)}, np.arange(60) // 6),
        ],
    )
    def test_fits_go_on(self, parameters, groups, path):
        estimator = AutoEncoderTransformer(2, **parameters).fit(X, groups=groups)
        there = round_trip(estimator, path).fit(X, groups=groups)
        assert_array_equal(there.transform(X), estimator.fit(X, groups=groups).transform(X))

    @pytest.mark.parametrize("n_chunks", [1, 4])
    @pytest.mark.parametrize(
        "parameters",
        [{}, {"regularizer": "denoising", "dropout": 0.2}, {"optimizer": "sgd"}, {"early_stopping": False}],
    )
    def test_streams_go_on(self, n_chunks, parameters, path):
        """To the last bit, also once loaded and saved again."""
        rows = curved_rows(400)
        estimator = AutoEncoderTransformer(2, **{**TINY, **parameters})
        for chunk in np.split(rows[: 40 * n_chunks], n_chunks):
            estimator.partial_fit(chunk)
        there = round_trip(round_trip(estimator, path), path)
        for chunk in np.split(rows[200:], 4):
            assert_array_equal(there.partial_fit(chunk).transform(rows), estimator.partial_fit(chunk).transform(rows))
        assert there.loss_curve_ == estimator.loss_curve_

    def test_devices_and_tensors_that_are_not_here(self, path):
        estimator = copy.deepcopy(tiny())
        estimator.device_, estimator.mean_ = "cuda:7", torch.from_numpy(estimator.mean_)
        there = round_trip(estimator, path)
        assert there.device_ == "cpu"
        assert_array_equal(there.mean_, tiny().mean_)
        assert_array_equal(there.transform(X), tiny().transform(X))
        assert isinstance(pickle.loads(pickle.dumps(estimator)).mean_, torch.Tensor)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_size(self, dtype, path):
        """Three hundred epochs of default parameters, of digits, on few samples or many: little but the weights."""
        sizes, draw = [], RandomState(0).uniform
        for n_samples in (100, 1500):
            rows = load_digits().data[:n_samples].astype(dtype)
            estimator = AutoEncoderTransformer(8, max_epochs=1, early_stopping=False, random_state=0).fit(rows)
            (epoch,) = estimator.net_.history
            changing = [name for name in epoch if isinstance(epoch[name], float)]
            for index in range(2, 301):
                estimator.net_.history.append({**epoch, "epoch": index, **dict.fromkeys(changing, draw())})
            estimator.n_iter_ = 300
            estimator.loss_curve_ = estimator.validation_scores_ = draw(size=300).tolist()
            skae.save(estimator, path)
            weights = sum(value.numpy().nbytes for value in estimator.net_.module_.state_dict().values())
            sizes.append(path.stat().st_size)
            assert sizes[-1] < 1.2 * weights
        assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[0]


def halve(x_hat, x):
    return (x_hat - x).abs().sqrt()


PCG = RandomState(PCG64(0))


class Mine(Regularizer):
    pass


class Net(torch.nn.Linear):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.decode = torch.nn.Linear(n_components, n_features)
        self.encode = self.forward


class Own(AutoEncoderTransformer):
    pass


def of_own_network():
    return AutoEncoderTransformer(2, module=Net, **TINY).fit(X)


def with_nan():
    estimator = copy.deepcopy(tiny())
    estimator.net_.module_.network.encoder[0].bias.data[1] = np.nan
    return estimator


class TestRefusedAtSave:
    @pytest.mark.parametrize(
        "parameters, held",
        [
            ({"loss": halve}, "test_persistence.halve"),
            ({"loss": lambda x_hat, x: x}, "test_persistence.<lambda>"),
            ({"loss": torch.nn.L1Loss(reduction="none")}, "torch.nn.modules.loss.L1Loss"),
            ({"regularizer": Mine()}, "test_persistence.Mine"),
            ({"regularizer": ["sparse", Mine()]}, "test_persistence.Mine"),
            ({"module": Net}, "test_persistence.Net"),
            ({"module": Net(5, 2)}, "what skops cannot take apart"),
            ({"callbacks": [("stop", skorch.callbacks.EarlyStopping)]}, "skorch.callbacks.training.EarlyStopping"),
            ({"optimizer": type("Mine", (torch.optim.SGD,), {})}, "test_persistence.Mine"),
        ],
    )
    def test_code(self, parameters, held, tmp_path):
        (name,) = parameters
        estimator = AutoEncoderTransformer(**parameters)
        for whole, where in (
            (estimator, name),
            (AutoEncoderOutlierDetector(estimator), f"estimator__{name}"),
            (make_pipeline(StandardScaler(), estimator), f"autoencodertransformer__{name}"),
        ):
            message = f"^{where}=.* cannot be saved: it holds .*{held}.* no other code. .* pickle or joblib"
            with pytest.raises(TypeError, match=message) as caught:
                skae.save(whole, tmp_path / "a.skae")
            assert "set_params(callbacks=None)" in str(caught.value)
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        "make, error, message",
        [
            (lambda: None, TypeError, "must be an estimator of skae or scikit-learn, got None"),
            (lambda: 3, TypeError, "must be an estimator of skae or scikit-learn, got 3"),
            (lambda: AutoEncoderTransformer, TypeError, "must be an estimator of skae or scikit-learn, got <class"),
            (lambda: halve, TypeError, "must be an estimator of skae or scikit-learn, got <function"),
            (Own, TypeError, "cannot be saved: it holds test_persistence.Own"),
            (lambda: DecisionTreeClassifier().fit(X, LABELS), TypeError, "it holds sklearn.tree._tree.Tree"),
            (lambda: of_own_network().set_params(module=None), TypeError, "it holds what skops cannot take apart"),
            (
                lambda: AutoEncoderTransformer(random_state=PCG),
                ValueError,
                "^random_state=.* skae.load would refuse it",
            ),
            (with_nan, ValueError, "'network.encoder.0.bias' has NaN in 1 of 2 values, but none is"),
        ],
    )
    def test_estimators(self, make, error, message, tmp_path):
        with pytest.raises(error, match=message):
            skae.save(make(), tmp_path / "a.skae")
        assert os.listdir(tmp_path) == []

    def test_too_large(self, saved, monkeypatch):
        monkeypatch.setattr("skae.persistence.MOST_BYTES", 3000)
        with pytest.raises(ValueError, match=r"The estimator takes \d+ bytes, but at most 3000 can be saved"):
            skae.save(tiny(), saved)
        with pytest.raises(ValueError, match=r"it has \d+ bytes, but at most 3000 are allowed"):
            skae.load(saved)


class TestWriting:
    @pytest.mark.parametrize("name", ["replace", "fsync"])
    @pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
    def test_a_failure_leaves_what_was_there(self, name, error, path, monkeypatch):
        path.write_bytes(b"before")
        monkeypatch.setattr(os, name, Mock(side_effect=error))
        with pytest.raises(type(error)):
            skae.save(tiny(), path)
        assert os.listdir(path.parent) == ["a.skae"]
        assert path.read_bytes() == b"before"

    def test_a_folder_that_is_not_there(self, tmp_path):
        for path in (tmp_path / "no" / "a.skae", tmp_path):
            with pytest.raises(OSError):
                skae.save(tiny(), path)
            with pytest.raises(OSError):
                skae.load(path)
        assert os.listdir(tmp_path) == []
        assert not [name for name in os.listdir(tmp_path.parent) if name.endswith(".tmp")]

    @pytest.mark.skipif(os.name != "posix", reason="no modes, no links")
    def test_modes_and_links(self, path):
        path.write_bytes(b"before")
        link = path.with_name("link")
        link.symlink_to(path)
        before = os.umask(0o027)
        try:
            skae.save(tiny(), str(link))
        finally:
            os.umask(before)
        assert link.is_symlink()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        skae.load(str(link))


@pytest.mark.parametrize("how", [pickle, joblib])
@pytest.mark.parametrize("version", [1, 99, None])
@pytest.mark.parametrize("make", [tiny, detector])
def test_states_of_another_version(make, version, how, path, monkeypatch):
    estimator = make()
    with monkeypatch.context() as patched, open(path, "wb") as file:
        patched.setattr("skae._network.state.FORMAT_VERSION", version)
        how.dump(estimator, file)
    message = rf"this AutoEnc\w+ was saved in format {version} by skae 0.1.*, but this skae, 0.1.*, reads format 5: fit"
    with open(path, "rb") as file, pytest.raises(ValueError, match=message):
        how.load(file)


def test_a_state_without_version():
    state = {name: value for name, value in tiny().__getstate__().items() if name != "_format_version"}
    with pytest.raises(ValueError, match="saved in format None"):
        AutoEncoderTransformer().__setstate__(state)


def test_nothing_is_unpickled(path, monkeypatch):
    estimator = AutoEncoderTransformer(2, **{**TINY, "random_state": RandomState(3)}).fit(X)
    skae.save(estimator, path)
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, Mock(side_effect=AssertionError("load has unpickled something")))
    assert_array_equal(skae.load(path).transform(X), estimator.transform(X))


LOAD = """
import sys, numpy, skops.io, skae
saved, dumped, rows, result = sys.argv[1:]
X = numpy.load(rows)
estimator = skae.load(saved)
untrusted = skops.io.get_untrusted_types(file=dumped)
pipeline = skops.io.load(dumped, trusted=untrusted)
numpy.savez(result, codes=estimator.transform(X), probabilities=pipeline.predict_proba(X))
sys.stdout.write(" ".join(untrusted))
"""
OWN_TYPE = "skae._autoencoder.AutoEncoderTransformer"


class TestOtherFiles:
    def test_skops_alone_in_another_process(self, tmp_path):
        paths = [tmp_path / name for name in ("a.skae", "a.skops", "rows.npy", "result.npz")]
        estimator = AutoEncoderTransformer(2, **TRAINED)
        pipeline = make_pipeline(StandardScaler(), estimator, LogisticRegression()).fit(X, LABELS)
        skae.save(estimator, paths[0])
        skops.io.dump(pipeline, paths[1])
        np.save(paths[2], X)
        assert run_python(LOAD, *paths) == OWN_TYPE
        with np.load(paths[3]) as there:
            assert_array_equal(there["codes"], estimator.transform(X))
            assert_array_equal(there["probabilities"], pipeline.predict_proba(X))

    def test_skops_opens_a_file_of_save(self, saved):
        assert_array_equal(skops.io.load(saved, trusted=[OWN_TYPE]).transform(X), tiny().transform(X))

    @pytest.mark.parametrize("how", ["skops", "cloudpickle"])
    def test_mlflow(self, how, tmp_path):
        mlflow = pytest.importorskip("mlflow.sklearn", exc_type=ImportError)
        trusted = {"skops_trusted_types": [OWN_TYPE]} if how == "skops" else {}
        mlflow.save_model(tiny(), str(tmp_path / "a"), serialization_format=how, pip_requirements=["skae"], **trusted)
        assert_array_equal(mlflow.load_model(str(tmp_path / "a")).transform(X), tiny().transform(X))

    @pytest.mark.parametrize("how", [pickle, joblib])
    @pytest.mark.parametrize("make", [tiny, of_own_network])
    def test_pickle_and_joblib(self, make, how, path):
        estimator = make()
        with open(path, "wb") as file:
            how.dump(estimator, file)
        with open(path, "rb") as file:
            assert_array_equal(how.load(file).transform(X), estimator.transform(X))
