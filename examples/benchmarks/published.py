"""
The published tables
====================

R1: squared error per image of held-out MNIST digits, a network of 784-1000-500-250-30 (Hinton & Salakhutdinov,
Science 2006). R4 and D1: squared error per pixel and accuracy of one nearest neighbour on the codes, k = 2 and 64
(Sainburg, McInnes & Gentner 2021). D2: accuracy of tuned nearest neighbours on the codes of a network whose layers
have d, d/2, d/4, d/8 and k units, k = 9 and 29 (Fournier & Aloise 2019).

    python examples/benchmarks/published.py --table R1|R4|D1|D2 [--data DIR] [--seeds N] [--device D] [--out STEM]
        [--k K ...] [--methods pca skae "skae neighbors" "skae conv"]

The folder DIR holds mnist.npz and fashion_mnist.npz with X_train, y_train, X_test and y_test; without it they are
fetched from OpenML. Each result is a line of STEM.csv as soon as it is known; a run that was stopped goes on where it
stood.
"""

import argparse
import csv
import time
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from skae import AutoEncoderTransformer

OPENML = {"mnist": "mnist_784", "fashion_mnist": "Fashion-MNIST"}
FIELDS = ["table", "data", "k", "seed", "method", "measure", "value", "published", "seconds"]
# What is to be reached, by table, data set and k: Hinton & Salakhutdinov's error; Sainburg et al.'s autoencoder,
# convolutional; Fournier & Aloise's autoencoder.
PUBLISHED = {
    ("R1", "mnist", 30): 3.00,
    ("R4", "mnist", 2): 0.0369,
    ("R4", "mnist", 64): 0.0016,
    ("R4", "fashion_mnist", 2): 0.0244,
    ("R4", "fashion_mnist", 64): 0.0054,
    ("D1", "mnist", 2): 0.765,
    ("D1", "mnist", 64): 0.975,
    ("D1", "fashion_mnist", 2): 0.682,
    ("D1", "fashion_mnist", 64): 0.867,
    ("D2", "mnist", 9): 0.968,
    ("D2", "mnist", 29): 0.978,
    ("D2", "fashion_mnist", 9): 0.856,
    ("D2", "fashion_mnist", 29): 0.875,
}
# Samples that choose the number of neighbours and their weights.
TUNING_ROWS = 10_000
# Epochs of the convolutional network, of which the paper took fifty, and of R1's.
CONV_EPOCHS, R1_EPOCHS = 40, 72
# Sainburg et al.'s layers.
SAINBURG = {"architecture": "conv", "input_shape": (1, 28, 28), "hidden_layer_sizes": (64, 128, 512)}


def load(name, folder):
    """Pixels between 0 and 1 in single precision, and labels, of the training and the test images."""
    if folder is not None:
        arrays = np.load(Path(folder) / f"{name}.npz")
        X, y, X_test, y_test = (arrays[key] for key in ("X_train", "y_train", "X_test", "y_test"))
    else:
        X, y = fetch_openml(OPENML[name], version=1, return_X_y=True, as_frame=False)
        X, y, X_test, y_test = X[:60_000], y[:60_000], X[60_000:], y[60_000:]
    return X.astype(np.float32) / 255, y, X_test.astype(np.float32) / 255, y_test


def squared_error(model, X):
    """Mean over the images of the squared error, summed over the pixels."""
    X_hat = model.inverse_transform(model.transform(X))
    return float(np.square(X_hat - X, dtype=np.float64).sum(axis=1).mean())


def timed_fit(model, X):
    """Fit, and give the seconds too."""
    started = time.perf_counter()
    model.fit(X)
    return model, time.perf_counter() - started


class Results:
    """Lines of a CSV file, written as soon as they are known."""

    def __init__(self, path):
        self.path = path
        self.done = set()
        if path.exists():
            with path.open() as file:
                self.done = {tuple(row[:5]) for row in csv.reader(file)}
        else:
            self._write(FIELDS)

    def knows(self, *key):
        """Whether these results are there already."""
        return tuple(map(str, key)) in self.done

    def add(self, table, name, k, seed, method, measure, value, seconds):
        """Write one result, beside what was published, and say it."""
        published = PUBLISHED.get((table, name, k), "")
        self._write([table, name, k, seed, method, measure, f"{value:.4f}", published, f"{seconds:.1f}"])

    def _write(self, row):
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)
        print(*row, flush=True)


