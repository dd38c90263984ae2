"""
Held-out reconstruction against PCA, kernel PCA and plain autoencoders
======================================================================

For every data set, scaling, bottleneck size, seed and method: the share of the held-out variance that is explained,
the seconds that the fit took, and the accuracy of two classifiers on the codes. Each result is a line of a CSV file,
written as soon as it is known; a run that was stopped goes on where it stood.

    python examples/benchmarks/reconstruction.py [--data DIR] [--quick] [--out STEM]
"""

import argparse
import csv
import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA, KernelPCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderTransformer

# Images, and counts of words: their columns are of one kind, and stay as they are.
RAW = {"mnist", "fashion_mnist", "usps", "optdigits", "coil20", "olivetti", "digits", "pcmac_text"}
BUNDLED = {
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "iris": datasets.load_iris,
}
FIELDS = ["data", "scaling", "k", "seed", "method", "score", "seconds", "knn", "logistic"]
KERNEL_ROWS = 2000
CLASSIFIER_ROWS = 5000


def load_sets(folder):
    """Yield the name of each data set and a function that loads its four arrays."""
    if folder is None:
        for name, load in BUNDLED.items():
            X, y = load(return_X_y=True)
            parts = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
            yield name, lambda parts=parts: (parts[0], parts[2], parts[1], parts[3])
        return
    for path in sorted(Path(folder).glob("*.npz"), key=lambda path: path.stat().st_size):
        yield path.stem, lambda path=path: [np.load(path)[key] for key in ("X_train", "y_train", "X_test", "y_test")]


def scaled(name, scaling, train, test):
    """Images and counts raw, tables standardised on the training rows or as they are; single precision for all."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    if scaling == "usual" and name not in RAW:
        scaler = StandardScaler().fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
    return train.astype(np.float32), test.astype(np.float32)


def with_outliers(train, test):
    """Move one column of twenty test rows to sixty standard deviations of the training rows."""
    random = np.random.RandomState(0)
    test, mean, spread = test.copy(), train.mean(axis=0), train.std(axis=0)
    columns = random.randint(0, train.shape[1], min(20, len(test)))
    signs = random.choice([-1, 1], len(columns))
    test[np.arange(len(columns)), columns] = mean[columns] + 60 * signs * spread[columns]
    return test


def share_explained(X, X_hat, mean):
    """The measure of every method."""
    X, X_hat = X.astype(np.float64), np.asarray(X_hat, dtype=np.float64)
    return 1 - np.sum((X - X_hat) ** 2) / np.sum((X - mean) ** 2)


class Perceptron:
    """scikit-learn's multilayer perceptron as an autoencoder with the layers that skae chooses."""

    def __init__(self, k, seed, early_stopping):
        sizes = (256, 128, k, 128, 256)
        self.net = MLPRegressor(hidden_layer_sizes=sizes, early_stopping=early_stopping, random_state=seed)

    def fit(self, X):
        """Learn to repeat X."""
        self.net.fit(X, X)
        return self

    def reconstruct(self, X):
        """Predict X from X."""
        return self.net.predict(X).reshape(X.shape)


class Transformer:
    """Anything with fit, transform and inverse_transform."""

    def __init__(self, transformer):
        self.transformer = transformer

    def fit(self, X):
        """Fit the transformer."""
        self.transformer.fit(X)
        return self

    def codes(self, X):
        """Reduce X."""
        return self.transformer.transform(X)

    def reconstruct(self, X):
        """Reduce X and come back."""
        return self.transformer.inverse_transform(self.transformer.transform(X))


def build(method, k, seed, n_samples):
    """Make the method, or None where it does not apply."""
    if method == "pca":
        return Transformer(PCA(k, svd_solver="full" if n_samples < 5000 else "auto", random_state=seed))
    if method == "kernel pca":
        kernel = KernelPCA(k, kernel="rbf", fit_inverse_transform=True, random_state=seed)
        return Transformer(kernel) if n_samples <= KERNEL_ROWS else None
    if method == "plain":
        return Transformer(AutoEncoderTransformer(k, linear_skip=False, random_state=seed))
    if method == "skae":
        return Transformer(AutoEncoderTransformer(k, random_state=seed))
    return Perceptron(k, seed, early_stopping=method == "mlp stopped")


METHODS = ["pca", "kernel pca", "mlp", "mlp stopped", "plain", "skae"]


def classify(model, train, y_train, test, y_test):
    """Accuracy of 5 nearest neighbours and of logistic regression on the codes."""
    some = np.random.RandomState(0).permutation(len(train))[:CLASSIFIER_ROWS]
    codes, test_codes = model.codes(train[some]), model.codes(test)
    neighbours = KNeighborsClassifier(5).fit(codes, y_train[some])
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(codes, y_train[some])
    return neighbours.score(test_codes, y_test), logistic.score(test_codes, y_test)


