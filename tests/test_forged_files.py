"""Files that `save` has not written, or that were changed since: they are refused, and no code in them is run."""

import copy
import functools
import hashlib
import io
import json
import os
import random
import sys
import zipfile

import numpy as np
import pytest
from helpers import curved_rows, tiny
from numpy.testing import assert_array_equal

import skae
from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer, persistence


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


def node(module, name, loader, **more):
    return {"__class__": name, "__module__": module, "__loader__": loader, **more}


def number(value):
    return node("builtins", "str", "JsonNode", content=json.dumps(value))


TUPLE = node("builtins", "tuple", "TupleNode", content=[number("touch evil")])
DICT = node("builtins", "dict", "DictNode", content={}, key_types=node("builtins", "list", "ListNode", content=[]))
SYSTEM = node("os", "system", "FunctionNode")
OURS = node("skae._autoencoder", "AutoEncoderTransformer", "ObjectNode")
PARTIAL = {"func": SYSTEM, "args": TUPLE, "kwds": DICT, "namespace": number(None)}
SEEDED = {"bit_generator": {**DICT, "content": {"bit_generator": number("seed")}}, "seed_seq": DICT}
ATTACKS = {
    "function": SYSTEM,
    "type": node("subprocess", "Popen", "TypeNode"),
    "constructor": node("subprocess", "Popen", "ConstructorFromReduceNode", content=TUPLE),
    "object": node("evil", "Evil", "ObjectNode", content=DICT),
    "method": {**OURS, "__loader__": "MethodNode", "content": {"func": "fit", "obj": OURS}},
    "partial": node("functools", "partial", "PartialNode", content=PARTIAL),
    "operator": node("operator", "methodcaller", "OperatorFuncNode", attrs=TUPLE),
    "generator": node("numpy.random._generator", "Generator", "RandomGeneratorNode", content=SEEDED),
}


X = curved_rows()


def seeded():
    return AutoEncoderTransformer(random_state=np.random.RandomState(0))


def detector():
    return AutoEncoderOutlierDetector(AutoEncoderTransformer(1, max_epochs=0, random_state=0), contamination=0.1).fit(X)


KIND = "_network.content.architecture.content."
POSITION = "random_state.content.content.state.content.pos"
GONE = object()
# What is saved, where in its schema a value is exchanged, for what, and what is said to it.
WRONG = [
    (tiny, "_format_version", number(99), "was saved in format 99 by skae 0.1.*reads format 5: fit again"),
    (tiny, "n_features_in_", number(6), "n_features_in_ is 6, but the network has 5"),
    (tiny, "n_components_", number(1.0), "n_components_ must be an int of at least 0, got 1.0"),
    (tiny, "n_iter_", number(6), "best_epoch_=10, n_iter_=6 and 10 values in loss_curve_ do not belong together"),
    (tiny, "loss_curve_", number([1]), r"loss_curve_ must be a list of float, got \[1\]"),
    (tiny, "mean_", number([1.0]), r"mean_ is not that of the network: \[1.0\]"),
    (tiny, "device_", number(7), "device_ must be a string, got 7"),
    (tiny, "_network", number(3), "the network must be a dict, got int"),
    (tiny, "feature_names_in_", number(["a"]), "feature_names_in_ must have 5 names"),
    (tiny, "module", SYSTEM, "types that are not trusted: os.system. Only those of skae"),
    (tiny, "_network", GONE, "the state of this AutoEncoderTransformer lacks '_network'"),
    (tiny, "dropout", GONE, "the state of this AutoEncoderTransformer lacks 'dropout'"),
    (tiny, KIND + "activation", number("softmax"), "has activation='softmax', but allowed are .*'relu'"),
    (tiny, KIND + "kind", number("module"), "has kind='module', but allowed are"),
    (tiny, KIND + "kind", number("conv"), "cannot be built: architecture='conv' needs input_shape"),
    (tiny, KIND + "kind", number("pca"), "the network lacks nothing and has 'network.linear_encoder'"),
    (tiny, KIND + "module", number("os"), "has module='os', but allowed are"),
    (tiny, KIND + "linear_skip", number(1), "has linear_skip=1, but allowed are"),
    (tiny, KIND + "dropout", number(1.0), "has dropout=1.0, but allowed are floats from 0 to below 1"),
    (tiny, KIND + "n_features", number(10**12), "has n_features=1000000000000, .* are sizes up to the 337 values"),
    (tiny, KIND + "encoder_sizes.content", [number(4)], "encoder.0.weight' has .*asks for .'float64', .4, 5.."),
    (tiny, KIND + "encoder_sizes.content", [number(2)] * 99, "has encoder_sizes=.*, but allowed are sizes"),
    # Numpy believes the position, and would read beyond its memory.
    (seeded, POSITION, number(625), "must be the state of .* position of 0 to 624"),
    (seeded, POSITION, number(-1), "random_state must be the state of .* position of 0 to 624"),
    (detector, "offset_.content", "NaN", "offset_ must be a float that is a number"),
    (detector, "offset_.content", "4", "offset_ must be a float"),
    (detector, "n_neighbors_.content", "99", "of which n_neighbors_ are used"),
    (detector, "n_neighbors_.content", "null", "of which n_neighbors_ are used"),
    (detector, "codes_", number(1), r"codes_ must be floats of shape \(n, 1\)"),
    (detector, "n_features_in_.content", "4", "is 4, but estimator_ has 5 and is of type AutoEncoderTransformer"),
]


