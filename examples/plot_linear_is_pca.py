"""
A linear autoencoder is equivalent to PCA
=========================================

A linear autoencoder that is trained by gradient descent from random weights finds the subspace of the principal
components, but not the components themselves. In skae, the linear part of the network is initialized by PCA, so that
``activation="identity"`` gives PCA without training.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import subspace_angles
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="linear_is_pca.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

X_train, X_test = train_test_split(load_digits().data, random_state=0)
pca = PCA(2).fit(X_train)

# %%
# Training from random weights
# ----------------------------
# Without hidden layers, nonlinearity and linear skip connection, the network consists of two matrices: one maps the
# features to two codes, the other maps the codes to the features.

trained = AutoEncoderTransformer(
    2,
    activation="identity",
    hidden_layer_sizes=[],
    linear_skip=False,
    early_stopping=False,
    max_epochs=20 if options.quick else 200,
    random_state=0,
).fit(X_train)


def explained(model):
    """Return the explained variance ratio of the held-out samples."""
    X_hat = model.inverse_transform(model.transform(X_test))
    return 1 - np.sum((X_test - X_hat) ** 2) / np.sum((X_test - pca.mean_) ** 2)


directions = trained.inverse_transform(np.eye(2)) - trained.inverse_transform(np.zeros((2, 2)))
angles = np.rad2deg(subspace_angles(directions.T, pca.components_.T))
print(f"Variance explained: PCA {explained(pca):.4f}, linear autoencoder {explained(trained):.4f}")
print(f"Largest angle between the two planes: {angles.max():.2f} degrees")

# %%
# Initialization by PCA
# ---------------------
# With ``activation="identity"``, the codes are those of PCA up to rounding errors.

given = AutoEncoderTransformer(2, activation="identity").fit(X_train)
difference = np.abs(given.transform(X_test) - pca.transform(X_test)).max()
print(f"With PCA as its linear path: {explained(given):.4f}, codes differ from PCA's by {difference:.1e} at most")

# %%
# Codes
# -----
# Gradient descent finds the same subspace, but with other axes.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
titles = ["PCA", "linear autoencoder,\nPCA beside it", "linear autoencoder,\ntrained from random weights"]
for axis, model, title in zip(axes, [pca, given, trained], titles, strict=True):
    axis.scatter(*model.transform(X_test).T, s=6)
    axis.set(title=f"{title}\n{explained(model):.1%} explained", xlabel="code 1", ylabel="code 2")
figure.savefig(options.out, dpi=150)
