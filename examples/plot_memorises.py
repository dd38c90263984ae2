"""
Overfitting with many components or few samples
===============================================

An autoencoder learns the structure of the data only if it cannot copy its input. With as many components as features
it reconstructs any sample, also those that are unlike the training samples. With few training samples and no
regularization it overfits.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="memorises.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

X_train, X_test = train_test_split(load_digits().data / 16, random_state=0)
scrambled = np.random.default_rng(0).permuted(X_test, axis=1)  # images with the pixels of digits in random order
EPOCHS = 10 if options.quick else 200
plain = {"linear_skip": False, "early_stopping": False, "max_epochs": EPOCHS}


def error(model, X):
    """Return the mean squared error per pixel, divided by the variance of the pixels."""
    return np.mean((X - model.inverse_transform(model.transform(X))) ** 2) / X.var()


# %%
# Number of components
# --------------------
# With 64 components for 64 pixels, scrambled digits are reconstructed as well as digits. With 8 components, they are
# not.

wide = AutoEncoderTransformer(64, random_state=0).fit(X_train)
narrow = AutoEncoderTransformer(8, random_state=0, max_epochs=EPOCHS).fit(X_train)
for name, model in {"64 numbers": wide, "8 numbers": narrow}.items():
    print(f"{name}: error {error(model, X_test):.3f} on digits, {error(model, scrambled):.3f} on scrambled ones")

# %%
# Number of samples
# -----------------
# A plain network that is trained on forty digits reconstructs these well, but other digits badly. With the default
# parameters, the network is initialized by PCA and the epoch with the lowest held-out error is selected. This avoids
# the overfitting.

few = X_train[:40]
by_heart = AutoEncoderTransformer(8, random_state=0, batch_size=8, **plain).fit(few)
careful = AutoEncoderTransformer(8, random_state=0, max_epochs=EPOCHS).fit(few)
for name, model in {"plain": by_heart, "with defaults": careful}.items():
    print(f"Forty digits, {name}: error {error(model, few):.3f} on them, {error(model, X_test):.3f} on others")

# %%
# More components than features
# -----------------------------
# This is an error, unless a regularizer prevents that the input is copied.

try:
    AutoEncoderTransformer(100).fit(X_train)
except ValueError as refusal:
    print(refusal)

rows = {
    "original": scrambled[:8],
    "64 numbers": wide.inverse_transform(wide.transform(scrambled[:8])),
    "8 numbers": narrow.inverse_transform(narrow.transform(scrambled[:8])),
}
figure, axes = plt.subplots(3, 8, figsize=(9, 3.6), layout="constrained")
for (name, images), row in zip(rows.items(), axes, strict=True):
    for image, axis in zip(images, row, strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.suptitle("Scrambled digits: without a bottleneck anything is copied")
figure.savefig(options.out, dpi=150)
