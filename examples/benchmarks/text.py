"""
Sparse text: codes before a classifier, against truncated SVD and PCA
=====================================================================

Counts of words, or their weights by TF-IDF, stay sparse throughout; what is compared is the accuracy of a logistic
regression on the codes, on texts that nobody has seen. Without a folder that holds ``pcmac_text.npz`` two of the twenty
newsgroups are fetched.

    python examples/benchmarks/text.py [--data DIR] [--k K ...] [--weights counts tf-idf]
"""

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
import scipy.sparse
from sklearn.datasets import fetch_20newsgroups
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skae import AutoEncoderTransformer

WEIGHTS = {"counts": FunctionTransformer(), "tf-idf": TfidfTransformer(sublinear_tf=True)}
GROUPS = ["comp.sys.ibm.pc.hardware", "comp.sys.mac.hardware"]


def texts(folder):
    """Sparse counts and labels, of training texts and of others."""
    if folder:
        stored = np.load(Path(folder) / "pcmac_text.npz")
        train, test = (scipy.sparse.csr_array(stored[key].astype(np.float64)) for key in ("X_train", "X_test"))
        return train, stored["y_train"], test, stored["y_test"]
    known, unseen = (
        fetch_20newsgroups(subset=subset, categories=GROUPS, remove=("headers", "footers", "quotes"))
        for subset in ("train", "test")
    )
    counter = CountVectorizer(min_df=3, stop_words="english")
    return counter.fit_transform(known.data), known.target, counter.transform(unseen.data), unseen.target


def reductions(k, weights):
    """Ways to k numbers a text. The loss for counts is Poisson's, that for weights the cosine."""
    loss = {"counts": "poisson", "tf-idf": "cosine"}[weights]
    return {
        "TruncatedSVD": TruncatedSVD(k, random_state=0),
        "PCA": PCA(k, svd_solver="arpack", random_state=0),
        "skae": AutoEncoderTransformer(k, random_state=0),
        f"skae, {loss} loss": AutoEncoderTransformer(k, loss=loss, random_state=0),
    }


def main():
    """Print one line a way and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with pcmac_text.npz")
    parser.add_argument("--k", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=WEIGHTS)
    options = parser.parse_args()
    X, y, X_test, y_test = texts(options.data)
    print(f"{X.shape[0]} texts, {X.shape[1]} words, {X.nnz / X.shape[0] / X.shape[1]:.1%} of the counts not zero\n")
    print("| weights | n_components | method | accuracy on the codes | seconds |\n|---|---:|---|---:|---:|")
    for weights, k in product(options.weights, options.k):
        for name, reduction in reductions(k, weights).items():
            begin = time.perf_counter()
            pipeline = make_pipeline(WEIGHTS[weights], reduction, LogisticRegression(C=100, max_iter=1000))
            accuracy = pipeline.fit(X, y).score(X_test, y_test)
            print(f"| {weights} | {k} | {name} | {accuracy:.4f} | {time.perf_counter() - begin:.1f} |", flush=True)


if __name__ == "__main__":
    main()
