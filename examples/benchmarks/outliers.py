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
components, scikit-learn's IsolationForest and LocalOutlierFactor and pyod's AutoEncoder with all defaults, and the
distance from the fifth neighbor.

With ``--adbench``, the tables of ADBench (arrays X and y in .npz files), at most 10,000 rows of each, standardised by
the training rows: first half of the ordinary rows are learned, and the other rows are told apart; then half of all rows
are learned, outliers among them, and skae is told so by ``contamination=0.1``. Mean ROC AUC and average precision, and
the tables in which skae is worse than PCA by more than .05.
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
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderOutlierDetector

# Rows of each table of ADBench that are used at most.
MOST_ROWS = 10_000


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


def adbench_tables(folder, seed):
    """Yield the name of each table, its rows and whether each is an outlier."""
    for path in sorted(Path(folder).glob("*.npz"), key=lambda path: int(path.stem.split("_")[0])):
        arrays = np.load(path)
        rows = np.random.RandomState(seed).permutation(len(arrays["y"]))[:MOST_ROWS]
        yield path.stem, arrays["X"][rows].astype(np.float64), arrays["y"][rows] == 1


def halves(X, is_outlier, contaminated):
    """Split into training rows, ordinary ones only unless contaminated, and the other rows."""
    candidates = np.arange(len(X)) if contaminated else np.flatnonzero(~is_outlier)
    learned = np.isin(np.arange(len(X)), candidates[: len(candidates) // 2])
    scaler = StandardScaler().fit(X[learned])
    return scaler.transform(X[learned]), scaler.transform(X[~learned]), is_outlier[~learned]


def skae_scores(train, test, seed, **parameters):
    """The detector with defaults."""
    return AutoEncoderOutlierDetector(random_state=seed, **parameters).fit(train).score_samples(test)


def pca_scores(train, test, seed):
    """Minus PCA's reconstruction error."""
    pca = PCA(int(np.clip(train.shape[1] // 4, 1, min(16, len(train)))), random_state=seed).fit(train)
    return -np.square(test - pca.inverse_transform(pca.transform(test))).sum(axis=1)


def forest_scores(train, test, seed):
    """Isolation by random cuts."""
    return IsolationForest(random_state=seed).fit(train).score_samples(test)


def neighbor_scores(train, test, seed):
    """Minus the distance from the fifth neighbor."""
    return -NearestNeighbors(n_neighbors=min(5, len(train))).fit(train).kneighbors(test)[0][:, -1]


def lof_scores(train, test, seed):
    """Density relative to that of the neighbors."""
    return LocalOutlierFactor(novelty=True).fit(train).score_samples(test)


def pyod_scores(train, test, seed):
    """Another autoencoder."""
    from pyod.models.auto_encoder import AutoEncoder

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return -AutoEncoder(random_state=seed, verbose=0).fit(train).decision_function(test)


METHODS = {
    "skae": skae_scores,
    "PCA": pca_scores,
    "IsolationForest": forest_scores,
    "neighbors": neighbor_scores,
    "LOF": lof_scores,
    "pyod AutoEncoder": pyod_scores,
}


def adbench(folder, n_seeds):
    """Print the mean results over the tables, and where skae is clearly worse than PCA."""
    for name, contaminated in (("ordinary rows learned", False), ("outliers among the rows learned", True)):
        results: dict[str, dict[str, list]] = {}
        for seed in range(n_seeds):
            for table, X, is_outlier in adbench_tables(folder, seed):
                train, test, wanted = halves(X, is_outlier, contaminated)
                if not wanted.any():  # of three outliers, all may be among the rows learned
                    continue
                for method, scores in METHODS.items():
                    parameters = {"contamination": 0.1} if contaminated and method == "skae" else {}
                    found = -scores(train, test, seed, **parameters)
                    pair = roc_auc_score(wanted, found), average_precision_score(wanted, found)
                    results.setdefault(table, {}).setdefault(method, []).append(pair)
                pairs = (f"{method} {found[-1][0]:.3f}" for method, found in results[table].items())
                print(f"seed {seed}, {table}: {', '.join(pairs)}", flush=True)
        means = {
            table: {method: np.mean(pairs, axis=0) for method, pairs in row.items()} for table, row in results.items()
        }
        print(f"\n{len(means)} tables, {name}\n\n| method | ROC AUC | average precision |\n|---|---:|---:|")
        for method in METHODS:
            area, precision = np.mean([row[method] for row in means.values()], axis=0)
            print(f"| {method} | {area:.4f} | {precision:.4f} |")
        worse = {table: row["skae"][0] - row["PCA"][0] for table, row in means.items()}
        print("below PCA by more than .05:", {table: round(by, 3) for table, by in worse.items() if by < -0.05}, "\n")


def main():
    """Print one line a task: the mean over the seeds for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of .npz files with X_train, y_train, X_test")
    parser.add_argument("--adbench", help="folder of the tables of ADBench, which are then the only ones")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.adbench:
        adbench(options.adbench, options.seeds)
        return
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
