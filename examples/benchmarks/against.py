"""
Two versions side by side
=========================

Two installed versions of skae, each in a Python environment of its own, fit the same samples with the same seeds:
the fraction of the held-out variance that is explained, and the seconds of `fit` and of `transform` of the training
samples, on one thread, by the clock and of the processor ("cpu", which other programs disturb less). The versions
take turns, so that whatever else the machine does slows both down. With `--floor`, the newer version alone is
compared with PCA, also where PCA is hard to beat: on test samples with outliers, on small data sets and on those with
more features than samples. The 49 cells of docs/benchmarks.md are `--k 2 8 32 --scaling usual unscaled`.

    python examples/benchmarks/against.py --old PYTHON [--data DIR] [--sets NAME ...] [--k K ...] [--seeds N]
    python examples/benchmarks/against.py --floor [--data DIR]

Each fit is a line of a CSV file, written as soon as it is known; a run that was stopped goes on where it stood.
"""

import argparse
import csv
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace

import numpy as np
from reconstruction import RAW, build, classify, load_sets, scaled, share_explained, with_outliers
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

KEY = ["data", "scaling", "samples", "k", "test", "seed"]
SCORES = ["pca", "old", "new"]
# "kept" is 1 where the result is PCA.
MEASURES = [*SCORES, *(f"{version}_{name}" for name in ("seconds", "cpu", "kept") for version in ("old", "new"))]
MEASURES += [f"{version}_{classifier}" for classifier in ("knn", "logistic") for version in SCORES]
TEST_SAMPLES, WIDE_SAMPLES = 2000, 500
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# What runs in each environment, alive over all cells: imports are not counted.
WORKER = """
import json, sys, time, warnings
import numpy as np, torch, skae
answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not be taken for an answer
torch.set_num_threads(1)
warnings.simplefilter("ignore")
# The first fit of a process is slower than the others.
skae.AutoEncoderTransformer(1, max_epochs=1).fit(np.random.RandomState(0).standard_normal((100, 4)))
print(json.dumps([skae.__version__, skae.__file__]), file=answers, flush=True)
for line in sys.stdin:
    task = json.loads(line)
    tests = dict(np.load(task["arrays"]))
    train = tests.pop("train")
    model = skae.AutoEncoderTransformer(task["k"], random_state=task["seed"], **task["params"])
    started, started_cpu = time.perf_counter(), time.process_time()
    results = {"train_codes": model.fit(train).transform(train)}
    fit = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - started_cpu}
    for name, test in tests.items():
        results[name + "_codes"] = model.transform(test)
        results[name] = model.inverse_transform(results[name + "_codes"])
    np.savez(task["out"], **results)
    print(json.dumps({**fit, "kept": int(model.best_epoch_ == 0)}), file=answers, flush=True)
"""


def start(python, folder):
    """Start a worker, isolated and in another folder: the source around this script must not be imported."""
    command, environment = (
        [os.path.abspath(shutil.which(python) or python), "-I", "-c", WORKER],
        os.environ | ONE_THREAD,
    )
    return Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=folder, env=environment)


def answer(worker, **task):
    """Send a worker a task, if there is one, and read its answer."""
    if task:
        print(json.dumps(task), file=worker.stdin, flush=True)
    if line := worker.stdout.readline():
        return json.loads(line)
    raise SystemExit(f"{worker.args[0]} has ended; its error is above. Task: {task}")


def load_small():
    """Diabetes, whose target has no classes to split evenly."""
    X, X_test, y, y_test = train_test_split(*load_diabetes(return_X_y=True), random_state=0)
    return X, y, X_test, y_test


def at_most(n_samples, X, y):
    """Draw samples where there are more."""
    some = np.random.RandomState(7).permutation(len(X))[:n_samples] if len(X) > n_samples else slice(None)
    return X[some], y[some]


def cells(options):
    """Yield each cell: what it is called, k, training samples, sets of test samples, and classes."""
    found = dict(load_sets(options.data))
    every = {"diabetes": load_small, **dict(load_sets(None)), **found}
    names = list(every if options.floor else found) if options.sets == ["all"] else options.sets
    if unknown := set(names) - set(every):
        raise SystemExit(f"No data set is called {sorted(unknown)}; there are {sorted(every)}.")
    for wide, name in [(wide, name) for wide in range(1 + options.floor) for name in names]:
        X, y, X_test, y_test = every[name]()
        if wide and not len(X) > WIDE_SAMPLES < X.shape[1]:
            continue
        X, y = at_most(WIDE_SAMPLES if wide else options.samples, X, y)
        X_test, y_test = at_most(TEST_SAMPLES, X_test, y_test)
        for scaling in [one for one in options.scaling if one == "usual" or name not in RAW]:
            train, test = scaled(name, scaling, X, X_test)
            tests = {"clean": test, "outliers": with_outliers(train, test)} if options.floor else {"clean": test}
            for k in options.k:
                if k < min(train.shape) and re.search(options.cells, f"{name} {scaling} {k}"):
                    yield (name, scaling, str(len(train)), str(k)), k, train, tests, (y, y_test)


