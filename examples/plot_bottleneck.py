"""
Reconstruction error as a function of the number of components
==============================================================

More components reduce the reconstruction error. The error of the training samples always decreases. The error of
held-out samples decreases less, and so does the difference between the autoencoder and PCA.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="bottleneck.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs and bottlenecks, only to see it run")
options = parser.parse_args()

SIZES = [2, 8] if options.quick else [1, 2, 4, 8, 16, 32]
MAX_EPOCHS = 5 if options.quick else 150
X_train, X_test = train_test_split(load_digits().data, random_state=0)


def error(model, X):
    """Return the mean squared error per pixel, whose values are from 0 to 16."""
    return np.mean((X - model.inverse_transform(model.transform(X))) ** 2)


# %%
# Training error and held-out error
# ---------------------------------
# PCA and the autoencoder are fitted for several numbers of components.

errors = {name: [] for name in ("PCA, training", "PCA, held out", "skae, training", "skae, held out")}
for k in SIZES:
    models = {"PCA": PCA(k).fit(X_train), "skae": AutoEncoderTransformer(k, max_epochs=MAX_EPOCHS, random_state=0)}
    models["skae"].fit(X_train)
    for name, model in models.items():
        errors[f"{name}, training"].append(error(model, X_train))
        errors[f"{name}, held out"].append(error(model, X_test))
    print(f"{k} numbers: " + "; ".join(f"{name} {values[-1]:.2f}" for name, values in errors.items()))

# %%
# Size of the codes
# -----------------
# A pixel takes one byte. A code with four components in single precision takes 16 bytes, a quarter of the 64 bytes of
# an image. The decoder is stored once for all images.

saved = 1 - 4 * SIZES[1] / 64
print(f"{SIZES[1]} numbers in single precision save {saved:.0%} of an image's bytes; the decoder is kept once.")

figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
for name, values in errors.items():
    method, rows = name.split(", ")
    style = {"color": "C0" if method == "PCA" else "C1", "linestyle": "-" if rows == "held out" else ":"}
    axis.plot(SIZES, values, marker="o", label=name, **style)
axis.set(xscale="log", yscale="log", xlabel="n_components", ylabel="mean squared error of a pixel")
axis.set_xticks(SIZES, [str(k) for k in SIZES])
axis.minorticks_off()
axis.set_title("The gap between dotted and solid is what was learnt by heart", fontsize=10)
axis.legend()
figure.savefig(options.out, dpi=150)
