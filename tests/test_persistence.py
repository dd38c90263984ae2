"""Files: what goes in comes out, and whatever else comes in is refused and runs nothing."""

import copy
import functools
import hashlib
import io
import json
import os
import pickle
import random
import stat
import warnings
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
import torch
from helpers import TINY, TRAINED, curved_rows, run_python
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import (
    AutoEncoderOutlierDetector,
    AutoEncoderTransformer,
    Contractive,
    Denoising,
    Huber,
    Regularizer,
    Sparse,
    _archive,
    _persistence,
    _to_dict,
)
from skae._network.architecture import Architecture

FILES = Path(__file__).parent / "files"
PROTOCOLS = range(1, _persistence.PROTOCOL + 1)
SEAL = _archive.SEAL
X = curved_rows()
IMAGES = load_digits().data[:60] / 16
PARAMETERS = {
    "defaults": {},
    "pca": {"activation": "identity"},
    "plain": {"linear_skip": False, "hidden_layer_sizes": (4, 3), "decoder_layer_sizes": [5]},
    "tied": {"architecture": "tied", "normalization": "layer", "dropout": 0.1},
    "poisson": {"loss": "poisson", "normalization": "batch", "allow_nan": True, "whiten": True},
    "bernoulli": {"loss": "binary_cross_entropy", "regularizer": "variational"},
    "objects": {
        "loss": Huber(delta=np.float32(0.3)),
        "regularizer": [Sparse(weight=np.float64(0.1)), "denoising", Contractive(n_probes=1)],
    },
    "pair": {"regularizer": (Denoising(kind="swap"), "sparse"), "callbacks": []},
    "numpy": {
        "hidden_layer_sizes": np.array([5, 4]),
        "alpha": np.float64(1e-3),
        "activation": np.str_("relu"),
        "batch_size": np.int64(20),
        "tol": np.float16(0.5),
        "whiten": np.bool_(True),
    },
    "torch": {"optimizer": torch.optim.RMSprop, "device": torch.device("cpu"), "lr": 1e-3},
    "options": {
        "optimizer": "adamw",
        "optimizer_params": {"betas": (0.8, 0.9), "amsgrad": True, "eps": np.float64(1e-7)},
    },
    "a generator": {"random_state": np.random.RandomState(3)},
    "no end": {"loss": Huber(delta=float("inf"))},
    "images": {"architecture": "conv", "input_shape": (1, 8, 8), "hidden_layer_sizes": (2, 3, 4)},
}


def fitted(name):
    rows = IMAGES if name in ("images", "bernoulli") else np.abs(X)
    return AutoEncoderTransformer(2, **{**TINY, "early_stopping": False, **PARAMETERS[name]}).fit(rows), rows


@functools.cache
def tiny():
    """The smallest network that has left PCA."""
    settings = {"max_epochs": 10, "early_stopping": False, "lr": 0.1, "random_state": 2}
    estimator = AutoEncoderTransformer(1, hidden_layer_sizes=2, **settings)
    return estimator.fit(X)


def same(a, b):
    """Whether two values are equal, and of equal types all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.flags.writeable == b.flags.writeable and np.array_equal(a, b)
    if isinstance(a, np.random.RandomState):
        return same(a.get_state(), b.get_state())
    if isinstance(a, skae.Loss | Regularizer):
        return same(a.get_params(), b.get_params())
    return a == b or (a != a and b != b)


def content(path):
    """Members of a file, in their order, as name and bytes."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sealed(body):
    """The same file with the digest that belongs to it."""
    body = bytes(body[:-64])
    return body + hashlib.sha256(body).hexdigest().encode()


