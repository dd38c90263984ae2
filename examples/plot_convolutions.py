"""
Convolutional autoencoder for images
====================================

A dense network learns a pattern separately for each position in the image. A convolutional network applies the same
filters at all positions. This example compares them on digits that are placed at random positions on a larger canvas.
As usual in scikit-learn, each sample is a row of a two-dimensional array; ``input_shape`` is the shape of the image.
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="convolutions.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

SIDE, K = 16, 16
MAX_EPOCHS = 2 if options.quick else 60


def placed(images, seed):
    """Place each image of 8 x 8 pixels at a random position on a canvas."""
    random = np.random.RandomState(seed)
    canvas = np.zeros((len(images), SIDE, SIDE), dtype=np.float32)
    for target, image, (row, column) in zip(canvas, images, random.randint(0, SIDE - 7, (len(images), 2)), strict=True):
        target[row : row + 8, column : column + 8] = image.reshape(8, 8)
    return canvas.reshape(len(images), -1)


# %%
# The data
# --------
# Each training digit is used at two positions.

train, test = train_test_split(load_digits().data / 16, random_state=0)
X_train = np.concatenate([placed(train, seed) for seed in range(1 if options.quick else 2)])
X_test = placed(test, 99)

# %%
# Comparison of dense and convolutional networks
# ----------------------------------------------
# Both have the same number of components as PCA, and are compared on held-out digits.

parameters = {"max_epochs": MAX_EPOCHS, "loss": "binary_cross_entropy", "random_state": 0}
models = {
    "PCA": PCA(K).fit(X_train),
    "dense": AutoEncoderTransformer(K, **parameters).fit(X_train),
    "convolutional": AutoEncoderTransformer(
        K, architecture="conv", input_shape=(1, SIDE, SIDE), **parameters
    ).fit(X_train),
}  # fmt: skip
pictures = {"held out": X_test[:8]}
for name, model in models.items():
    X_hat = model.inverse_transform(model.transform(X_test))
    explained = 1 - np.sum((X_test - X_hat) ** 2) / np.sum((X_test - X_train.mean(axis=0)) ** 2)
    pictures[f"{name}\n{explained:.1%}"] = X_hat[:8]
    print(f"{name}: {explained:.3f} of the held-out variance explained by {K} numbers")

figure, axes = plt.subplots(len(pictures), 8, figsize=(9, 4.8), layout="constrained")
for (name, images), row in zip(pictures.items(), axes, strict=True):
    for image, axis in zip(images, row, strict=True):
        axis.imshow(image.reshape(SIDE, SIDE), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.savefig(options.out, dpi=150)
