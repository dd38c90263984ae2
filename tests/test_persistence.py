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
import zipfile

import joblib
import numpy as np
import pytest
import skops.io
import skorch
import torch
from helpers import TINY, TRAINED, curved_rows, run_python
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import skae
from skae import (
    AutoEncoderOutlierDetector,
    AutoEncoderTransformer,
    Contractive,
    Denoising,
    Huber,
    Regularizer,
    Sparse,
    persistence,
)

X = curved_rows()
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
    "splitter": {"early_stopping": True, "validation_split": ShuffleSplit(2, random_state=0)},
    "validation samples": {"early_stopping": True, "validation_split": np.abs(X[:10])},
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
    return AutoEncoderTransformer(1, hidden_layer_sizes=2, **settings).fit(X)


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
    return a == b or (a != a and b != b) or repr(a) == repr(b)


def round_trip(estimator, path):
    skae.save(estimator, path)
    return skae.load(path)


def sealed(body):
    """The same file with the digest that belongs to it."""
    body = bytes(body[:-64])
    return body + hashlib.sha256(body).hexdigest().encode()


def opened(path):
    """Schema and other members of a file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(members.pop("schema.json")), members


def forged(path, schema, members, method=zipfile.ZIP_STORED):
    """Write a file with the right digest, whatever is in it."""
    text = schema if isinstance(schema, str) else json.dumps(schema)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = persistence.SEAL + b"0" * 64
        for name, data in (*members.items(), ("schema.json", text)):
            archive.writestr(name, data)
    path.write_bytes(sealed(path.read_bytes()))
    return path


class TestRoundTrip:
    @pytest.mark.parametrize("name", PARAMETERS)
    def test_everything_is_as_it_was(self, name, tmp_path):
        estimator, rows = fitted(name)
        there = round_trip(estimator, tmp_path / "a.skae")
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
    def test_precision_and_far_samples(self, dtype, tmp_path):
        estimator = AutoEncoderTransformer(2, **TRAINED).fit(X.astype(dtype))
        there = round_trip(estimator, tmp_path / "a.skae")
        assert there.net_.module_.mean.dtype == estimator.net_.module_.mean.dtype
        assert_array_equal(there.transform(100 * X), estimator.transform(100 * X))

    @pytest.mark.parametrize("estimator", [None, AutoEncoderTransformer(2, **TRAINED, loss=Huber())])
    def test_detector(self, estimator, tmp_path):
        detector = AutoEncoderOutlierDetector(estimator, contamination=0.1, random_state=0).fit(X[:20])
        there = round_trip(detector, tmp_path / "a.skae")
        assert str(there.get_params()) == str(detector.get_params())
        assert_array_equal(there.decision_function(X), detector.decision_function(X))

    def test_pipeline_and_grid_search(self, tmp_path):
        labels = (X[:, 0] > 0).astype(int)
        pipeline = make_pipeline(StandardScaler(), AutoEncoderTransformer(2, **TINY), LogisticRegression())
        search = GridSearchCV(pipeline, {"autoencodertransformer__n_components": [1, 2]}, cv=KFold(2)).fit(X, labels)
        there = round_trip(search, tmp_path / "a.skae")
        assert str(there.get_params()) == str(search.get_params())
        assert_array_equal(there.predict_proba(X), search.predict_proba(X))
        there = round_trip(search.best_estimator_, tmp_path / "a.skae")
        assert_array_equal(there.predict_proba(X), search.predict_proba(X))

    def test_splitters_with_groups(self, tmp_path):
        estimator = AutoEncoderTransformer(2, **TINY, validation_split=GroupKFold(3))
        groups = np.arange(60) // 6
        there = round_trip(estimator, tmp_path / "a.skae").fit(X, groups=groups)
        assert_array_equal(there.transform(X), estimator.fit(X, groups=groups).transform(X))

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
        there = round_trip(estimator, tmp_path / "a.skae")
        assert vars(there) == vars(estimator)

    def test_the_same_estimator_gives_the_same_bytes(self, tmp_path):
        assert tiny().best_epoch_ > 0
        skae.save(tiny(), tmp_path / "a.skae")
        skae.save(skae.load(tmp_path / "a.skae"), tmp_path / "b.skae")
        assert (tmp_path / "a.skae").read_bytes() == (tmp_path / "b.skae").read_bytes()

    def test_training_goes_on(self, tmp_path):
        estimator = AutoEncoderTransformer(2, **TRAINED, warm_start=True).fit(X)
        there = round_trip(estimator, tmp_path / "a.skae")
        assert_array_equal(there.fit(X).transform(X), estimator.fit(X).transform(X))

    @pytest.mark.parametrize(
        "parameters",
        [{}, {"regularizer": "denoising", "dropout": 0.2}, {"optimizer": "sgd"}, {"early_stopping": False}],
    )
    @pytest.mark.parametrize("n_chunks", [1, 4])
    def test_streams_go_on(self, n_chunks, parameters, tmp_path):
        """To the last bit, also once loaded and saved again."""
        rows = curved_rows(400)
        estimator = AutoEncoderTransformer(2, **{**TINY, **parameters})
        for chunk in np.split(rows[: 40 * n_chunks], n_chunks):
            estimator.partial_fit(chunk)
        there = round_trip(round_trip(estimator, tmp_path / "a.skae"), tmp_path / "b.skae")
        for chunk in np.split(rows[200:], 4):
            assert_array_equal(there.partial_fit(chunk).transform(rows), estimator.partial_fit(chunk).transform(rows))
        assert there.loss_curve_ == estimator.loss_curve_

    def test_a_device_that_is_missing_here(self, tmp_path):
        estimator = copy.deepcopy(tiny())
        estimator.device_ = "cuda:7"
        there = round_trip(estimator, tmp_path / "a.skae")
        assert there.device_ == "cpu"
        assert_array_equal(there.transform(X), tiny().transform(X))

    def test_fitted_on_a_tensor(self, tmp_path):
        estimator = copy.deepcopy(tiny())
        estimator.mean_ = torch.from_numpy(estimator.mean_)
        there = round_trip(estimator, tmp_path / "a.skae")
        assert_array_equal(there.mean_, tiny().mean_)
        assert isinstance(pickle.loads(pickle.dumps(estimator)).mean_, torch.Tensor)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_size(self, dtype, tmp_path):
        """Default parameters and three hundred epochs, of digits, on few samples or many."""
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


def halve(x_hat, x):
    return (x_hat - x).abs().sqrt()


class Mine(Regularizer):
    pass


class Net(torch.nn.Linear):
    def __init__(self, n_features, n_components):
        super().__init__(n_features, n_components)
        self.decode = torch.nn.Linear(n_components, n_features)
        self.encode = self.forward


class Own(AutoEncoderTransformer):
    pass


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

    def test_a_network_of_ones_own(self, tmp_path):
        estimator = AutoEncoderTransformer(2, module=Net, **TINY).fit(X)
        assert_array_equal(pickle.loads(pickle.dumps(estimator)).transform(X), estimator.transform(X))
        with pytest.raises(TypeError, match="cannot be saved: it holds what skops cannot take apart"):
            skae.save(estimator.set_params(module=None), tmp_path / "a.skae")

    @pytest.mark.parametrize("value", [None, 3, AutoEncoderTransformer, halve])
    def test_no_estimator(self, value, tmp_path):
        with pytest.raises(TypeError, match="must be an estimator of skae or scikit-learn, got"):
            skae.save(value, tmp_path / "a.skae")

    @pytest.mark.parametrize("estimator", [Own(), DecisionTreeClassifier().fit(X, np.arange(60) % 2)])
    def test_types_that_are_not_trusted(self, estimator, tmp_path):
        with pytest.raises(TypeError, match="cannot be saved: it holds (test_persistence.Own|sklearn.tree._tree.Tree)"):
            skae.save(estimator, tmp_path / "a.skae")

    def test_what_load_would_refuse(self, tmp_path):
        with pytest.raises(ValueError, match="^random_state=.* cannot be saved: skae.load would refuse it"):
            skae.save(AutoEncoderTransformer(random_state=np.random.RandomState(np.random.PCG64(0))), tmp_path / "a")
        estimator = copy.deepcopy(tiny())
        estimator.net_.module_.network.encoder[0].bias.data[1] = np.nan
        with pytest.raises(ValueError, match=r"'network.encoder.0.bias' has NaN in 1 of 2 values, but none is"):
            skae.save(estimator, tmp_path / "a.skae")
        assert os.listdir(tmp_path) == []

    def test_too_large(self, tmp_path, monkeypatch):
        skae.save(tiny(), tmp_path / "b.skae")
        monkeypatch.setattr(persistence, "MOST_BYTES", 3000)
        with pytest.raises(ValueError, match=r"The estimator takes \d+ bytes, but at most 3000 can be saved"):
            skae.save(tiny(), tmp_path / "a.skae")
        with pytest.raises(ValueError, match=r"it has \d+ bytes, but at most 3000 are allowed"):
            skae.load(tmp_path / "b.skae")


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
        for path in (tmp_path / "no" / "a.skae", tmp_path):
            with pytest.raises(OSError):
                skae.save(tiny(), path)
            with pytest.raises(OSError):
                skae.load(path)
        assert os.listdir(tmp_path) == []
        assert not [name for name in os.listdir(tmp_path.parent) if name.endswith(".tmp")]

    @pytest.mark.skipif(os.name != "posix", reason="no modes, no links")
    def test_modes_and_links(self, tmp_path):
        (tmp_path / "a.skae").write_bytes(b"before")
        (tmp_path / "link").symlink_to(tmp_path / "a.skae")
        before = os.umask(0o027)
        try:
            skae.save(tiny(), str(tmp_path / "link"))
        finally:
            os.umask(before)
        assert (tmp_path / "link").is_symlink()
        assert stat.S_IMODE((tmp_path / "a.skae").stat().st_mode) == 0o640
        skae.load(str(tmp_path / "link"))


def number(value):
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}


def named(module, name, loader, **more):
    return {"__class__": name, "__module__": module, "__loader__": loader, **more}


TUPLE = named("builtins", "tuple", "TupleNode", content=[number("touch evil")])
DICT = named("builtins", "dict", "DictNode", content={}, key_types=named("builtins", "list", "ListNode", content=[]))
ATTACKS = {
    "function": named("os", "system", "FunctionNode"),
    "type": named("subprocess", "Popen", "TypeNode"),
    "constructor": named("subprocess", "Popen", "ConstructorFromReduceNode", content=TUPLE),
    "object": named("evil", "Evil", "ObjectNode", content=DICT),
    "method": named(
        "skae._autoencoder",
        "AutoEncoderTransformer",
        "MethodNode",
        content={"func": "fit", "obj": named("skae._autoencoder", "AutoEncoderTransformer", "ObjectNode")},
    ),
    "partial": named(
        "functools",
        "partial",
        "PartialNode",
        content={
            "func": named("os", "system", "FunctionNode"),
            "args": TUPLE,
            "kwds": DICT,
            "namespace": number(None),
        },
    ),
    "operator": named("operator", "methodcaller", "OperatorFuncNode", attrs=TUPLE),
    "generator": named(
        "numpy.random._generator",
        "Generator",
        "RandomGeneratorNode",
        content={
            "bit_generator": {**DICT, "content": {"bit_generator": number("seed")}},
            "seed_seq": DICT,
        },
    ),
}
# Edits of what the schema says an autoencoder has, and what is said to them.
WRONG = {
    "_format_version": (number(99), r"was saved in format 99 by skae 0.1.*reads format 1: fit again"),
    "_skae_version": (number(None), None),
    "n_features_in_": (number(6), "n_features_in_ is 6, but the network has 5"),
    "n_components_": (number(1.0), "n_components_ must be an int of at least 0, got 1.0"),
    "n_iter_": (number(6), "best_epoch_=10, n_iter_=6 and 10 values in loss_curve_ do not belong together"),
    "loss_curve_": (number([1]), r"loss_curve_ must be a list of float, got \[1\]"),
    "mean_": (number([1.0]), r"mean_ is not that of the network: \[1.0\]"),
    "device_": (number(7), "device_ must be a string, got 7"),
    "_network": (number(3), "the network must be a dict, got int"),
    "feature_names_in_": (number(["a"]), "feature_names_in_ must have 5 names"),
    "module": (named("os", "system", "FunctionNode"), "types that are not trusted: os.system. Only those of skae"),
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    skae.save(tiny(), tmp_path / "a.skae")
    return tmp_path / "a.skae"


class TestRefusedAtLoad:
    def refused(self, path, message):
        with pytest.raises(ValueError, match=message) as caught:
            skae.load(path)
        assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded: ")

    @pytest.mark.parametrize("start", [b"", b"PK", b"\x80\x04\x95", b"PK\x03\x04" + 100 * b"x"])
    def test_something_else(self, start, tmp_path):
        (tmp_path / "a.skae").write_bytes(start)
        self.refused(tmp_path / "a.skae", rf"it has {len(start)} bytes, begins with .* does not end with the digest of")

    def test_a_bit(self, saved):
        data = bytearray(saved.read_bytes())
        data[200] ^= 1
        saved.write_bytes(data)
        self.refused(saved, "SHA-256 digest .* damaged or changed since: save the estimator again")

    def test_a_sparse_file_of_a_terabyte(self, tmp_path):
        with open(tmp_path / "a.skae", "wb") as file:
            file.truncate(2**40)
        self.refused(tmp_path / "a.skae", "1099511627776 bytes, but at most 17179869184 are allowed")

    @pytest.mark.parametrize("name", WRONG)
    def test_values_that_no_estimator_has(self, name, saved):
        schema, members = opened(saved)
        value, message = WRONG[name]
        if name not in schema["content"]["content"]:
            schema["content"]["key_types"]["content"].append(named("builtins", "str", "TypeNode"))
        schema["content"]["content"][name] = value
        forged(saved, schema, members)
        if message is None:
            assert_array_equal(skae.load(saved).transform(X), tiny().transform(X))
        else:
            self.refused(saved, message)

    @pytest.mark.parametrize("name", ["_network", "dropout"])
    def test_values_that_are_missing(self, name, saved):
        schema, members = opened(saved)
        position = list(schema["content"]["content"]).index(name)
        del schema["content"]["content"][name], schema["content"]["key_types"]["content"][position]
        self.refused(forged(saved, schema, members), f"the state of this AutoEncoderTransformer lacks '{name}'")

    @pytest.mark.parametrize(
        "field, value, message",
        [
            ("activation", number("softmax"), "has activation='softmax', but allowed are .*'relu'"),
            ("kind", number("module"), "has kind='module', but allowed are"),
            ("kind", number("conv"), "cannot be built: architecture='conv' needs input_shape"),
            ("kind", number("pca"), "the network lacks nothing and has 'network.linear_encoder'"),
            ("module", number("os"), "has module='os', but allowed are"),
            ("linear_skip", number(1), "has linear_skip=1, but allowed are"),
            ("dropout", number(1.0), "has dropout=1.0, but allowed are floats from 0 to below 1"),
            ("n_features", number(10**12), "has n_features=1000000000000, but allowed are sizes up to the 83 values"),
            (
                "encoder_sizes",
                {**TUPLE, "content": [number(4)]},
                "encoder.0.weight' has .*asks for .'float64', .4, 5..",
            ),
            ("encoder_sizes", {**TUPLE, "content": [number(2)] * 99}, "has encoder_sizes=.*, but allowed are sizes"),
        ],
    )
    def test_networks_that_are_none(self, field, value, message, saved):
        schema, members = opened(saved)
        network = schema["content"]["content"]["_network"]["content"]
        network["architecture"]["content"][field] = value
        self.refused(forged(saved, schema, members), message)

    @pytest.mark.parametrize("position", [625, -1])
    def test_random_states(self, position, tmp_path):
        """Numpy believes the position, and would read beyond its memory."""
        path = tmp_path / "a.skae"
        skae.save(AutoEncoderTransformer(random_state=np.random.RandomState(0)), path)
        schema, members = opened(path)
        state = schema["content"]["content"]["random_state"]["content"]["content"]["state"]
        state["content"]["pos"] = number(position)
        self.refused(forged(path, schema, members), "random_state must be the state of .* position of 0 to 624")

    @pytest.mark.parametrize("value, message", [("NaN", "offset_ must be a float that is a number"), ("4", "a float")])
    def test_detector(self, value, message, tmp_path):
        path = tmp_path / "a.skae"
        skae.save(AutoEncoderOutlierDetector(AutoEncoderTransformer(1, **TINY), contamination=0.1).fit(X), path)
        schema, members = opened(path)
        schema["content"]["content"]["offset_"]["content"] = value
        self.refused(forged(path, schema, members), message)
        schema["content"]["content"]["offset_"]["content"] = "0.5"
        schema["content"]["content"]["n_features_in_"]["content"] = "4"
        self.refused(
            forged(path, schema, members),
            "n_features_in_ is 4, but estimator_ has 5 and is of type AutoEncoderTransformer",
        )

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_no_code_is_run(self, attack, saved, monkeypatch):
        (saved.parent / "evil.py").write_text("open('ran', 'w').close()\nclass Evil:\n    pass\n")
        monkeypatch.syspath_prepend(str(saved.parent))
        monkeypatch.chdir(saved.parent)
        before = np.random.get_state()[1].tolist()
        schema, members = opened(saved)
        for place in (schema["content"]["content"], schema["content"]["content"]["_network"]["content"]):
            changed = copy.deepcopy(schema)
            name = "loss" if place is schema["content"]["content"] else "history"
            target = changed["content"]["content"]
            (target if name == "loss" else target["_network"]["content"])[name] = ATTACKS[attack]
            self.refused(forged(saved, changed, members), "types that are not trusted|its content is broken|corrupted")
        self.refused(forged(saved, {**ATTACKS[attack], "protocol": 2}, members), "not trusted|is broken|corrupted")
        assert sorted(os.listdir(saved.parent)) == ["a.skae", "evil.py"]
        assert np.random.get_state()[1].tolist() == before

    @pytest.mark.parametrize(
        "schema, message",
        [
            ("[]", "its content is broken"),
            ("", "Expecting value"),
            ("[" * 100_000, "RecursionError"),
            ({**number(3), "protocol": 2}, "it holds 3, which is no estimator"),
            ({**number(3), "protocol": 99}, "protocol 99"),
            ({**DICT, "protocol": 2}, "it holds {}, which is no estimator"),
            ({**named("builtins", "x", "Unknown"), "protocol": 2}, "Can't find loader Unknown"),
        ],
    )
    def test_schemas(self, schema, message, tmp_path):
        self.refused(forged(tmp_path / "a.skae", schema, {}), message)

    def test_members(self, saved):
        """Nothing becomes larger than the file is."""
        schema, members = opened(saved)
        inner = io.BytesIO()
        np.savez_compressed(inner, np.zeros(10**6))
        self.refused(forged(saved, schema, {**members, "x.npy": inner.getvalue()}), "'x.npy' is compressed or an arch")
        self.refused(forged(saved, schema, members, zipfile.ZIP_DEFLATED), "is compressed or an archive")
        self.refused(forged(saved, schema, {}), "its content is broken: KeyError")
        with zipfile.ZipFile(forged(saved, schema, members), "a") as archive:
            archive.filelist += [copy.copy(archive.filelist[0]) for _ in range(1000)]
            archive._didModify = True
        saved.write_bytes(sealed(saved.read_bytes()))
        self.refused(saved, "it has the member '1.npy' more than once")
        with zipfile.ZipFile(forged(saved, schema, members), "a") as archive:
            for index in range(1000):
                archive.filelist.append(copy.copy(archive.getinfo("schema.json")))
                archive.filelist[-1].filename = f"x{index}"
            archive._didModify = True
        saved.write_bytes(sealed(saved.read_bytes()))
        self.refused(saved, "its members overlap|is broken")

    def test_a_header_that_asks_for_a_terabyte(self, saved):
        schema, members = opened(saved)
        line = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }\n"
        data = b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(40)
        self.refused(forged(saved, schema, {**members, "1.npy": data}), "cannot be loaded")


@pytest.mark.parametrize("how", [pickle, joblib])
@pytest.mark.parametrize("version", [0, 99, None])
def test_states_of_another_version(version, how, tmp_path, monkeypatch):
    detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(1, **TINY), contamination=0.1).fit(X)
    for estimator in (tiny(), detector):
        with monkeypatch.context() as patched:
            patched.setattr("skae._network.state.FORMAT_VERSION", version)
            with open(tmp_path / "a", "wb") as file:
                how.dump(estimator, file)
        message = (
            rf"this AutoEnc\w+ was saved in format {version} by skae 0.1.*, but this skae, 0.1.*, reads format 1: fit"
        )
        with open(tmp_path / "a", "rb") as file, pytest.raises(ValueError, match=message):
            how.load(file)
    state = {name: value for name, value in tiny().__getstate__().items() if name != "_format_version"}
    with pytest.raises(ValueError, match="saved in format None"):
        AutoEncoderTransformer().__setstate__(state)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("load has unpickled something")

    estimator, rows = fitted("a generator")
    skae.save(estimator, tmp_path / "a.skae")
    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, fail)
    assert_array_equal(skae.load(tmp_path / "a.skae").transform(rows), estimator.transform(rows))


def disturb_bytes(data, draw):
    """Flip a bit, cut, insert, repeat, exchange or overwrite."""
    at, kind = draw.randrange(len(data)), draw.choice(["flip"] * 5 + ["cut", "insert", "repeat", "exchange", "zeros"])
    data = bytearray(data)
    if kind == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del data[at : at + draw.choice([1, 10, len(data)])]
    elif kind == "insert":
        data[at:at] = draw.randbytes(draw.choice([1, 10, 1000]))
    elif kind == "repeat":
        data[at:at] = data[at : at + 100]
    elif kind == "exchange":
        other = draw.randrange(len(data))
        data[at : at + 8], data[other : other + 8] = data[other : other + 8], data[at : at + 8]
    else:
        data[at : at + 4] = bytes(4)
    return bytes(data)


def places(node):
    """Each (container, key) of a tree of JSON."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in pairs:
        yield node, key
        yield from places(child)


