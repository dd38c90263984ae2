"""
Outlier detection with an autoencoder
=====================================

An autoencoder that was trained on digits reconstructs other images as something like digits. What is far from all
reconstructions of digits is an outlier. In this example, outliers are patches of photographs. With ``--data``, a folder
that contains ``mnist.npz`` and ``fashion_mnist.npz`` with arrays ``X_train`` and ``X_test``, they are images of
clothes.

    python examples/plot_knows_only_its_data.py [--data DIR]
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import PCA
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from skae import AutoEncoderOutlierDetector, AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="knows_only_its_data.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
parser.add_argument("--data", help="folder of .npz files")
options = parser.parse_args()

# %%
# The data
# --------
# The inliers are digits, some of which are held out. The outliers are images of other objects.

if options.data:
    digits, clothes = (np.load(Path(options.data) / f"{name}.npz") for name in ("mnist", "fashion_mnist"))
    known, unseen, others = digits["X_train"][:10_000], digits["X_test"][:2000], clothes["X_test"][:2000]
    known, unseen, others = (part.astype(np.float32) / 255 for part in (known, unseen, others))
    k = 64
else:
    known, unseen = train_test_split(load_digits().data / 16, random_state=0)
    photograph = load_sample_images().images[0].mean(axis=2) / 255
    others = extract_patches_2d(photograph, (8, 8), max_patches=len(unseen), random_state=0).reshape(-1, 64)
    k = 16
side = int(np.sqrt(known.shape[1]))

# %%
# Comparison with PCA
# -------------------
# The scores of the detector are minus the mean squared distance from the nearest reconstructions of training samples,
# those of PCA minus the mean squared reconstruction error. The ROC AUC measures how well they separate held-out digits
# from outliers.

autoencoder = AutoEncoderTransformer(k, max_epochs=3 if options.quick else 40, random_state=0)
detector = AutoEncoderOutlierDetector(autoencoder, random_state=0).fit(known)
pca = PCA(k).fit(known)
is_digit = np.repeat([1, 0], [len(unseen), len(others)])
both = np.concatenate([unseen, others])
by_pca = -np.mean((both - pca.inverse_transform(pca.transform(both))) ** 2, axis=1)
print(f"ROC AUC, digits against others: skae {roc_auc_score(is_digit, detector.score_samples(both)):.4f}, ", end="")
print(f"PCA {roc_auc_score(is_digit, by_pca):.4f}")
print(f"Taken for outliers: {np.mean(detector.predict(unseen) == -1):.1%} of the unseen digits, ", end="")
print(f"{np.mean(detector.predict(others) == -1):.1%} of the others")

# %%
# Reconstructions
# ---------------
# The figure shows held-out digits, outliers, and their reconstructions by the autoencoder.

fitted = detector.estimator_
rows = {"digits": unseen[:8], "as kept": None, "others": others[:8], "as kept ": None}
rows["as kept"] = fitted.inverse_transform(fitted.transform(rows["digits"]))
rows["as kept "] = fitted.inverse_transform(fitted.transform(rows["others"]))
figure, axes = plt.subplots(4, 8, figsize=(9, 4.8), layout="constrained")
for (name, images), row in zip(rows.items(), axes, strict=True):
    for image, axis in zip(images, row, strict=True):
        axis.imshow(image.reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(name, rotation=0, ha="right", va="center")
figure.suptitle("A network that knows digits, and what it makes of other pictures")
figure.savefig(options.out, dpi=150)