def forged(path, members, method=zipfile.ZIP_STORED):
    """Write a file like those of save, from pairs of a name and bytes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of names that are there twice
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.comment = SEAL + b"0" * 64
            for name, data in members:
                archive.writestr(name, data, zipfile.ZIP_DEFLATED if name == "skae.json" else None)
    path.write_bytes(sealed(path.read_bytes()))
    return path


def opened(path):
    """Document and arrays of a file."""
    members = content(path)
    document = json.loads(members.pop("skae.json"))
    return document, {name.removesuffix(".npy"): np.load(io.BytesIO(data)) for name, data in members.items()}


def closed(path, document, arrays):
    """Write a document and arrays with all the right sums."""
    members = {"skae.json": json.dumps(document), **{f"{name}.npy": npy(array) for name, array in arrays.items()}}
    return forged(path, members.items())


def edited(path, estimator, edit):
    """Save an estimator, change its document and arrays in place, and write it again."""
    skae.save(estimator, path)
    document, arrays = opened(path)
    edit(document, arrays)
    return closed(path, document, arrays)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def round_trip(estimator, path):
    skae.save(estimator, path)
    return skae.load(path)


class TestRoundTrip:
    @pytest.mark.parametrize("name", PARAMETERS)
    def test_everything_is_as_it_was(self, name, tmp_path):
        estimator, rows = fitted(name)
        there = round_trip(estimator, tmp_path / "a.skae")
        assert type(there) is AutoEncoderTransformer
        assert same(there.get_params(deep=False), estimator.get_params(deep=False))
        assert set(vars(there)) == set(vars(estimator))
        learnt = {key for key in vars(estimator) if key.endswith("_")} - {"net_"}
        assert all(same(getattr(there, key), getattr(estimator, key)) for key in learnt)
        assert same(list(there.net_.history), list(pickle.loads(pickle.dumps(estimator)).net_.history))
        codes = estimator.transform(rows)
        assert_array_equal(there.transform(rows), codes)
        assert_array_equal(there.inverse_transform(codes), estimator.inverse_transform(codes))
        assert_array_equal(there.score_samples(rows), estimator.score_samples(rows))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_precision_and_far_rows(self, dtype, tmp_path):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(X.astype(dtype))
        there = round_trip(estimator, tmp_path / "a.skae")
        assert there.net_.module_.mean.dtype == estimator.net_.module_.mean.dtype
        assert_array_equal(there.transform(100 * X), estimator.transform(100 * X))

    @pytest.mark.parametrize("estimator", [None, AutoEncoderTransformer(2, **TRAINED, loss=Huber())])
    def test_detector(self, estimator, tmp_path):
        detector = AutoEncoderOutlierDetector(estimator, contamination=0.1, random_state=0).fit(X[:20])
        there = round_trip(detector, tmp_path / "a.skae")
        assert str(there.get_params()) == str(detector.get_params())
        assert there.offset_ == detector.offset_
        assert_array_equal(there.decision_function(X), detector.decision_function(X))

    @pytest.mark.parametrize("container", ["pandas", "polars"])
    def test_names_and_output(self, container, tmp_path):
        names = list("abcdß")
        frame = pytest.importorskip(container).DataFrame(dict(zip(names, X.T, strict=True)))
        estimator = AutoEncoderTransformer(2, **TINY).set_output(transform=container).fit(frame)
        there = round_trip(estimator, tmp_path / "a.skae")
        assert there.feature_names_in_.tolist() == names
        assert type(there.transform(frame)) is type(frame)
        assert_array_equal(there.transform(frame).to_numpy(), estimator.transform(frame).to_numpy())

    @pytest.mark.parametrize("estimator", [AutoEncoderTransformer(3), AutoEncoderOutlierDetector()])
    def test_before_fit(self, estimator, tmp_path):
        estimator.remark_ = "not learnt"
        there = round_trip(estimator.__sklearn_clone__(), tmp_path / "a.skae")
        assert str(there.get_params()) == str(estimator.get_params())
        assert set(vars(round_trip(estimator, tmp_path / "a.skae"))) == set(vars(estimator)) - {"remark_"}

    def test_the_tiny_one_is_no_pca(self):
        assert tiny().best_epoch_ > 0
        assert tiny().score(X) > AutoEncoderTransformer(1, max_epochs=0).fit(X).score(X) + 0.03

    def test_the_same_estimator_gives_the_same_bytes(self, tmp_path):
        skae.save(tiny(), tmp_path / "a.skae")
        skae.save(skae.load(tmp_path / "a.skae"), tmp_path / "b.skae")
        assert (tmp_path / "a.skae").read_bytes() == (tmp_path / "b.skae").read_bytes()

    def test_training_goes_on(self, tmp_path):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(X)
        there = round_trip(estimator, tmp_path / "a.skae")
        assert_array_equal(there.fit(X).transform(X), estimator.fit(X).transform(X))

    def test_a_device_that_is_missing_here(self, tmp_path):
        estimator = copy.deepcopy(tiny())
        estimator.device_ = "cuda:7"
        there = round_trip(estimator, tmp_path / "a.skae")
        assert there.device_ == "cpu"
        assert_array_equal(there.transform(X), tiny().transform(X))

    def test_numpy_opens_the_arrays(self, tmp_path):
        skae.save(tiny(), tmp_path / "a.skae")
        with np.load(tmp_path / "a.skae", allow_pickle=False) as arrays:
            assert_array_equal(arrays["mean_"], tiny().mean_)

    def test_other_attributes_stay_behind(self, tmp_path):
        estimator = copy.deepcopy(tiny())
        estimator.remark, estimator._remark = "mine", "mine"
        assert set(vars(round_trip(estimator, tmp_path / "a.skae"))) == set(vars(tiny()))

    def test_what_was_changed_after_fit(self, tmp_path):
        estimator = copy.deepcopy(tiny()).set_params(n_components=3, max_epochs=7, callbacks=None)
        there = round_trip(estimator, tmp_path / "a.skae")
        assert there.n_components == 3
        assert_array_equal(there.transform(X), tiny().transform(X))


def halve(x_hat, x):
    return (x_hat - x).abs().sqrt()


class Mine(Regularizer):
    pass


class Net(torch.nn.Linear):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.decode = torch.nn.Linear(n_components, n_features)
        self.encode = self.forward


class TestRefusedAtSave:
    @pytest.mark.parametrize(
        "parameters, name",
        [
            ({"loss": halve}, "loss"),
            ({"loss": torch.nn.L1Loss(reduction="none")}, "loss"),
            ({"regularizer": Mine()}, "regularizer"),
            ({"regularizer": ["sparse", Mine()]}, "regularizer/1"),
            ({"module": Net}, "module"),
            ({"callbacks": [("stop", skae._net.EarlyStopping)]}, "callbacks/0/1"),
            ({"optimizer": type("Mine", (torch.optim.SGD,), {})}, "optimizer"),
            ({"random_state": np.random.RandomState(np.random.PCG64(0))}, "random_state"),
        ],
    )
    def test_code(self, parameters, name, tmp_path):
        for estimator, where in (
            (AutoEncoderTransformer(**parameters), name),
            (AutoEncoderOutlierDetector(AutoEncoderTransformer(**parameters)), f"estimator/{name}"),
        ):
            with pytest.raises(TypeError, match=f"^{where}=.* cannot be saved: .* no code.* pickle or joblib"):
                skae.save(estimator, tmp_path / "a.skae")
        assert os.listdir(tmp_path) == []

    def test_a_network_of_ones_own(self, tmp_path):
        estimator = AutoEncoderTransformer(2, module=Net, **TINY).fit(X).set_params(module=None)
        with pytest.raises(TypeError, match="^_network/architecture/module="):
            skae.save(estimator, tmp_path / "a.skae")

    @pytest.mark.parametrize(
        "estimator",
        [StandardScaler(), make_pipeline(AutoEncoderTransformer()), type("Own", (AutoEncoderTransformer,), {})(), None],
    )
    def test_no_estimator(self, estimator, tmp_path):
        with pytest.raises(TypeError, match="must be an AutoEncoderTransformer or AutoEncoderOutlierDetector, got"):
            skae.save(estimator, tmp_path / "a.skae")

    def test_a_detector_around_something_else(self, tmp_path):
        pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer())
        with pytest.raises(TypeError, match="^estimator=Pipeline"):
            skae.save(AutoEncoderOutlierDetector(pipeline), tmp_path / "a.skae")

    def test_what_load_would_refuse(self, tmp_path):
        with pytest.raises(ValueError, match="'max_epochs' parameter of AutoEncoderTransformer"):
            skae.save(AutoEncoderTransformer(max_epochs=-1), tmp_path / "a.skae")
        estimator = copy.deepcopy(tiny())
        estimator.net_.module_.core.encoder[0].bias.data[1] = np.nan
        with pytest.raises(ValueError, match=r"'core.encoder.0.bias' has NaN in 1 of 2 values, but none is"):
            skae.save(estimator, tmp_path / "a.skae")
        assert os.listdir(tmp_path) == []

    def test_too_large(self, tmp_path, monkeypatch):
        monkeypatch.setattr(_archive, "MOST_BYTES", 3000)
        with pytest.raises(ValueError, match=r"The estimator takes \d+ bytes, but at most 3000 can be saved"):
            skae.save(tiny(), tmp_path / "a.skae")
        monkeypatch.setattr(_archive, "MOST_DOCUMENT_BYTES", 100)
        with pytest.raises(ValueError, match=r"All but the arrays takes \d+ bytes, but at most 100 can be saved"):
            skae.save(tiny(), tmp_path / "a.skae")


class TestWriting:
    @pytest.mark.parametrize("name", ["replace", "fsync"])
    @pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
    def test_a_failure_leaves_what_was_there(self, name, error, tmp_path, monkeypatch):
        (tmp_path / "a.skae").write_bytes(b"before")

        def fail(*args):
            raise error

        monkeypatch.setattr(os, name, fail)
        with pytest.raises(type(error)):
            skae.save(tiny(), tmp_path / "a.skae")
        assert os.listdir(tmp_path) == ["a.skae"]
        assert (tmp_path / "a.skae").read_bytes() == b"before"

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            skae.save(tiny(), tmp_path / "no" / "a.skae")
        with pytest.raises(OSError):
            skae.save(tiny(), tmp_path)
        assert os.listdir(tmp_path) == []
        assert not [name for name in os.listdir(tmp_path.parent) if name.endswith(".tmp")]

    def test_it_takes_the_place_of_another(self, tmp_path):
        path = tmp_path / "a.skae"
        path.write_bytes(b"before")
        skae.save(tiny(), str(path))
        skae.load(str(path))
        assert os.listdir(tmp_path) == ["a.skae"]

    @pytest.mark.skipif(os.name != "posix", reason="no modes, no links")
    def test_modes_and_links(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "a.skae")
        before = os.umask(0o027)
        try:
            skae.save(tiny(), tmp_path / "link")
        finally:
            os.umask(before)
        assert (tmp_path / "link").is_symlink()
        assert stat.S_IMODE((tmp_path / "a.skae").stat().st_mode) == 0o640

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_size(self, dtype, tmp_path):
        """Default parameters and three hundred epochs, of digits, on few rows or many."""
        sizes = []
        for n_samples in (100, 1500):
            rows = load_digits().data[:n_samples].astype(dtype)
            estimator = AutoEncoderTransformer(8, max_epochs=1, early_stopping=False, random_state=0).fit(rows)
            noise = np.random.RandomState(n_samples)
            epoch = dict(estimator.net_.history[0])
            changing = [name for name in epoch if isinstance(epoch[name], float)]
            for index in range(2, 301):
                estimator.net_.history.append({**epoch, "epoch": index, **dict.fromkeys(changing, noise.uniform())})
            estimator.n_iter_, estimator.loss_curve_ = 300, noise.uniform(size=300).tolist()
            estimator.validation_scores_ = noise.uniform(size=301).tolist()
            skae.save(estimator, tmp_path / "a.skae")
            weights = sum(value.numpy().nbytes for value in estimator.net_.module_.state_dict().values())
            sizes.append((tmp_path / "a.skae").stat().st_size)
            assert sizes[-1] < 1.2 * weights
        assert abs(sizes[0] - sizes[1]) < 0.01 * sizes[0]


def in_network(name, value):
    """An edit of the architecture."""

    def edit(document, arrays):
        document["estimator"]["state"]["_network"]["dict"]["architecture"]["dict"][name] = value

    return edit


def in_state(name, value):
    def edit(document, arrays):
        document["estimator"]["state"][name] = value

    return edit


def in_parameters(name, value):
    def edit(document, arrays):
        document["estimator"]["parameters"][name] = value

    return edit


def in_document(name, value):
    def edit(document, arrays):
        document[name] = value

    return edit


def in_array(name, change):
    def edit(document, arrays):
        arrays[f"_network/arrays/{name}"] = change(arrays[f"_network/arrays/{name}"])

    return edit


def without(*path):
    def edit(document, arrays):
        for name in path[:-1]:
            document = document[name]
        del document[path[-1]]

    return edit


def nan_at_end(array):
    array.flat[-1] = np.nan
    return array


NETWORK = ("estimator", "state", "_network", "dict")
FORGED = {
    "protocol": (in_document("protocol", 2), r"in protocol 2 by skae '0.1.*this skae, 0.1.*, reads protocols 1 to 1"),
    "no protocol": (in_document("protocol", "1"), "in protocol '1' by skae"),
    "true protocol": (in_document("protocol", True), "in protocol True by skae"),
    "format": (in_document("format", "other"), "its format is 'other', but must be 'skae'"),
    "more in the document": (in_document("code", "import os"), "has 'code' that is not known here"),
    "less in it": (without("estimator"), "the document lacks 'estimator'"),
    "no object": (in_document("estimator", [1]), r"it holds \[1\], which is no estimator"),
    "a loss": (in_document("estimator", {"object": "Huber", "parameters": {}}), r"it holds Huber\(\), which is no"),
    "class": (without("estimator", "object"), "estimator lacks 'object'"),
    "unknown class": (
        in_document("estimator", {"object": "os.system", "parameters": {}}),
        "estimator is an object of class 'os.system', but only AutoEncoderTransformer, AutoEncoderOutlierDetector, Sq",
    ),
    "class of no name": (in_document("estimator", {"object": [], "parameters": {}}), r"of class \[\], but only"),
    "unknown kind": (in_parameters("alpha", {"eval": "1"}), "alpha is of kind 'eval', but only float, tuple"),
    "private kind": (in_parameters("alpha", {"_init__": 1}), "alpha is of kind '_init__'"),
    "unknown parameter": (in_parameters("depth", 3), "AutoEncoderTransformer's parameters .* has 'depth' that"),
    "no parameters": (in_document("estimator", {"object": "Huber", "parameters": 3}), "must be a dict, got int"),
    "parameter": (in_parameters("max_epochs", -1), "The 'max_epochs' parameter of AutoEncoderTransformer"),
    "a class as a loss": (
        in_parameters("loss", {"object": "Sparse", "parameters": {}}),
        "The 'loss' parameter of AutoEncoderTransformer",
    ),
    "a loss with a state": (
        in_parameters("loss", {"object": "Huber", "parameters": {}, "state": {"elementwise": 3}}),
        "loss lacks nothing and has 'state'",
    ),
    "float": (in_parameters("tol", {"float": "1"}), "tol must be one of 'nan', 'inf', '-inf', got '1'"),
    "optimizer": (
        in_parameters("optimizer", {"optimizer": "Optimizer"}),
        "optimizer must be one of .*'SGD', .*, got 'Optimizer'",
    ),
    "device": (in_parameters("device", {"device": "disk"}), "device is no device: 'disk'"),
    "scalar": (in_parameters("tol", {"scalar": ["object", 1]}), "tol must be one of 'float64', .* got 'object'"),
    "scalar of one": (in_parameters("tol", {"scalar": 1}), "tol is no scalar: 1"),
    "scalar beyond": (
        in_parameters("tol", {"scalar": ["float32", 1e300]}),
        r"tol is no scalar: \['float32', 1e\+300\]",
    ),
    "tuple": (in_parameters("input_shape", {"tuple": "abc"}), "input_shape must be list, got 'abc'"),
    "an array that is missing": (in_parameters("input_shape", {"array": "x"}), "an array 'x', which is missing"),
    "an array twice": (in_state("mean_", {"array": "_network/arrays/mean"}), "is missing, or is referred to twice"),
    "an array too many": (lambda d, a: a.update({"../../x": np.zeros(1)}), "array '../../x' to which nothing refers"),
    "an array too few": (lambda d, a: a.pop("mean_"), "refers to an array 'mean_', which is missing"),
    "attribute": (in_state("transform", 3), "has no attribute 'transform' that fit makes"),
    "property": (in_state("__class__", "x"), "has no attribute '__class__' that"),
    "no network": (without("estimator", "state", "_network"), "state lacks '_network'"),
    "no state": (
        in_document("estimator", {"object": "AutoEncoderTransformer", "parameters": {}, "state": 3}),
        "got int",
    ),
    "output": (in_state("_sklearn_output_config", {"dict": {"transform": "csv"}}), r"the output is .*'csv'.*'polars'"),
    "features": (in_state("n_features_in_", 6), "n_features_in_ is 6, but the network has 5"),
    "components": (in_state("n_components_", 2), "n_components_ is 2, but the network has 1"),
    "components as a float": (in_state("n_components_", 1.0), "n_components_ must be an int of at least 0, got 1.0"),
    "mean": (in_state("mean_", [1.0]), r"mean_ is not that of the network: \[1.0\]"),
    "curve": (in_state("loss_curve_", [1]), r"loss_curve_ must be a list of float, got \[1\]"),
    "epochs": (in_state("n_iter_", 6), "best_epoch_=10, n_iter_=6 and 10 values in loss_curve_ do not belong together"),
    "where": (in_state("device_", 7), "device_ must be a string, got 7"),
    "names": (in_state("feature_names_in_", {"strings": ["a"]}), "feature_names_in_ must be 5 strings, got array"),
    "names of numbers": (in_state("feature_names_in_", {"strings": [1]}), "feature_names_in_ must be str, got 1"),
    "network": (in_state("_network", 3), "the network must be a dict, got int"),
    "arrays": (without(*NETWORK, "arrays", "dict", "scale"), "the network lacks 'scale' and has nothing"),
    "history": (
        lambda d, a: d["estimator"]["state"]["_network"]["dict"].update(history=[3]),
        "the history of the netw",
    ),
    "activation": (in_network("activation", "softmax"), "has activation='softmax', but allowed are .*'relu'"),
    "kind": (in_network("kind", "module"), "has kind='module', but allowed are"),
    "module": (in_network("module", "os"), "has module='os', but allowed are"),
    "link": (in_network("link", "probit"), "has link='probit', but allowed are"),
    "switch": (in_network("linear_skip", 1), "has linear_skip=1, but allowed are"),
    "dropout": (in_network("dropout", 1.0), "has dropout=1.0, but allowed are floats from 0 to below 1"),
    "field": (in_network("hooks", 1), "the architecture lacks nothing and has 'hooks' that is not known"),
    "size": (
        in_network("n_features", 10**12),
        "has n_features=1000000000000, but allowed are sizes up to the 78 values",
    ),
    "sizes": (in_network("encoder_sizes", {"tuple": [70, 70, 70]}), "the network lacks 'core.encoder.4.weight'"),
    "too many sizes": (in_network("encoder_sizes", {"tuple": [2] * 99}), "has encoder_sizes=.*, but allowed are sizes"),
    "other size": (in_network("encoder_sizes", {"tuple": [4]}), "encoder.0.weight' has .*asks for .'float64', .4, 5.."),
    "shape": (in_network("input_shape", {"tuple": [1, 1]}), None),
    "images": (in_network("kind", "conv"), "cannot be built: architecture='conv' needs input_shape"),
    "pca beside nothing": (in_network("kind", "pca"), "the network lacks nothing and has 'core.encoding'"),
    "transposed": (in_array("core.encoding", np.transpose), "'core.encoding' is no .npy file|'core.encoding' has"),
    "precision": (in_array("core.encoding", np.float32), "'core.encoding' has .'float32'.*asks for .'float64'"),
    "whole numbers": (in_array("mean", lambda a: a.astype(int)), "computes in int64, but only float64 and float32 are"),
    "complex": (in_array("mean", lambda a: a + 0j), "'_network/arrays/mean.npy' is no .npy file of version 1.0"),
    "objects": (in_array("scale", lambda a: np.array(["x"])), "'_network/arrays/scale.npy' is no .npy file"),
    "nan": (in_array("core.encoder.0.bias", nan_at_end), "'core.encoder.0.bias' has NaN in 1 of 2 values, but none is"),
}


class TestForged:
    """The sums are right, but no estimator says such things."""

    @pytest.mark.parametrize("name", FORGED)
    def test_it_is_refused(self, name, tmp_path):
        edit, message = FORGED[name]
        path = edited(tmp_path / "a.skae", tiny(), edit)
        if message is None:
            assert_array_equal(skae.load(path).transform(X), tiny().transform(X))
            return
        with pytest.raises(ValueError, match=message) as caught:
            skae.load(path)
        assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded: ")
        assert os.listdir(tmp_path) == ["a.skae"]

    @pytest.mark.parametrize(
        "state, message",
        [
            ({"pos": 625}, "is at position 625, but must be at one of 0 to 624"),
            ({"pos": -1}, "is at position -1"),
            ({"pos": 1.0}, "is at position 1.0"),
            ({"key": [1, 2]}, "must be ndarray, got .1, 2."),
        ],
    )
    def test_random_state(self, state, message, tmp_path):
        def edit(document, arrays):
            generator = document["estimator"]["parameters"]["random_state"]["random_state"]
            generator["state"]["dict"].update(state)

        estimator = AutoEncoderTransformer(random_state=np.random.RandomState(0))
        with pytest.raises(ValueError, match=message):
            skae.load(edited(tmp_path / "a.skae", estimator, edit))

    @pytest.mark.parametrize(
        "name, value, message",
        [
            ("offset_", {"float": "nan"}, "offset_ must be a float that is a number, got nan"),
            ("n_features_in_", 4, "n_features_in_ is 4, but the autoencoder has 5"),
            ("estimator_", 4, "estimator_ must be an autoencoder, got 4"),
        ],
    )
    def test_detector(self, name, value, message, tmp_path):
        def edit(document, arrays):
            document["estimator"]["state"][name] = value

        detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(1, **TINY), contamination=0.1).fit(X)
        with pytest.raises(ValueError, match=message):
            skae.load(edited(tmp_path / "a.skae", detector, edit))


class TestBroken:
    """Files that are no such files, or no longer."""

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            skae.load(tmp_path / "a.skae")
        with pytest.raises(OSError):
            skae.load(tmp_path)

    @pytest.mark.parametrize("start", [b"", b"PK", b"\x80\x04\x95", b"PK\x03\x04" + 100 * b"x"])
    def test_something_else(self, start, tmp_path):
        (tmp_path / "a.skae").write_bytes(start)
        message = rf"it has {len(start)} bytes, begins with .* does not end with the digest of skae.save"
        with pytest.raises(ValueError, match=message):
            skae.load(tmp_path / "a.skae")

    def test_a_bit(self, tmp_path):
        path = tmp_path / "a.skae"
        skae.save(tiny(), path)
        data = bytearray(path.read_bytes())
        data[200] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match="SHA-256 digest .* damaged or changed since: save the estimator again"):
            skae.load(path)

    def test_too_large(self, tmp_path, monkeypatch):
        skae.save(tiny(), tmp_path / "a.skae")
        monkeypatch.setattr(_archive, "MOST_BYTES", 3000)
        with pytest.raises(ValueError, match=r"it has \d+ bytes, but at most 3000 are allowed"):
            skae.load(tmp_path / "a.skae")

    def test_a_sparse_file_of_a_terabyte(self, tmp_path):
        with open(tmp_path / "a.skae", "wb") as file:
            file.truncate(2**40)
        with pytest.raises(ValueError, match="1099511627776 bytes, but at most 17179869184 are allowed"):
            skae.load(tmp_path / "a.skae")

    @pytest.mark.parametrize(
        "extra, method, message",
        [
            (("skae.json", b"{}"), 0, "it has 'skae.json' more than once"),
            (("mean_.npy", b""), 0, "it has 'mean_.npy' more than once"),
            (("../evil.py", b"import os"), 0, r"member '../evil.py', but only 'skae.json' and arrays are allowed"),
            (("evil.npy", b"\x93NUMPY"), 0, "'evil.npy' is no .npy file: it has 6 bytes"),
            (("evil.npy", pickle.dumps(X)), 0, "'evil.npy' is no .npy file of version 1.0 with one of float64"),
            (("/evil.npy", npy(X)), 0, "it has an array '/evil' to which nothing refers"),
            (("evil.npy", npy(np.zeros(10**6))), 8, r"in \d+, by method 8: at most \d+ are allowed, by 0, without"),
        ],
    )
    def test_members(self, extra, method, message, tmp_path):
        skae.save(tiny(), tmp_path / "a.skae")
        path = forged(tmp_path / "a.skae", [*content(tmp_path / "a.skae").items(), extra], method)
        with pytest.raises(ValueError, match=message):
            skae.load(path)
        assert os.listdir(tmp_path) == ["a.skae"]

    @pytest.mark.parametrize(
        "text, message",
        [
            ("[]", "skae.json holds list, but must hold an object"),
            ("", "Expecting value"),
            ("{", "Expecting"),
            ("\N{PILE OF POO}", "Expecting value"),
            (b"\xff", "decode"),
            ('{"a": NaN}', "skae.json has NaN, which is no number"),
            ('{"a": 1e999}', "skae.json has 1e999, which is no number"),
            ('{"a": 1, "a": 2}', "has an object with a name more than once, among .'a'."),
            ("[" * 100_000, "RecursionError"),
            ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ],
    )
    def test_documents(self, text, message, tmp_path):
        with pytest.raises(ValueError, match=message):
            skae.load(forged(tmp_path / "a.skae", [("skae.json", text)]))

    def test_no_document(self, tmp_path):
        with pytest.raises(ValueError, match="it has no member 'skae.json'"):
            skae.load(forged(tmp_path / "a.skae", [("a.npy", npy(X))]))

    @pytest.mark.parametrize("kind", ["tuple", "list"])
    def test_deep_values(self, kind, tmp_path):
        start, end = ('{"tuple":[', "]}") if kind == "tuple" else ("[", "]")
        deep = '{"format":"skae","protocol":1,"versions":{},"estimator":' + start * 400 + end * 400 + "}"
        with pytest.raises(ValueError, match="cannot be loaded"):
            skae.load(forged(tmp_path / "a.skae", [("skae.json", deep)]))

    def test_a_bomb_in_the_document(self, tmp_path):
        """A hundred kilobytes that would become a hundred megabytes."""
        path = forged(tmp_path / "a.skae", [("skae.json", b" " * 100_000_000)])
        assert path.stat().st_size < 200_000
        with pytest.raises(ValueError, match="says that it has 100000000 bytes in .* at most 67108864 are allowed"):
            skae.load(path)

    def test_a_document_longer_than_it_says(self, tmp_path):
        path = forged(tmp_path / "a.skae", [("skae.json", b" " * 1000)])
        data = path.read_bytes().replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
        path.write_bytes(sealed(data))
        with pytest.raises(ValueError, match="its zip is broken: BadZipFile"):
            skae.load(path)

    def test_members_that_overlap(self, tmp_path):
        """A thousand names for the same bytes."""
        skae.save(tiny(), tmp_path / "a.skae")
        with zipfile.ZipFile(tmp_path / "a.skae", "a") as archive:
            one = archive.getinfo("mean_.npy")
            for index in range(1000):
                other = copy.copy(one)
                other.filename = f"x{index}.npy"
                archive.filelist.append(other)
            archive._didModify = True
        (tmp_path / "a.skae").write_bytes(sealed((tmp_path / "a.skae").read_bytes()))
        with pytest.raises(ValueError, match="its members overlap|broken"):
            skae.load(tmp_path / "a.skae")

    @pytest.mark.parametrize(
        "header, message",
        [
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }",
                "7999999999992 bytes, but 40 follow",
            ),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 999999999999999999), }", "but 40 follow"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (5), }", "shape is not valid"),
            ("{'descr': '|O', 'fortran_order': False, 'shape': (5,), }", "is no .npy file of version 1.0"),
            ("{'descr': '<f9', 'fortran_order': False, 'shape': (5,), }", "is no .npy file of version 1.0"),
            ("{'descr': '<f8', 'fortran_order': False, 'shape': (-5,), }", "is no .npy file of version 1.0"),
            ("{'descr': '<f8', 'fortran_order': True, 'shape': (5,), }", "is no .npy file of version 1.0"),
            ("__import__('os').system('true')", "is no .npy file of version 1.0"),
        ],
    )
    def test_headers(self, header, message, tmp_path):
        line = (header + "\n").encode()
        data = b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(40)
        skae.save(tiny(), tmp_path / "a.skae")
        members = {**content(tmp_path / "a.skae"), "mean_.npy": data}
        with pytest.raises(ValueError, match=message):
            skae.load(forged(tmp_path / "a.skae", members.items()))


def test_a_description_takes_no_memory():
    """The weights of this network would take sixteen terabytes."""
    wide = Architecture(10**6, 1, (10**6,), (10**6,), "gelu", True, normalization="batch", link="exp", fills=True)
    shapes = _to_dict._shapes(wide, {"mean": np.zeros(1)})
    assert shapes["core.encoder.0.weight"] == ("float64", (10**6, 10**6))
    assert shapes["core.encoder.1.num_batches_tracked"] == ("int64", ())


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("load has unpickled something")

    estimator, rows = fitted("a generator")
    skae.save(estimator, tmp_path / "a.skae")
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, fail)
    assert_array_equal(skae.load(tmp_path / "a.skae").transform(rows), estimator.transform(rows))


VALUES = [
    None, True, -1, 0, 1, 10**30, 0.5, -1e308, "x", "", "auto", "pandas", [], {}, [[[]]], {"float": "nan"},
    {"float": "inf"}, {"tuple": [1, 2]}, {"tuple": []}, {"dict": {}}, {"array": "mean_"}, {"scalar": ["int8", 3]},
    {"device": "cpu"}, {"optimizer": "SGD"}, {"strings": ["a"]}, {"object": "Huber", "parameters": {}},
    {"random_state": {}},
]  # fmt: skip


def places(node):
    """Each (container, key) of a tree of JSON."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in pairs:
        yield node, key
        yield from places(child)


