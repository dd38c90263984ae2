"""
Codes that keep neighbors
=========================

A picture of samples should show which ones are similar. This example compares two codes of PCA, of UMAP, which was made
for this, and of an autoencoder with ``regularizer="neighbors"``, on digits that were not trained on. All three can go
back from a point of the picture to an image.
"""

import argparse
import importlib.util

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="neighbors.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)

# %%
# Fitting
# -------
# UMAP is left out where it is not installed (``pip install umap-learn``).

max_epochs = 4 if options.quick else "auto"
models = {
    "PCA": PCA(2),
    "skae": AutoEncoderTransformer(2, max_epochs=max_epochs, random_state=0),
    "skae, neighbors": AutoEncoderTransformer(2, regularizer="neighbors", max_epochs=max_epochs, random_state=0),
}
if importlib.util.find_spec("umap") and not options.quick:
    from umap import UMAP

    models["UMAP"] = UMAP(random_state=0, n_jobs=1)
for model in models.values():
    model.fit(X_train)

# %%
# Comparison
# ----------
# Trustworthiness: whether samples that are close in the picture were close before. Continuity: whether samples that
# were close are close in the picture. Both are at most one. Then the accuracy of one nearest neighbor in the picture,
# and the fraction of the variance that the way back explains.

codes = {name: model.transform(X_test) for name, model in models.items()}
print(f"{'':16} trustworthiness  continuity  1-NN accuracy  variance explained")
for name, model in models.items():
    Z = codes[name]
    trust, continuity = trustworthiness(X_test, Z, n_neighbors=10), trustworthiness(Z, X_test, n_neighbors=10)
    accuracy = KNeighborsClassifier(1).fit(model.transform(X_train), y_train).score(Z, y_test)
    errors = np.square(X_test - model.inverse_transform(Z)).sum()
    explained = 1 - errors / np.square(X_test - X_train.mean(axis=0)).sum()
    print(f"{name:16} {trust:15.3f} {continuity:11.3f} {accuracy:14.3f} {explained:19.3f}")

# %%
# Pictures
# --------
# Above, the codes of the test digits; below, the images of a grid of codes.

SIDE = 9
figure, axes = plt.subplots(2, len(models), figsize=(3.2 * len(models), 6.4), layout="constrained")
for name, (above, below) in zip(models, axes.T, strict=True):
    above.scatter(*codes[name].T, c=y_test, cmap="tab10", s=8)
    above.set(title=name, xticks=[], yticks=[])
    lowest, highest = np.percentile(codes[name], [2, 98], axis=0)
    across, up = np.meshgrid(*np.linspace(lowest, highest, SIDE).T)
    grid = np.column_stack([across.ravel(), up[::-1].ravel()]).astype(X.dtype)
    images = models[name].inverse_transform(grid).reshape(SIDE, SIDE, 8, 8)
    tiles = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    below.imshow(np.concatenate(np.concatenate(tiles, axis=1), axis=1), cmap="gray_r", vmin=0, vmax=16)
    below.set(xticks=[], yticks=[])
figure.savefig(options.out)
print(f"Wrote {options.out}.")
