"""
Without a bottleneck it copies, with few rows it memorises
==========================================================

An autoencoder is worth something because it *cannot* keep everything. Give it as many numbers as there are pixels
and it copies, anything at all; give it few rows and no restraint and it learns those by heart.
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
scrambled = np.random.default_rng(0).permuted(X_test, axis=1)  # the pixels of digits, but no digits
EPOCHS = 10 if options.quick else 200
plain = {"linear_skip": False, "early_stopping": False, "max_epochs": EPOCHS}


def error(model, X):
    """Mean squared error of a pixel, in parts of the pixels' variance."""
    return np.mean((X - model.inverse_transform(model.transform(X))) ** 2) / X.var()


# %%
# Wide or narrow
# --------------
# Sixty-four numbers for sixty-four pixels, or eight. The wide one reconstructs pictures that are no digits as well as
# those that are: it knows nothing about digits.

wide = AutoEncoderTransformer(64, random_state=0).fit(X_train)
narrow = AutoEncoderTransformer(8, random_state=0, max_epochs=EPOCHS).fit(X_train)
for name, model in {"64 numbers": wide, "8 numbers": narrow}.items():
    print(f"{name}: error {error(model, X_test):.3f} on digits, {error(model, scrambled):.3f} on scrambled ones")

# %%
# Few rows
# --------
# A plain network on forty digits: perfect on those, poor on others. With PCA as the floor, held-out rows and the best
# epoch kept, the same network stays useful.

few = X_train[:40]
by_heart = AutoEncoderTransformer(8, random_state=0, batch_size=8, **plain).fit(few)
careful = AutoEncoderTransformer(8, random_state=0, max_epochs=EPOCHS).fit(few)
for name, model in {"plain": by_heart, "with defaults": careful}.items():
    print(f"Forty digits, {name}: error {error(model, few):.3f} on them, {error(model, X_test):.3f} on others")

# %%
# Asked for the impossible
# ------------------------
# More numbers than pixels are refused, unless a regularizer stops the copying.

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