def disturb_document(document, draw):
    """One change somewhere: another value, one less, one more, two exchanged."""
    container, key = draw.choice(list(places(document)))
    other, other_key = draw.choice(list(places(document)))
    kind = draw.choice(["value"] * 4 + ["delete", "rename", "exchange", "nudge"])
    if kind == "delete":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[draw.choice(["fit", "__class__", "x_", "loss", "x" * 50])] = container.pop(key)
    elif kind == "exchange":
        container[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(container[key])
    elif kind == "nudge" and isinstance(container[key], int | float):
        container[key] = draw.choice([container[key] + 1, -container[key], float(container[key]), str(container[key])])
    else:
        container[key] = copy.deepcopy(draw.choice(VALUES))


def disturb_arrays(arrays, draw):
    """Another dtype, shape, order or value, one less, one more, two exchanged."""
    name, other = draw.sample(sorted(arrays), 2)
    array = arrays[name]
    kind = draw.choice(["exchange", "delete", "copy", "dtype", "shape", "value", "longer", "order"])
    if kind == "exchange":
        arrays[name], arrays[other] = arrays[other], array
    elif kind == "delete":
        del arrays[name]
    elif kind == "copy":
        arrays[draw.choice(["x", "../x", "skae.json"])] = array
    elif kind == "dtype":
        arrays[name] = array.astype(draw.choice(["f4", ">f8", "i8", "U3", "c16", "?"]))
    elif kind == "shape":
        arrays[name] = draw.choice([array.ravel(), array[None], array.T, array.reshape(-1, 1)])
    elif kind == "value":
        array.flat[0] = draw.choice([np.nan, np.inf, -np.inf, 1e308, 0.0, -1.0])
    elif kind == "longer":
        arrays[name] = np.append(array, array)
    else:
        arrays[name] = array.ravel()[::-1].reshape(array.shape)


def disturb_bytes(data, draw):
    """Flip a bit, cut, insert, repeat or overwrite."""
    at, kind = draw.randrange(len(data)), draw.choice(["flip"] * 5 + ["cut", "insert", "repeat", "overwrite"])
    data = bytearray(data)
    if kind == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del data[at : at + draw.choice([1, 10, len(data)])]
    elif kind == "insert":
        data[at:at] = draw.randbytes(draw.choice([1, 10, 1000]))
    elif kind == "repeat":
        data[at:at] = data[at : at + 100]
    else:
        data[at : at + 4] = draw.choice([bytes(4), b"\xff" * 4, b"PK\x01\x02", draw.randbytes(4)])
    return bytes(data)


N_CASES = int(os.environ.get("SKAE_FUZZ_CASES") or 1400) // 4
DRAW = random.Random(None if "SKAE_FUZZ_CASES" in os.environ else 0)


@pytest.mark.fuzz
class TestFuzz:
    """Some 1400 changed files, the same ones each time; more and new ones with SKAE_FUZZ_CASES=20000."""

    @pytest.fixture
    def saved(self, tmp_path):
        skae.save(tiny(), tmp_path / "a.skae")
        return tmp_path / "a.skae"

    def refused(self, path):
        """The estimator in a file, or None where it is refused as it must be."""
        try:
            return skae.load(path)
        except ValueError as error:
            assert str(error).startswith(f"{str(path)!r} cannot be loaded: ")
            assert len(str(error)) > 45 + len(str(path))
            return None

    def test_damage(self, saved, tmp_path):
        data, path = saved.read_bytes(), tmp_path / "b.skae"
        for _ in range(2 * N_CASES):
            changed = disturb_bytes(data, DRAW)
            path.write_bytes(changed)
            assert changed == data or self.refused(path) is None

    def test_damage_that_is_sealed_again(self, saved, tmp_path):
        data, path, n_refused = saved.read_bytes(), tmp_path / "b.skae", 0
        codes = tiny().transform(X)
        for _ in range(N_CASES):
            path.write_bytes(sealed(disturb_bytes(data, DRAW)))
            there = self.refused(path)
            if there is None:
                n_refused += 1
            else:
                assert str(there.get_params()) == str(tiny().get_params())
                assert_array_equal(there.transform(X), codes)
        assert n_refused > N_CASES / 2

    @pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
    def test_forgery(self, saved, tmp_path):
        """An edit that makes another estimator of it cannot be told; but it is an estimator, and only that."""
        n_refused, original = 0, opened(saved)
        codes = tiny().transform(X)
        for _ in range(N_CASES):
            kind = DRAW.choice(["parameters", "state", "network", "document", "arrays"])

            document, arrays = copy.deepcopy(original)
            described = document["estimator"]
            trees = {"parameters": described["parameters"], "state": described["state"], "document": document}
            trees["network"] = described["state"]["_network"]["dict"]["architecture"]["dict"]
            if kind == "arrays":
                disturb_arrays(arrays, DRAW)
            else:
                disturb_document(trees[kind], DRAW)
            there = self.refused(closed(tmp_path / "b.skae", document, arrays))
            n_refused += there is None
            if there is not None and kind == "parameters" and not there.allow_nan:
                assert_array_equal(np.asarray(there.transform(X)), codes)
            if there is not None:
                self.check_use(there)
        assert n_refused > N_CASES / 2

    def check_use(self, there):
        assert type(there) is AutoEncoderTransformer
        repr(there)
        if not hasattr(there, "n_components_"):
            return
        for method, shape in (("transform", (5, there.n_components_)), ("score_samples", (5,))):
            try:
                result = getattr(there, method)(X[:5])
            except ValueError as error:
                assert "overflow" in str(error) or "X has 5 features" in str(error), error
            else:
                assert np.shape(result) == shape


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


class TestOtherFiles:
    @pytest.fixture
    def labels(self):
        return (X[:, 0] > 0).astype(int)

    @pytest.mark.parametrize(
        "parameters, classes",
        [
            ({}, []),
            (TRAINED, []),
            ({"regularizer": "variational", "loss": "huber", "allow_nan": True}, []),
            ({"regularizer": Denoising()}, ["skae._objectives.regularizers.Denoising"]),
            (
                {"loss": Huber(), "regularizer": [Sparse(), "denoising"]},
                ["skae._objectives.losses.Huber", "skae._objectives.regularizers.Sparse"],
            ),
        ],
    )
    def test_skops(self, parameters, classes, labels):
        autoencoder = AutoEncoderTransformer(2, **{**TINY, **parameters})
        pipeline = make_pipeline(StandardScaler(), autoencoder, LogisticRegression()).fit(X, labels)
        dumped = skops.io.dumps(pipeline)
        untrusted = skops.io.get_untrusted_types(data=dumped)
        assert untrusted == ["skae._autoencoder.AutoEncoderTransformer", *classes]
        there = skops.io.loads(dumped, trusted=untrusted)
        assert_array_equal(there.predict_proba(X), pipeline.predict_proba(X))
        assert str(there.get_params()) == str(pipeline.get_params())
        assert same(list(there[1].net_.history), list(pickle.loads(pickle.dumps(autoencoder)).net_.history))

    def test_skops_and_a_detector(self):
        detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **TINY), contamination=0.1).fit(X)
        dumped = skops.io.dumps(detector)
        untrusted = skops.io.get_untrusted_types(data=dumped)
        names = ["skae._autoencoder.AutoEncoderTransformer", "skae._outliers.AutoEncoderOutlierDetector"]
        assert untrusted == names
        assert_array_equal(skops.io.loads(dumped, trusted=untrusted).predict(X), detector.predict(X))

    def test_another_process(self, labels, tmp_path):
        paths = [tmp_path / name for name in ("a.skae", "a.skops", "rows.npy", "result.npz")]
        estimator = AutoEncoderTransformer(2, **TRAINED)
        pipeline = make_pipeline(StandardScaler(), estimator, LogisticRegression()).fit(X, labels)
        skae.save(estimator, paths[0])
        skops.io.dump(pipeline, paths[1])
        np.save(paths[2], X)
        assert run_python(LOAD, *paths) == "skae._autoencoder.AutoEncoderTransformer"
        with np.load(paths[3]) as there:
            assert_array_equal(there["codes"], estimator.transform(X))
            assert_array_equal(there["probabilities"], pipeline.predict_proba(X))

    @pytest.mark.parametrize("how", ["skops", "cloudpickle"])
    def test_mlflow(self, how, tmp_path):
        mlflow = pytest.importorskip("mlflow.sklearn", exc_type=ImportError)
        options = {"serialization_format": how, "pip_requirements": ["skae"]}
        if how == "skops":
            options["skops_trusted_types"] = ["skae._autoencoder.AutoEncoderTransformer"]
        mlflow.save_model(tiny(), str(tmp_path / "model"), **options)
        assert_array_equal(mlflow.load_model(str(tmp_path / "model")).transform(X), tiny().transform(X))

    @pytest.mark.parametrize("how", [pickle, joblib])
    def test_a_pickle_that_is_older_than_a_parameter(self, how, tmp_path):
        estimator = copy.deepcopy(tiny())
        del estimator.dropout, estimator.refit
        with open(tmp_path / "a", "wb") as file:
            how.dump(estimator, file)
        with open(tmp_path / "a", "rb") as file:
            there = how.load(file)
        assert there.get_params() == tiny().get_params()


