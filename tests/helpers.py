"""Data, and runs of Python, that several test modules share."""

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from skae import AutoEncoderTransformer
from skae._objectives.criterion import criterion_of
from skae._objectives.losses import as_loss

ROOT = Path(__file__).resolve().parents[1]
# Where skae is imported from: beside the tests, or installed while these lie in an unpacked source archive.
PACKAGE = Path(importlib.util.find_spec("skae").origin).parent
# The sizes of the fits in tests that are not about quality, so small that each takes milliseconds.
SMALL = {"hidden_layer_sizes": 8, "max_epochs": 2}
TINY = {**SMALL, "max_epochs": 3, "random_state": 0}
# Trained without the choice of an epoch: what was trained is kept, if it is better than PCA on the training rows.
QUICK = {**SMALL, "max_epochs": 1, "early_stopping": False, "random_state": 0}
TRAINED = {"hidden_layer_sizes": 16, "max_epochs": 5, "batch_size": 20, "early_stopping": False, "random_state": 0}
# Enough steps on 200 rows for early stopping to keep a network, but not to order its codes: if they had to be ordered,
# PCA would be kept.
SEARCHED = {"hidden_layer_sizes": 32, "max_epochs": 12, "batch_size": 50, "random_state": 3, "n_components": 2}
SEARCHED["ordered"] = False


class TwoLayers(nn.Module):
    """A user's own network."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(n_features, 12), nn.Tanh(), nn.Linear(12, n_components))
        self.outside = nn.Sequential(nn.Linear(n_components, 12), nn.Tanh(), nn.Linear(12, n_features))

    def encode(self, x):
        return self.inside(x)

    def decode(self, z):
        return self.outside(z)


def curved_rows(n_samples=60, seed=0, noise=0.01):
    """Samples whose five columns are functions of two hidden variables: a network has something to learn."""
    random = np.random.RandomState(seed)
    u, v = random.uniform(-1.0, 1.0, (2, n_samples))
    columns = np.stack([u, v, u**2, u * v, np.sin(3 * v)], axis=1)
    return columns + noise * random.standard_normal(columns.shape)


@functools.cache
def tiny():
    """Return the smallest network that has left PCA."""
    settings = {"max_epochs": 10, "batch_size": 8, "early_stopping": False, "lr": 0.1, "random_state": 2}
    return AutoEncoderTransformer(1, hidden_layer_sizes=2, **settings).fit(curved_rows())


def noise_rows(n_samples=80, n_features=6, seed=0):
    """Gaussian noise, columns of different spreads and offsets: PCA cannot be beaten."""
    random = np.random.RandomState(seed)
    return random.standard_normal((n_samples, n_features)) * np.linspace(1.0, 3.0, n_features) + np.arange(n_features)


def pca_score(pca, X):
    """The share of variance that PCA's reconstruction of X explains, measured as `score` does."""
    return 1.0 - np.square(X - pca.inverse_transform(pca.transform(X))).sum() / np.square(X - pca.mean_).sum()


def losses_of(estimator, X, X_hat):
    """The loss that the estimator was trained for, of each sample."""
    module, loss = estimator.net_.module_, as_loss(estimator.loss)
    x, x_hat = ((torch.as_tensor(values).double() - module.mean) / module.scale for values in (X, X_hat))
    return criterion_of(loss, module.mean.double(), module.scale.double()).per_sample(x_hat, x).numpy()


def python_environment():
    """The environment for a new process that can import skae and these helpers."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def run_python(code, *arguments):
    """Run code in a new process, warnings being errors there too, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=python_environment(), capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout.strip()