def refused(path, message):
    with pytest.raises(ValueError, match=message) as caught:
        skae.load(path)
    assert str(caught.value).startswith(f"{str(path)!r} cannot be loaded: ")


def exchange(schema, place, value):
    """Exchange or remove a value of an estimator."""
    *parents, name = place.split(".")
    container = functools.reduce(dict.__getitem__, parents, schema["content"]["content"])
    keys = schema["content"]["key_types"]["content"]
    if value is GONE:
        del keys[list(container).index(name)], container[name]
    else:
        keys.extend([node("builtins", "str", "TypeNode")] * (name not in container))
        container[name] = value


class TestRefusedAtLoad:
    @pytest.mark.parametrize("start", [b"", b"PK", b"\x80\x04\x95", b"PK\x03\x04" + 100 * b"x"])
    def test_something_else(self, start, path):
        path.write_bytes(start)
        refused(path, rf"it has {len(start)} bytes, begins with .* does not end with the digest of")

    def test_a_sparse_file_of_a_terabyte(self, path):
        path.touch()
        os.truncate(path, 2**40)
        refused(path, "1099511627776 bytes, but at most 17179869184 are allowed")

    @pytest.mark.parametrize("make, place, value, message", WRONG)
    def test_values_that_no_estimator_has(self, make, place, value, message, path):
        skae.save(make(), path)
        schema, members = opened(path)
        exchange(schema, place, value)
        refused(forged(path, schema, members), message)

    def test_no_version_of_skae_is_asked_for(self, saved):
        schema, members = opened(saved)
        exchange(schema, "_skae_version", number(None))
        assert_array_equal(skae.load(forged(saved, schema, members)).transform(X), tiny().transform(X))

    @pytest.mark.parametrize("attack", ATTACKS)
    def test_no_code_is_run(self, attack, saved, monkeypatch):
        (saved.parent / "evil.py").write_text("open('ran', 'w').close()\nclass Evil:\n    pass\n")
        monkeypatch.syspath_prepend(str(saved.parent))
        monkeypatch.chdir(saved.parent)
        before = np.random.get_state()[1].tolist()
        original, members = opened(saved)
        for place in ("loss", "_network.content.history"):
            schema = copy.deepcopy(original)
            exchange(schema, place, ATTACKS[attack])
            refused(forged(saved, schema, members), "types that are not trusted|its content is broken|corrupted")
        refused(forged(saved, {**ATTACKS[attack], "protocol": 2}, members), "not trusted|is broken|corrupted")
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
            ({**node("builtins", "x", "Unknown"), "protocol": 2}, "Can't find loader Unknown"),
        ],
    )
    def test_schemas(self, schema, message, path):
        refused(forged(path, schema, {}), message)

    def test_members(self, saved):
        """Nothing becomes larger than the file is."""
        schema, members = opened(saved)
        inner = io.BytesIO()
        np.savez_compressed(inner, np.zeros(10**6))
        refused(forged(saved, schema, {**members, "x.npy": inner.getvalue()}), "'x.npy' is compressed or an arch")
        refused(forged(saved, schema, members, zipfile.ZIP_DEFLATED), "is compressed or an archive")
        refused(forged(saved, schema, {}), "its content is broken: KeyError")
        line = b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }\n"
        data = b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line + bytes(40)
        refused(forged(saved, schema, {**members, "1.npy": data}), "cannot be loaded")

    @pytest.mark.parametrize(
        "new_names, message",
        [(["1.npy"] * 1000, "member '1.npy' more than once"), (range(1000), "its members overlap|is broken")],
    )
    def test_members_that_are_listed_again(self, new_names, message, saved):
        with zipfile.ZipFile(forged(saved, *opened(saved)), "a") as archive:
            for name in new_names:
                archive.filelist.append(copy.copy(archive.getinfo("1.npy")))
                archive.filelist[-1].filename = str(name)
            archive._didModify = True
        saved.write_bytes(sealed(saved.read_bytes()))
        refused(saved, message)