def measure(cell, seeds, workers, folder, options):
    """Fit PCA and, seed by seed, all versions; yield a row for each seed and set of test samples."""
    key, k, train, tests, (y, y_test) = cell
    files, mean = {"arrays": f"{folder}/arrays.npz", "out": f"{folder}/out.npz"}, train.mean(axis=0, dtype=np.float64)
    np.savez(files["arrays"], train=train, **tests)
    pca, codes = build("pca", k, 0, len(train)).fit(train), SimpleNamespace(codes=lambda Z: Z)
    outs = {"pca": {f"{name}_codes": pca.codes(X) for name, X in {"train": train, **tests}.items()}}
    outs["pca"] |= {test: pca.reconstruct(X) for test, X in tests.items()}
    for seed in seeds:
        fits = {}
        for version, worker in workers:
            found = answer(worker, **files, k=k, seed=seed, params=options.params)
            fits |= {f"{version}_{name}": str(round(value, 3)) for name, value in found.items()}
            outs[version] = dict(np.load(files["out"]))
        workers.reverse()
        for test, X in tests.items():
            row = dict(zip(KEY, (*key, test, str(seed)), strict=True)) | fits
            for version, out in outs.items():
                row[version] = f"{share_explained(X, out[test], mean):.5f}"
                if options.codes:
                    both = classify(codes, out["train_codes"], y, out[f"{test}_codes"], y_test)
                    row |= {
                        f"{version}_{name}": f"{one:.4f}" for name, one in zip(("knn", "logistic"), both, strict=True)
                    }
            yield row


def mean_of(rows):
    """Means over the seeds of a cell, and the least difference from PCA."""
    mean = {name: np.mean([float(row[name]) for row in rows]) for name in MEASURES if rows[0].get(name)}
    mean["least"] = min(float(row["new"]) - float(row["pca"]) for row in rows)
    if "old" in mean:
        mean["difference"] = mean["new"] - mean["old"]
        mean |= {f"{name}_ratio": mean[f"new_{name}"] / mean[f"old_{name}"] for name in ("seconds", "cpu")}
    return mean


def summarize(means):
    """Print what the cells say together."""
    lists = {"below PCA - 0.001, mean of the seeds": [name for name, m in means.items() if m["new"] < m["pca"] - 0.001]}
    lists["below PCA - 0.001, a seed"] = [name for name, m in means.items() if m["least"] < -0.001]
    if any("old" in m for m in means.values()):
        lists["new < old - 0.002"] = [name for name, m in means.items() if m["difference"] < -0.002]
    for text, found in {"cells": means.values(), **lists}.items():
        print(f"{text}: {len(found)}", *(found if text != "cells" else ()), sep="\n    ")
    differences = [m["difference"] for m in means.values() if m.get("old", 1) < 0.98]
    if differences:
        print(f"mean difference where old < 0.98: {np.mean(differences):+.4f} ({len(differences)} cells)")
    trained = [m for m in means.values() if m.get("old_kept", 1) < 1]
    for name in ("seconds", "cpu") if trained else ():
        ratios = [m[f"{name}_ratio"] for m in trained]
        text = f"median {np.median(ratios):.3f}, largest {max(ratios):.3f} ({len(ratios)} cells)"
        print(f"{name}, new / old, where old did not keep PCA: {text}")


def run(options, workers, folder):
    """Measure what the file does not hold yet, and print all cells."""
    rows, means = {}, {}
    with options.out.open("a+", newline="") as file:
        file.seek(0)
        rows = {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}
        writer = csv.DictWriter(file, KEY + MEASURES)
        if not file.tell():
            writer.writeheader()
        for cell in cells(options):
            keys = [[(*cell[0], test, str(seed)) for test in cell[3]] for seed in range(options.seeds)]
            seeds = [seed for seed, wanted in enumerate(keys) if not set(wanted) <= set(rows)]
            for row in measure(cell, seeds, workers, folder, options) if seeds else ():
                writer.writerow(row)
                file.flush()
                rows[tuple(row[name] for name in KEY)] = row
            for group in zip(*keys, strict=True):
                name = " ".join(group[0][:-1])
                means[name] = mean_of([rows[key] for key in group])
                print(name, *(f"{key} {value:.4f}" for key, value in means[name].items()), flush=True)
    summarize(means)


def main(arguments=None):
    """Start the environments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", help="python of the older version's environment")
    parser.add_argument("--new", default=sys.executable, help="the same of the newer version; default: this one")
    parser.add_argument("--floor", action="store_true", help="compare the newer version with PCA alone")
    parser.add_argument("--data", help="folder of .npz files; without it the sets that scikit-learn brings along")
    parser.add_argument("--sets", nargs="+", default=["all"], help="names of data sets")
    parser.add_argument("--k", nargs="+", type=int, help="default: 2 8 16 32, with --floor 2 8 32")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000, help="use at most this many training samples")
    parser.add_argument("--scaling", nargs="+", choices=["usual", "unscaled"], help="default: usual, with --floor both")
    parser.add_argument("--cells", default="", help="regular expression, searched in 'data scaling k'")
    parser.add_argument("--codes", action="store_true", help="also the accuracies of two classifiers on the codes")
    parser.add_argument("--params", type=json.loads, default={}, help="more parameters of both versions, as JSON")
    parser.add_argument("--out", type=Path, default="against.csv")
    options = parser.parse_args(arguments)
    if not (options.old or options.floor):
        parser.error("give --old or --floor")
    options.k = options.k or ([2, 8, 32] if options.floor else [2, 8, 16, 32])
    options.scaling = options.scaling or (["usual", "unscaled"] if options.floor else ["usual"])
    pythons = {"new": options.new} if options.floor else {"old": options.old, "new": options.new}
    with tempfile.TemporaryDirectory() as folder:
        workers = [(version, start(python, folder)) for version, python in pythons.items()]
        try:
            for version, worker in workers:
                print(version, *answer(worker), flush=True)
            run(options, workers, folder)
        finally:
            for _, worker in workers:
                worker.kill()
                worker.communicate()


if __name__ == "__main__":
    main()