def table_r1(options, results):
    """Squared error of held-out digits. Cross-entropy as in the paper."""
    X, _, X_test, _ = load("mnist", options.data)
    for seed in range(options.seeds):
        layers = {"hidden_layer_sizes": (1000, 500, 250), "loss": "binary_cross_entropy"}
        training = {"early_stopping": False, "max_epochs": R1_EPOCHS, "batch_size": 128, "lr": 1.5e-3, "alpha": 2e-5}
        methods = {
            "pca": PCA(30, random_state=seed),
            "skae": AutoEncoderTransformer(30, **layers, **training, random_state=seed, device=options.device),
        }
        for method, model in methods.items():
            if method in options.methods and not results.knows("R1", "mnist", 30, seed, method):
                model, seconds = timed_fit(model, X)
                results.add("R1", "mnist", 30, seed, method, "squared error", squared_error(model, X_test), seconds)


def fits(options, results, table, sizes, n_samples, methods):
    """Fit what the table lacks; yield the key, the model, the seconds and the images.

    The methods are functions of k and the seed that make a model.
    """
    for name in OPENML:
        X, y, X_test, y_test = load(name, options.data)
        X, y = X[:n_samples], y[:n_samples]
        sizes = options.k or sizes
        for k, seed, (method, make) in product(sizes, range(options.seeds), methods.items()):
            if method in options.methods and not results.knows(table, name, k, seed, method):
                model, seconds = timed_fit(make(k, seed), X)
                yield (name, k, seed, method), model, seconds, (X, y, X_test, y_test)


def network(k, seed, device, **parameters):
    """All codes are used, so that they need no order."""
    return AutoEncoderTransformer(k, ordered=False, random_state=seed, device=device, **parameters)


def table_r4_d1(options, results):
    """Squared error per pixel, and accuracy of one nearest neighbour, after a fit on the first 50,000 images."""
    methods = {
        "pca": lambda k, seed: PCA(k, random_state=seed),
        "skae": lambda k, seed: network(k, seed, options.device, hidden_layer_sizes=(512, 256)),
        "skae neighbors": lambda k, seed: network(k, seed, options.device, regularizer="neighbors"),
        "skae conv": lambda k, seed: network(
            k, seed, options.device, **SAINBURG, early_stopping=False, max_epochs=CONV_EPOCHS
        ),
        "skae conv neighbors": lambda k, seed: network(
            k, seed, options.device, **SAINBURG, regularizer="neighbors", max_epochs=2 * CONV_EPOCHS
        ),
    }
    for key, model, seconds, (X, y, X_test, y_test) in fits(options, results, "D1", (2, 64), 50_000, methods):
        error = squared_error(model, X_test) / X.shape[1]
        results.add("R4", *key, "squared error per pixel", error, seconds)
        neighbour = KNeighborsClassifier(1).fit(model.transform(X), y)
        results.add("D1", *key, "1-NN accuracy", neighbour.score(model.transform(X_test), y_test), seconds)


def table_d2(options, results):
    """Accuracy of nearest neighbours, their number and weights tuned by cross-validation on the codes."""
    grid = {"n_neighbors": [3, 5, 8, 12], "weights": ["uniform", "distance"]}
    methods = {
        "pca": lambda k, seed: PCA(k, random_state=seed),
        "skae": lambda k, seed: network(k, seed, options.device, hidden_layer_sizes=(392, 196, 98)),
    }
    for key, model, seconds, (X, y, X_test, y_test) in fits(options, results, "D2", (9, 29), 60_000, methods):
        codes = model.transform(X)
        search = GridSearchCV(KNeighborsClassifier(), grid, cv=StratifiedKFold(3))
        search.fit(codes[:TUNING_ROWS], y[:TUNING_ROWS])
        tuned = search.best_estimator_.fit(codes, y)
        results.add("D2", *key, "kNN accuracy", tuned.score(model.transform(X_test), y_test), seconds)


TABLES = {"R1": table_r1, "R4": table_r4_d1, "D1": table_r4_d1, "D2": table_d2}


def main():
    """Measure what the file does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, choices=TABLES)
    parser.add_argument("--data", help="folder of .npz files; without it the sets are fetched from OpenML")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--k", nargs="+", type=int, help="sizes of R4, D1 and D2 other than the published ones")
    parser.add_argument("--methods", nargs="*", default=["pca", "skae", "skae neighbors"], help="which")
    parser.add_argument("--out", default="published", help="stem of the .csv file")
    options = parser.parse_args()
    TABLES[options.table](options, Results(Path(options.out).with_suffix(".csv")))


if __name__ == "__main__":
    main()
