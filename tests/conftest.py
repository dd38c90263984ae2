"""What must hold before any test is imported, and the fixtures that several test modules share."""

import os

os.environ["SCIPY_ARRAY_API"] = "1"  # read by scipy and scikit-learn when they are first imported

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, curved_rows, tiny

from skae import save

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Start NumPy's global generator, which random_state=None reads, from the same state in every test."""
    np.random.seed(0)


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("SKAE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no folder of data sets: set SKAE_DATA, there is none at {folder}")
    return folder


@pytest.fixture
def curved():
    """Sixty rows near a bent surface in five dimensions."""
    return curved_rows()


@pytest.fixture
def path(tmp_path):
    """A file that does not exist yet."""
    return tmp_path / "a.skae"


@pytest.fixture
def saved(path):
    """The file of a small fitted estimator."""
    save(tiny(), path)
    return path