def disturb_bytes(data, draw):
    """Flip a bit, or put something in the place of a few bytes, of none or of all that follow."""
    at, other = draw.randrange(len(data)), draw.randrange(len(data))
    if draw.random() < 0.5:
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    instead = draw.choice([b"", bytes(4), draw.randbytes(8), draw.randbytes(1000), data[other : other + 100]])
    return data[:at] + instead + data[at + draw.choice([0, len(instead), 1, 10, len(data)]) :]


def places(node):
    """Each (container, key) of a tree of JSON."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield node, key
        yield from places(child)


def disturb_members(schema, members, draw):
    """Delete one thing, exchange it with another or replace it, in the schema or among the arrays."""
    anywhere, arrays = list(places(schema)), [(members, name) for name in members]
    container, key = draw.choice(anywhere + 20 * arrays)
    other, other_key = draw.choice(arrays if container is members else anywhere)
    kind = draw.choice(["exchange", "delete", "replace"])
    if kind == "exchange":
        container[key], other[other_key] = copy.deepcopy(other[other_key]), copy.deepcopy(container[key])
    elif kind == "delete":
        del container[key]
    else:
        container[key] = draw.choice([b"\x93NUMPY"] if container is members else [None, 3, "x", "[1]", [], {}, DICT])


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seals", [False, True])
def test_disturbed_files(seals, saved):
    """Some 400 changed files, the same ones each time; more and new ones with SKAE_FUZZ_CASES=20000.

    Sealed again, a file may hold another estimator; the sums of zip refuse most of the damage to the arrays.
    """
    n_cases = int(os.environ.get("SKAE_FUZZ_CASES") or 400) // 2
    draw = random.Random(None if "SKAE_FUZZ_CASES" in os.environ else 0)
    data, original, n_refused = saved.read_bytes(), opened(saved), 0
    modules = {name.split(".")[0] for name in sys.modules}
    for index in range(n_cases):
        changed = data
        while changed == data:
            changed = disturb_bytes(data, draw)
        saved.write_bytes(sealed(changed) if seals else changed)
        if seals and index % 2 == 0:
            schema, members = copy.deepcopy(original)
            disturb_members(schema, members, draw)
            forged(saved, schema, members)
        try:
            assert type(skae.load(saved)) is AutoEncoderTransformer
        except ValueError as error:
            n_refused += 1
            assert str(error).startswith(f"{str(saved)!r} cannot be loaded: ")
            assert len(str(error)) > len(str(saved)) + 30
    assert n_refused > n_cases // 2 if seals else n_refused == n_cases
    assert {name.split(".")[0] for name in sys.modules} == modules
    assert os.listdir(saved.parent) == ["a.skae"]
