"""
Numerical and categorical features
==================================

The diamonds dataset has numerical features, such as the weight, and the categorical features cut, color and clarity. A
``ColumnTransformer`` encodes them as 26 columns. PCA or an autoencoder reduces these to a few components, from which a
regressor predicts the price. The dataset is part of the package ``plotnine``; 1,500 of its 53,940 samples are used.

    pip install plotnine && python examples/plot_mixed_table.py
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from plotnine.data import diamonds
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold, cross_validate
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="mixed_table.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

# %%
# The pipeline
# ------------
# PCA and the autoencoder also accept a sparse result of the ``OneHotEncoder``. It is dense here, because it is compared
# with the reconstruction.

some = diamonds.sample(1500, random_state=0)
X, price = some.drop(columns="price"), np.log(some["price"])
WORDS = ["cut", "color", "clarity"]
NUMBERS = [name for name in X if name not in WORDS]
columns = ColumnTransformer(
    [("numbers", StandardScaler(), NUMBERS), ("words", OneHotEncoder(sparse_output=False), WORDS)]
)


def reductions(k):
    """Return PCA and an autoencoder with k components."""
    epochs = 2 if options.quick else 30
    autoencoder = AutoEncoderTransformer(k, hidden_layer_sizes=64, max_epochs=epochs, random_state=0)
    return {"PCA": PCA(k), "skae": autoencoder}


def variance_explained(pipeline, rows):
    """Return the explained variance ratio of held-out samples, with all encoded features."""
    encoder, reduction = pipeline[0], pipeline[1]
    encoded = encoder.transform(rows)
    error = encoded - reduction.inverse_transform(reduction.transform(encoded))
    return 1 - np.square(error).sum() / np.square(encoded - reduction.mean_).sum()


# %%
# Explained variance and prediction of the price
# ----------------------------------------------
# If there are several components, the autoencoder explains more of the held-out variance than PCA. Whether this
# improves the prediction of the price depends on the data, so both are cross-validated.

SIZES = (2, 4, 8)
folds = KFold(3, shuffle=True, random_state=0)
kept, worth = {"PCA": [], "skae": []}, {"PCA": [], "skae": []}
print("Numbers kept, variance explained and R2 of the price, both on unseen rows:")
for k in SIZES:
    for name, reduction in reductions(k).items():
        pipeline = make_pipeline(columns, reduction, KNeighborsRegressor(10))
        result = cross_validate(pipeline, X, price, cv=folds, return_estimator=True, return_indices=True)
        unseen = zip(result["estimator"], result["indices"]["test"], strict=True)
        kept[name].append(np.mean([variance_explained(fitted, X.iloc[rows]) for fitted, rows in unseen]))
        worth[name].append(result["test_score"].mean())
        print(f"{k:3d} {name:>5} {kept[name][-1]:.3f} {worth[name][-1]:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for axis, values, label in zip(axes, (kept, worth), ("variance explained", "R² of the log of the price"), strict=True):
    for name, points in values.items():
        axis.plot(SIZES, points, marker="o", label=name)
    axis.set(xlabel="n_components", ylabel=label, xscale="log", xticks=SIZES, xticklabels=SIZES, ylim=(0, 1))
    axis.minorticks_off()
axes[0].legend()
figure.suptitle("A table of diamonds, unseen rows")
figure.savefig(options.out, dpi=150)