class TestEarlierProtocols:
    """Files that are never written again, see files/make.py."""

    @pytest.mark.parametrize("ending", ["skae", "pickle"])
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_they_are_read(self, protocol, ending):
        path = FILES / f"protocol-{protocol}.{ending}"
        assert path.stat().st_size < 50_000
        detector = skae.load(path) if ending == "skae" else pickle.loads(path.read_bytes())
        with np.load(FILES / f"protocol-{protocol}.npz") as expected:
            estimator, rows = detector.estimator_, expected["rows"]
            codes = estimator.transform(rows)
            assert_allclose(codes, expected["codes"], rtol=1e-6, atol=1e-9)
            assert_allclose(estimator.inverse_transform(codes), expected["rebuilt"], rtol=1e-6, atol=1e-9)
            assert_allclose(detector.decision_function(rows), expected["scores"], rtol=1e-6, atol=1e-9)
        assert estimator.best_epoch_ == 4
        assert estimator.loss == "squared_error" or estimator.loss.delta == 2.0
        assert len(estimator.net_.history) == 4
        estimator.get_params()

    def test_a_file_that_is_older_than_a_parameter(self, tmp_path):
        def edit(document, arrays):
            del document["estimator"]["parameters"]["dropout"], document["estimator"]["parameters"]["refit"]

        assert skae.load(edited(tmp_path / "a.skae", tiny(), edit)).get_params() == tiny().get_params()
