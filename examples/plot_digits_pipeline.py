"""
Number of components for handwritten digits
===========================================

A handwritten digit has 64 pixels. How well can it be reconstructed from a few components of PCA, and from as many
codes of an autoencoder? A grid search selects the smallest number of components that explains 80 % of the variance.
PCA and the autoencoder are then compared on a test set, which is used neither for the search nor for the fits: by the
explained variance ratio, and by the accuracy of two classifiers that are trained on the codes.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="digits_pipeline.png", help="file for the picture")
parser.add_argument("--quick", action="store_true", help="few epochs and bottlenecks, only to see that it runs")
options = parser.parse_args()

BOTTLENECKS = [2, 8] if options.quick else [2, 4, 8, 16]
MAX_EPOCHS = 3 if options.quick else 300
ENOUGH = 0.6 if options.quick else 0.8
FRACTION = 0.9

# %%
# The data
# --------

digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.data, digits.target, test_size=0.25, stratify=digits.target, random_state=0
)

# %%
# Grid search
# -----------
# Without ``scoring``, the grid search uses the ``score`` method of the estimator, which is the explained variance
# ratio. It increases with the number of components, so the smallest number that explains enough variance is selected.


def smallest_enough(results):
    """Select the smallest bottleneck that explains enough, or the largest if none does."""
    enough = results["mean_test_score"] >= ENOUGH
    return int(np.argmax(enough)) if enough.any() else len(enough) - 1


search = GridSearchCV(
    AutoEncoderTransformer(max_epochs=MAX_EPOCHS, random_state=0),
    {"n_components": BOTTLENECKS},
    cv=3,
    refit=smallest_enough,
    n_jobs=1 if options.quick else 2,
).fit(X_train)
k_best = search.best_params_["n_components"]
print(f"Smallest bottleneck that explains {ENOUGH:.0%} of the variance in cross-validation: {k_best}\n")

# %%
# Comparison with PCA
# -------------------
# Both methods are fitted to the same samples, with the same number of components or, in the last row, with as many as
# explain 90 % of the variance.


def explained_variance(transformer):
    """Return the fraction of the held-out variance that the reconstruction explains."""
    X_hat = transformer.inverse_transform(transformer.transform(X_test))
    return 1 - np.sum((X_test - X_hat) ** 2) / np.sum((X_test - transformer.mean_) ** 2)


def accuracy(transformer, classifier):
    """Return the held-out accuracy of a classifier that is trained on the codes."""
    classifier.fit(transformer.transform(X_train), y_train)
    return classifier.score(transformer.transform(X_test), y_test)


fitted = {}
print("| n_components | variance explained: PCA | skae | 1-NN accuracy: PCA | skae | logistic regression: PCA | skae |")
print("|---:|---:|---:|---:|---:|---:|---:|")
for k in [*BOTTLENECKS, FRACTION]:
    pca = PCA(k, random_state=0).fit(X_train)
    autoencoder = AutoEncoderTransformer(k, max_epochs=MAX_EPOCHS, random_state=0).fit(X_train)
    fitted[k] = pca, autoencoder
    row = [explained_variance(transformer) for transformer in fitted[k]]
    row += [accuracy(transformer, KNeighborsClassifier(1)) for transformer in fitted[k]]
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    row += [accuracy(transformer, linear) for transformer in fitted[k]]
    print(f"| {k} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
sizes = [transformer.n_components_ for transformer in fitted[FRACTION]]
print("\nComponents that explain {:.0%} of the variance: PCA {}, skae {}".format(FRACTION, *sizes))

# %%
# Reconstructed digits
# --------------------
# The figure shows the first test digit of each class and its reconstructions with the number of components that was
# selected by the search.

first = [np.flatnonzero(y_test == digit)[0] for digit in range(10)]
originals = X_test[first]
rows = {"original\n64 pixels": originals}
for name, transformer in zip(["PCA", "skae"], fitted[k_best], strict=True):
    ratio = explained_variance(transformer)
    X_hat = transformer.inverse_transform(transformer.transform(originals))
    rows[f"{name}, {k_best} components\n{ratio:.0%} explained"] = X_hat

figure, axes = plt.subplots(len(rows), 10, figsize=(10, 3.3), layout="constrained")
for (name, images), row_axes in zip(rows.items(), axes, strict=True):
    for image, axis in zip(images, row_axes, strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_color("0.8")
    row_axes[0].set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8)
figure.suptitle(f"Held-out digits, reconstructed from {k_best} components")
figure.savefig(options.out, dpi=150)
print(f"\nPicture: {options.out}")
