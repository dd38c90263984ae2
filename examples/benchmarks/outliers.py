"""
Outliers against other detectors
================================

Every task has one kind of rows to learn, and asks which of the held-out rows are of that kind: ROC AUC of the scores.
Benign against malignant tumours, one cultivar of wine against the others, and each of the ten digits against the rest;
with ``--data``, also one letter, one gas (gas_drift) and one digit (USPS) against the others, and digits against
clothes (MNIST and Fashion-MNIST, 5,000 training images).

    pip install -c constraints.txt -e ".[bench]"
    python examples/benchmarks/outliers.py [--data DIR] [--seeds N]

The detectors see the same standardised rows (images as they are): skae with all defaults, PCA with the same number of
components, scikit-learn's IsolationForest and pyod's AutoEncoder with all defaults.
"""

import argparse
import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderOutlierDetector


def one_kind(X, y, kind, seed, scaled=True):
    """Split into training rows of the kind and held-out rows of all kinds."""
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.4, stratify=y, random_state=seed)
    train = train[y_train == kind]
    if scaled:
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
    return train.astype(np.float32), test.astype(np.float32), y_test == kind


def tasks(folder, seed):
    """Yield the name of each task and its rows."""
    X, y = load_breast_cancer(return_X_y=True)
    yield "breast cancer", one_kind(X, y, 1, seed)
    X, y = load_wine(return_X_y=True)
    yield "wine", one_kind(X, y, 1, seed)
    X, y = load_digits(return_X_y=True)
    for kind in range(10):
        yield f"digit {kind}", one_kind(X, y, kind, seed, scaled=False)
    if folder is None:
        return
    for name in ("letter", "gas_drift", "usps"):
        arrays = np.load(Path(folder) / f"{name}.npz")
        y = arrays["y_train"]
        yield name, one_kind(arrays["X_train"], y, np.unique(y)[0], seed, scaled=name != "usps")
    digits, clothes = (np.load(Path(folder) / f"{name}.npz") for name in ("mnist", "fashion_mnist"))
    rows = np.random.RandomState(seed).permutation(len(digits["X_train"]))[:5000]
    both = np.concatenate([digits["X_test"][:2000], clothes["X_test"][:2000]]).astype(np.float32) / 255
    yield "digits, clothes", (digits["X_train"][rows].astype(np.float32) / 255, both, np.arange(4000) < 2000)


def skae_scores(train, test, seed):
    """The detector with defaults."""
    return AutoEncoderOutlierDetector(random_state=seed).fit(train).score_samples(test)


def pca_scores(train, test, seed):
    """Minus PCA's reconstruction error."""
    pca = PCA(int(np.clip(train.shape[1] // 4, 1, min(16, len(train)))), random_state=seed).fit(train)
    return -np.square(test - pca.inverse_transform(pca.transform(test))).sum(axis=1)


def forest_scores(train, test, seed):
    """Isolation by random cuts."""
    return IsolationForest(random_state=seed).fit(train).score_samples(test)


def pyod_scores(train, test, seed):
    """Another autoencoder."""
    from pyod.models.auto_encoder import AutoEncoder

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return -AutoEncoder(random_state=seed, verbose=0).fit(train).decision_function(test)


METHODS = {"skae": skae_scores, "PCA": pca_scores, "IsolationForest": forest_scores, "pyod AutoEncoder": pyod_scores}


def main():
    """Print one line a task: the mean over the seeds for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of .npz files with X_train, y_train, X_test")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    areas: dict[str, dict[str, list]] = {}
    for seed in range(options.seeds):
        for name, (train, test, wanted) in tasks(options.data, seed):
            for method, scores in METHODS.items():
                area = roc_auc_score(wanted, scores(train, test, seed))
                areas.setdefault(name, {}).setdefault(method, []).append(area)
                print(f"seed {seed}, {name}, {method}: {area:.4f}", flush=True)
    print("\n| task | " + " | ".join(METHODS) + " |\n|---" + "|---:" * len(METHODS) + "|")
    for name, row in areas.items():
        print(f"| {name} | " + " | ".join(f"{np.mean(row[method]):.4f}" for method in METHODS) + " |")


if __name__ == "__main__":
    main()
