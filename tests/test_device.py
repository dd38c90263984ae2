"""Devices: the choice, the complaint, and a fit on an accelerator where there is one."""

import pickle

import numpy as np
import pytest
import torch
from helpers import SEARCHED, TRAINED, curved_rows
from scipy import sparse
from sklearn.datasets import load_digits
from test_family import EACH, LABELS, build

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer
from skae._utils import available_devices, resolve_device

ACCELERATORS = available_devices()[1:]


@pytest.fixture
def three_devices(monkeypatch):
    """A machine that has two cards."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    "device, expected",
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), (torch.device("cuda:1"), "cuda:1"), ("cpu", "cpu")],
)
def test_choice(device, expected, three_devices):
    assert resolve_device(device) == torch.device(expected)


def test_complaint_names_every_device(three_devices, curved):
    expected = "device='cuda:2' is not available: this machine has 'cpu', 'cuda:0', 'cuda:1'. Pass one of these"
    with pytest.raises(ValueError, match=expected):
        AutoEncoderTransformer(device="cuda:2").fit(curved)


def test_auto_on_a_machine_without_accelerator(monkeypatch, curved):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    estimator = AutoEncoderTransformer(device="auto", max_epochs=0).fit(curved)
    assert str(estimator.device_) == "cpu"
    assert estimator.device == "auto"


def test_float64_on_mps_is_refused(monkeypatch, curved):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"device='mps' computes in float32 only, but X is float64. Pass X.astype"):
        AutoEncoderTransformer(device="mps").fit(curved)


@pytest.mark.parametrize("device", [torch.device("cpu"), "cpu", "cpu:0"])
def test_names_of_the_processor(device, curved):
    estimator = AutoEncoderTransformer(2, **TRAINED, device=device).fit(curved)
    expected = AutoEncoderTransformer(2, **TRAINED).fit(curved)
    np.testing.assert_array_equal(estimator.transform(curved), expected.transform(curved))


def on_the_processor(estimator, monkeypatch):
    """Return a copy of a fitted estimator as a machine without accelerator opens it."""
    file = pickle.dumps(estimator)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        return pickle.loads(file)


@pytest.mark.skipif(not ACCELERATORS, reason="no accelerator")
class TestAccelerator:
    def test_fit_agrees_with_the_processor(self):
        X = curved_rows(400).astype(np.float32)
        there = AutoEncoderTransformer(2, **TRAINED, device="auto").fit(X)
        here = AutoEncoderTransformer(2, **TRAINED).fit(X)
        assert str(there.device_) == ACCELERATORS[0]
        assert next(there.net_.module_.buffers()).device.type == torch.device(ACCELERATORS[0]).type
        assert there.score(X) == pytest.approx(here.score(X), abs=0.01)

    def test_a_file_opens_without_the_accelerator(self, monkeypatch):
        X = curved_rows(100).astype(np.float32)
        estimator = AutoEncoderTransformer(2, **TRAINED, device="auto").fit(X)
        codes = estimator.transform(X)
        copy = on_the_processor(estimator, monkeypatch)
        assert str(copy.device_) == "cpu"
        np.testing.assert_allclose(copy.transform(X), codes, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("early_stopping", [True, False])
    @pytest.mark.parametrize("parameters", EACH.values(), ids=EACH)
    def test_each_architecture_loss_and_regularizer(self, parameters, early_stopping, monkeypatch):
        images = (load_digits().data[:64] / 16).astype(np.float32)
        estimator = build(parameters).set_params(device="auto", early_stopping=early_stopping, batch_size=8)
        codes = estimator.fit_transform(images, LABELS)
        assert codes.shape == (64, 3)
        np.testing.assert_allclose(estimator.transform(images[:5]), codes[:5], rtol=1e-4, atol=1e-5)
        assert np.isfinite(estimator.inverse_transform(codes)).all()
        assert np.isfinite(estimator.score(images))
        copy = on_the_processor(estimator, monkeypatch)
        np.testing.assert_allclose(copy.inverse_transform(codes), estimator.inverse_transform(codes), atol=1e-4)
        np.testing.assert_allclose(np.median(np.abs(copy.transform(images) - codes)), 0.0, atol=1e-3)

    @pytest.mark.parametrize("early_stopping", [True, False])
    @pytest.mark.parametrize("kind", ["missing", "sparse", "weights", "groups", "double", "automatic", "L-BFGS"])
    def test_each_kind_of_data(self, kind, early_stopping, monkeypatch):
        X = curved_rows(200).astype(np.float64 if kind == "double" else np.float32)
        parameters = {**SEARCHED, "early_stopping": early_stopping, "device": "auto"}
        parameters |= {"n_components": "auto"} if kind == "automatic" and early_stopping else {}
        parameters |= {"optimizer": "lbfgs"} if kind == "L-BFGS" else {}
        fit = {"weights": {"sample_weight": np.arange(200.0)}, "groups": {"groups": np.arange(200) // 4}}.get(kind, {})
        if kind == "missing":
            parameters["allow_nan"] = True
            X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
        samples = sparse.csr_matrix(X) if kind == "sparse" else X
        estimator = AutoEncoderTransformer(**parameters).fit(samples, **fit)
        copy = on_the_processor(estimator, monkeypatch)
        assert np.isfinite(estimator.explained_variance_ratio_).all()
        assert estimator.score(samples) == pytest.approx(copy.score(samples), abs=1e-3)

    def test_stream(self):
        X = curved_rows(400).astype(np.float32)
        estimator = AutoEncoderTransformer(2, hidden_layer_sizes=16, random_state=0, device="auto")
        for part in np.split(X, 4):
            estimator.partial_fit(part)
        assert estimator.score(X) > 0.5

    def test_detector(self, monkeypatch):
        X = curved_rows(200).astype(np.float32)
        detector = AutoEncoderOutlierDetector(AutoEncoderTransformer(2, **TRAINED, device="auto")).fit(X)
        copy = on_the_processor(detector, monkeypatch)
        np.testing.assert_allclose(copy.score_samples(X), detector.score_samples(X), rtol=1e-2, atol=1e-5)