def measure(method, k, seed, arrays):
    """Fit one method and return its score, seconds and accuracies."""
    train, y_train, test, y_test = arrays
    model = build(method, k, seed, len(train))
    if model is None:
        return None
    started = time.perf_counter()
    try:
        model.fit(train)
    except (ValueError, np.linalg.LinAlgError) as error:
        if method != "kernel pca":
            raise
        print(f"kernel pca gives up: {error}", flush=True)
        return ["nan", "nan", "", ""]
    seconds = time.perf_counter() - started
    score = share_explained(test, model.reconstruct(test), train.mean(axis=0, dtype=np.float64))
    accuracies = classify(model, train, y_train, test, y_test) if method in ("pca", "skae") else ("", "")
    return [f"{score:.5f}", f"{seconds:.2f}", *(a if a == "" else f"{a:.4f}" for a in accuracies)]


def cells(options):
    """Yield every cell: data set, its arrays, scaling, bottleneck and seed."""
    for name, load in load_sets(options.data):
        if options.only and name not in options.only:
            continue
        X, y, X_test, y_test = load()
        if options.rows and len(X) > options.rows:
            some = np.random.RandomState(7).permutation(len(X))[: options.rows]
            X, y = X[some], y[some]
        for scaling in ["usual"] if name in RAW else ["usual", "unscaled"]:
            train, test = scaled(name, scaling, X, X_test)
            test = with_outliers(train, test) if options.outliers else test
            for k in options.k:
                for seed in range(options.seeds) if k < min(train.shape) else ():
                    yield name, scaling, k, seed, (train, y, test, y_test)


def run(options, path):
    """Measure what the file does not hold yet."""
    done = set()
    if path.exists():
        with path.open() as file:
            done = {tuple(row[:5]) for row in csv.reader(file)}
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(FIELDS)
        for name, scaling, k, seed, arrays in cells(options):
            for method in options.methods:
                key = (name, scaling, str(k), str(seed), method)
                if key in done or (method in ("pca", "kernel pca") and seed > 0):
                    continue
                result = measure(method, k, seed, arrays)
                if result is not None:
                    writer.writerow([*key, *result])
                    file.flush()
                    print(*key, *result, flush=True)


def summarise(path):
    """Mean over the seeds of each cell and method."""
    cells_of = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            key = row["data"], row["scaling"], int(row["k"])
            cells_of.setdefault(key, {}).setdefault(row["method"], []).append(row)
    return {
        key: {
            method: {
                field: np.mean([float(row[field]) for row in rows]) if rows[0][field] else np.nan
                for field in FIELDS[5:]
            }
            for method, rows in methods.items()
        }
        for key, methods in cells_of.items()
    }


def write_table(summary, path):
    """One line a cell: scores of all methods, accuracies of PCA's and skae's codes."""
    lines = [
        "| data | scaling | k | " + " | ".join(METHODS) + " | 5-NN: pca | skae | logistic: pca | skae |",
        "|---|---|---:|" + "---:|" * (len(METHODS) + 4),
    ]
    for (name, scaling, k), methods in sorted(summary.items()):
        scores = [f"{methods[method]['score']:.4f}" if method in methods else "not run" for method in METHODS]
        accuracies = [
            f"{methods[method][field]:.3f}" if method in methods else ""
            for field in ("knn", "logistic")
            for method in ("pca", "skae")
        ]
        lines.append(f"| {name} | {scaling} | {k} | " + " | ".join(scores + accuracies) + " |")
    path.write_text("\n".join(lines) + "\n")


def plot(summary, path):
    """What skae and its best rival explain beyond PCA, cell by cell."""
    complete = {key: methods for key, methods in summary.items() if {"pca", "skae"} <= set(methods)}
    gains, rivals = [], []
    for methods in complete.values():
        floor = methods["pca"]["score"]
        others = [methods[method]["score"] for method in ("mlp", "mlp stopped", "plain") if method in methods]
        gains.append(methods["skae"]["score"] - floor)
        rivals.append(max(others, default=np.nan) - floor)
    figure, axis = plt.subplots(figsize=(6, 6), layout="constrained")
    limit = max(gains, default=1.0) + 0.05
    axis.axline((0, 0), slope=1, color="0.7")
    axis.axhline(0, color="0.7")
    axis.scatter(np.clip(rivals, -0.3, None), gains, s=18)
    axis.set(xlabel="best plain autoencoder, beyond PCA (cut at -0.3)", ylabel="skae, beyond PCA")
    axis.set(title="Share of held-out variance explained", ylim=(-0.05, limit))
    figure.savefig(path, dpi=130)


def main():
    """Measure, then write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of .npz files; without it the sets that scikit-learn brings along")
    parser.add_argument("--only", nargs="*", help="names of data sets")
    parser.add_argument("--methods", nargs="*", default=METHODS, choices=METHODS)
    parser.add_argument("--k", nargs="*", type=int, default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="use at most this many training rows")
    parser.add_argument("--outliers", action="store_true", help="spoil twenty rows of each test set")
    parser.add_argument("--quick", action="store_true", help="one seed, at most 2,000 training rows, k = 2, 8 and 32")
    parser.add_argument("--out", default="reconstruction", help="stem of the .csv, .md and .png files")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.rows, options.k = 1, 2000, [2, 8, 32]
    warnings.filterwarnings("ignore", category=UserWarning, module="sklearn.neural_network")
    stem = Path(options.out)
    run(options, stem.with_suffix(".csv"))
    summary = summarise(stem.with_suffix(".csv"))
    write_table(summary, stem.with_suffix(".md"))
    plot(summary, stem.with_suffix(".png"))


if __name__ == "__main__":
    main()
