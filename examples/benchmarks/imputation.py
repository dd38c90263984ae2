"""
Missing values filled in, against the mean, PCA, neighbours and iterated regressions
====================================================================================

A share of the values of each table is hidden, each value at random or, in each row, a run of neighboring columns that
begins at random. What each method fills in for them is compared with what was there: the root mean square of the
difference, columns standardised. The last lines count in how many cells skae is better than each of the others.

    python examples/benchmarks/imputation.py [--data DIR] [--shares 0.1 0.3 0.5 0.8] [--patterns random blocks]
        [--seeds N] [--rows N] [--only TABLE ...]
"""

import argparse
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderTransformer

BUNDLED = {
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
    "digits": datasets.load_digits,
}
TABLES = ("letter", "spambase", "gas_drift", "optdigits")
# Tables of ADBench, whose samples of all kinds are used.
ADBENCH = ("6_cardio", "19_landsat", "22_magic.gamma", "41_Waveform")
MOST_CODES = 32
# Regressions on as many columns take minutes a cell.
MOST_COLUMNS_ITERATED = 40
MOST_ROUNDS = 200


def tables(folder, n_samples):
    """Yield the name and the standardised rows of each table, without columns of one value."""
    loaders = {name: lambda load=load: load().data for name, load in BUNDLED.items()}
    if folder:
        loaders |= {name: lambda name=name: np.load(Path(folder) / f"{name}.npz")["X_train"] for name in TABLES}
        for name in ADBENCH:
            loaders[name.split("_")[1]] = lambda name=name: np.load(Path(folder) / "adbench" / f"{name}.npz")["X"]
    for name, load in loaders.items():
        X = load().astype(np.float64)
        X = X[np.random.RandomState(0).permutation(len(X))[:n_samples]]
        yield name, StandardScaler().fit_transform(X[:, X.std(axis=0) > 0])


def n_codes(X):
    """How many numbers stand for a row."""
    return min(MOST_CODES, X.shape[1] // 2)


def by_iterated_pca(X):
    """Fill in the mean, then what PCA reconstructs of that, until it stays."""
    hidden, filled = np.isnan(X), SimpleImputer().fit_transform(X)
    for _ in range(MOST_ROUNDS):
        pca = PCA(n_codes(X), svd_solver="full").fit(filled)
        before, filled = filled, np.where(hidden, pca.inverse_transform(pca.transform(filled)), filled)
        if np.linalg.norm(filled - before) < 1e-4 * np.linalg.norm(filled):
            break
    return filled


def by_codes(**parameters):
    """Fill in what an autoencoder reconstructs; without epochs it is probabilistic PCA."""

    def fill(X):
        estimator = AutoEncoderTransformer(n_codes(X), allow_nan=True, random_state=0, **parameters)
        return estimator.inverse_transform(estimator.fit_transform(X))

    return fill


METHODS = {
    "mean": lambda X: SimpleImputer().fit_transform(X),
    "iterated PCA": by_iterated_pca,
    "probabilistic PCA": by_codes(max_epochs=0),
    "KNNImputer": lambda X: KNNImputer().fit_transform(X),
    "IterativeImputer": lambda X: IterativeImputer(random_state=0).fit_transform(X),
    "skae": by_codes(),
}


def hidden_at_random(shape, share, random):
    """Hide each value with the same probability."""
    return random.uniform(size=shape) < share


def hidden_in_blocks(shape, share, random):
    """Hide a run of columns in each row, which may go on at the first column."""
    starts = random.randint(shape[1], size=(shape[0], 1))
    return (np.arange(shape[1]) - starts) % shape[1] < max(round(share * shape[1]), 1)


PATTERNS = {"random": hidden_at_random, "blocks": hidden_in_blocks}


def errors(X, hidden):
    """Root mean square error of each method at the values that were hidden."""
    holes, found = np.where(hidden, np.nan, X), {}
    for name, fill in METHODS.items():
        if name == "IterativeImputer" and X.shape[1] > MOST_COLUMNS_ITERATED:
            continue
        begin = time.perf_counter()
        found[name] = np.sqrt(np.square(fill(holes) - X)[hidden].mean())
        print(f"    {name} {found[name]:.4f}, {time.perf_counter() - begin:.1f} s", flush=True)
    return found


def main():
    """Print one line a table, share and pattern, and then how often skae is better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of .npz files; without it the tables that scikit-learn brings along")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.8])
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS), choices=PATTERNS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1000, help="use at most this many rows")
    parser.add_argument("--only", nargs="*", help="names of tables")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    lines, cells = [], []
    for name, X in tables(options.data, options.rows):
        for pattern, share in product(options.patterns, options.shares):
            if options.only and name not in options.only:
                continue
            print(f"{name}, {X.shape[0]} x {X.shape[1]}, {share:.0%} hidden, {pattern}", flush=True)
            masks = (PATTERNS[pattern](X.shape, share, np.random.RandomState(seed)) for seed in range(options.seeds))
            runs = [errors(X, hidden) for hidden in masks]
            cells.append({method: np.mean([run[method] for run in runs]) for method in runs[0]})
            shown = " | ".join(f"{cells[-1][method]:.4f}" if method in cells[-1] else "not run" for method in METHODS)
            lines.append(f"| {name} | {pattern} | {share:.0%} | {shown} |")
    print(f"\n| data | pattern | hidden | {' | '.join(METHODS)} |\n|---|---|---:|{'---:|' * len(METHODS)}")
    print("\n".join(lines))
    for method in METHODS:
        differences = np.array([cell["skae"] - cell[method] for cell in cells if method in cell])
        better, worse = (differences < 0).sum(), (differences > 0.01).sum()
        print(f"better than {method} in {better} of {len(differences)}, worse by more than .01 in {worse}")


if __name__ == "__main__":
    main()