def disturb_members(schema, members, draw):
    """Exchange two things, delete one or replace one, in the schema or among the arrays."""
    container, key = draw.choice(list(places(schema)) + [(members, name) for name in members] * 20)
    other, other_key = draw.choice(
        list(places(schema)) if container is not members else [(members, n) for n in members]
    )
    kind = draw.choice(["exchange", "delete", "replace"])
    if kind == "exchange":
        container[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(container[key])
    elif kind == "delete":
        del container[key]
    else:
        container[key] = b"\x93NUMPY" if container is members else draw.choice([None, 3, "x", "[1]", [], {}, DICT])


N_CASES = int(os.environ.get("SKAE_FUZZ_CASES") or 400) // 4


@pytest.mark.fuzz
class TestFuzz:
    """Some 400 changed files, the same ones each time; more and new ones with SKAE_FUZZ_CASES=20000."""

    @pytest.fixture
    def draw(self):
        return random.Random(None if "SKAE_FUZZ_CASES" in os.environ else 0)

    def loaded(self, path):
        """The estimator in a file, or None where it is refused as it must be."""
        try:
            return skae.load(path)
        except ValueError as error:
            assert str(error).startswith(f"{str(path)!r} cannot be loaded: ")
            assert len(str(error)) > 30 + len(str(path))
            return None

    def test_damage(self, saved, draw, tmp_path):
        data = saved.read_bytes()
        for _ in range(2 * N_CASES):
            changed = disturb_bytes(data, draw)
            (tmp_path / "b").write_bytes(changed)
            assert changed == data or self.loaded(tmp_path / "b") is None

    @pytest.mark.filterwarnings("ignore::UserWarning")
    def test_damage_that_is_sealed_again(self, saved, draw, tmp_path):
        """It may be another estimator; zip's sums refuse most of the damage to the arrays."""
        data, original, n_refused = saved.read_bytes(), opened(saved), 0
        modules = {name.split(".")[0] for name in __import__("sys").modules}
        for index in range(2 * N_CASES):
            if index % 2:
                (tmp_path / "b").write_bytes(sealed(disturb_bytes(data, draw)))
            else:
                schema, members = copy.deepcopy(original)
                disturb_members(schema, members, draw)
                forged(tmp_path / "b", schema, members)
            there = self.loaded(tmp_path / "b")
            n_refused += there is None
            assert there is None or type(there) is AutoEncoderTransformer
        assert n_refused > N_CASES
        assert {name.split(".")[0] for name in __import__("sys").modules} == modules
        assert sorted(os.listdir(tmp_path)) == ["a.skae", "b"]


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
    def test_skops_alone_in_another_process(self, tmp_path):
        paths = [tmp_path / name for name in ("a.skae", "a.skops", "rows.npy", "result.npz")]
        estimator = AutoEncoderTransformer(2, **TRAINED)
        pipeline = make_pipeline(StandardScaler(), estimator, LogisticRegression()).fit(X, (X[:, 0] > 0).astype(int))
        skae.save(estimator, paths[0])
        skops.io.dump(pipeline, paths[1])
        np.save(paths[2], X)
        assert run_python(LOAD, *paths) == "skae._autoencoder.AutoEncoderTransformer"
        with np.load(paths[3]) as there:
            assert_array_equal(there["codes"], estimator.transform(X))
            assert_array_equal(there["probabilities"], pipeline.predict_proba(X))

    def test_skops_opens_a_file_of_save(self, saved):
        trusted = ["skae._autoencoder.AutoEncoderTransformer"]
        assert_array_equal(skops.io.load(saved, trusted=trusted).transform(X), tiny().transform(X))

    @pytest.mark.parametrize("how", ["skops", "cloudpickle"])
    def test_mlflow(self, how, tmp_path):
        mlflow = pytest.importorskip("mlflow.sklearn", exc_type=ImportError)
        options = {"serialization_format": how, "pip_requirements": ["skae"]}
        if how == "skops":
            options["skops_trusted_types"] = ["skae._autoencoder.AutoEncoderTransformer"]
        mlflow.save_model(tiny(), str(tmp_path / "model"), **options)
        assert_array_equal(mlflow.load_model(str(tmp_path / "model")).transform(X), tiny().transform(X))

    def test_joblib(self, tmp_path):
        joblib.dump(tiny(), tmp_path / "a.joblib")
        assert_array_equal(joblib.load(tmp_path / "a.joblib").transform(X), tiny().transform(X))
