"""
Ordered codes
=============

The codes of an autoencoder are ordered, as the components of PCA: each explains as much as possible of what the codes
before it leave. This example plots what each code of handwritten digits explains, keeps the first codes of the fitted
autoencoder, and shows the direction of each code as an image.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer, loadings, truncate

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="ordered_codes.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs and components, only to see it run")
options = parser.parse_args()

LARGEST, KEPT, MAX_EPOCHS = (4, 2, 3) if options.quick else (16, 6, 150)
X_train, X_test = train_test_split(load_digits().data, random_state=0)
pca = PCA(LARGEST).fit(X_train)

# %%
# What each code explains
# -----------------------
# ``regularizer="nested"`` orders the codes as by default, and puts more weight on the first ones. As in PCA,
# ``explained_variance_ratio_`` is what each code adds to the fraction of the variance that is explained.

autoencoder = AutoEncoderTransformer(LARGEST, regularizer="nested", max_epochs=MAX_EPOCHS, random_state=0).fit(X_train)
explained = {"PCA": pca.explained_variance_ratio_, "skae": autoencoder.explained_variance_ratio_}
for name, ratios in explained.items():
    print(f"{name}: the first codes explain " + ", ".join(f"{total:.2f}" for total in ratios.cumsum()))

# %%
# The first codes alone
# ---------------------
# ``truncate`` keeps the first codes, without training. Their score on held-out digits is compared with that of PCA of
# the same size, which is another estimator without training.

short = truncate(autoencoder, KEPT)
short_pca = AutoEncoderTransformer(KEPT, max_epochs=0).fit(X_train)
for name, model in ((f"all {LARGEST}", autoencoder), (f"first {KEPT}", short), (f"first {KEPT} of PCA", short_pca)):
    print(f"held-out digits, {name}: {model.score(X_test):.3f} of the variance, codes of shape", end=" ")
    print(model.transform(X_test).shape)

# %%
# Directions of the codes
# -----------------------
# ``loadings`` is the mean change of the reconstruction per unit of each code. In PCA, this is ``components_``.

figure = plt.figure(figsize=(9, 5.6), layout="constrained")
curves, images = figure.subfigures(2, 1, height_ratios=(3, 2))
sizes = np.arange(1, LARGEST + 1)
for axis, title in zip(curves.subplots(1, 2), ("of each code", "of the first codes together"), strict=True):
    for name, ratios in explained.items():
        axis.plot(sizes, ratios if title == "of each code" else ratios.cumsum(), "o-", markersize=3, label=name)
    axis.set(xlabel="code" if title == "of each code" else "number of codes", title=f"Explained variance {title}")
    axis.axvline(KEPT, color="0.8", zorder=0)
    axis.legend()
rows = images.subplots(2, KEPT, squeeze=False)
for name, directions, row in zip(explained, (pca.components_[:KEPT], loadings(short)), rows, strict=True):
    for number, (direction, axis) in enumerate(zip(directions, row, strict=True), start=1):
        largest = np.abs(direction).max()
        axis.imshow(direction.reshape(8, 8), cmap="RdBu", vmin=-largest, vmax=largest)
        axis.set(xticks=[], yticks=[], title=f"code {number}" if name == "PCA" else "")
    row[0].set_ylabel(name)
figure.savefig(options.out, dpi=150)
