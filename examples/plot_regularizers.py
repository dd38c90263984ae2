"""
Denoising, sparse, contractive and variational autoencoders
===========================================================

This example compares regularizers on held-out digits. A denoising autoencoder reconstructs digits from noisy ones, a
sparse one has codes of which few are different from zero, a contractive one has codes that change little if the pixels
change, and the codes of a variational one have approximately a normal distribution, so that new digits can be sampled.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer, sample

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="regularizers.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

X_train, X_test = train_test_split(load_digits().data / 16, random_state=0)
random = np.random.RandomState(0)
noisy = X_test + 0.25 * random.standard_normal(X_test.shape)
nudged = X_test + 0.1 * X_train.std(axis=0) * random.standard_normal(X_test.shape)

# %%
# Training
# --------
# The same network is trained without and with each regularizer.

models = {
    name: AutoEncoderTransformer(
        8, regularizer=None if name == "plain" else name, max_epochs=4 if options.quick else 120, random_state=0
    ).fit(X_train)
    for name in ("plain", "denoising", "sparse", "contractive", "variational")
}

# %%
# Comparison
# ----------
# The measures are the explained variance ratio, the error of digits reconstructed from noisy ones, the fraction of
# codes near zero, and the change of the codes if the pixels change.


def near_zero(model):
    """Return the fraction of codes, divided by their root mean square, below a tenth of the largest of the sample."""
    codes = model.transform(X_test)
    sizes = np.abs(codes) / np.sqrt(np.mean(codes**2, axis=0))
    return np.mean(sizes < 0.1 * sizes.max(axis=1, keepdims=True))


def movement(model):
    """Return the change of the codes in standard deviations if pixels change by a tenth of theirs."""
    codes = model.transform(X_test)
    return np.sqrt(np.mean(((model.transform(nudged) - codes) / codes.std(axis=0)) ** 2))


for name, model in models.items():
    restored = np.mean((model.inverse_transform(model.transform(noisy)) - X_test) ** 2)
    print(
        f"{name}: variance explained {model.score(X_test):.3f}, error on noisy digits {restored:.4f}, "
        f"codes near zero {near_zero(model):.0%}, movement {movement(model):.3f}"
    )

# %%
# New digits
# ----------
# New digits are decoded from codes that are drawn from the standard normal distribution. The histograms compare the
# distributions of the codes of all autoencoders.

drawn = sample(models["variational"], 10, random_state=0)
denoised = models["denoising"].inverse_transform(models["denoising"].transform(noisy[:10]))
rows = {"held out": X_test[:10], "with noise": noisy[:10], "denoised": denoised, "new, variational": drawn}
figure = plt.figure(figsize=(10, 6.5), layout="constrained")
above, below = figure.subfigures(2, 1, height_ratios=[4, 3])
for (name, images), row in zip(rows.items(), above.subplots(4, 10), strict=True):
    for image, axis in zip(images, row, strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
for (name, model), axis in zip(models.items(), below.subplots(1, 5, sharey=True), strict=True):
    codes = model.transform(X_test)
    axis.hist((codes / np.sqrt(np.mean(codes**2, axis=0))).ravel(), bins=60, range=(-3, 3), density=True)
    axis.set(title=name, xlabel="code / its size")
figure.savefig(options.out, dpi=150)
