"""Devices: the choice, the complaint, and a fit on an accelerator where there is one."""

import pickle

import numpy as np
import pytest
import torch
from helpers import TRAINED, curved_rows

from skae import AutoEncoderTransformer
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
        file = pickle.dumps(estimator)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
        copy = pickle.loads(file)
        assert str(copy.device_) == "cpu"
        np.testing.assert_allclose(copy.transform(X), codes, rtol=1e-3, atol=1e-4)
