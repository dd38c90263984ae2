"""
Displays of autoencoders
========================

This example shows the seven displays of skae: losses, reconstructions, codes, loadings, contributions to codes, errors
of outliers, and scores as a function of the number of components. They follow the conventions of scikit-learn: they are
created by ``from_estimator``, draw on the axes passed as ``ax``, and store their data as attributes.
"""

import argparse
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import (
    AttributionDisplay,
    AutoEncoderOutlierDetector,
    AutoEncoderTransformer,
    BottleneckDisplay,
    LatentDisplay,
    LatentLoadingsDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
    ReconstructionErrorDisplay,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="pictures.png", help="where the map of the codes goes, the others beside it")
parser.add_argument("--quick", action="store_true", help="few epochs and components, only to see it run")
options = parser.parse_args()

LARGEST = 4 if options.quick else 16
MAX_EPOCHS = 3 if options.quick else 100
digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(digits.data, digits.target, random_state=0)
small, large = (AutoEncoderTransformer(k, max_epochs=MAX_EPOCHS, random_state=0).fit(X_train) for k in (2, 8))


def save(display, name=""):
    """Save the figure of a display, with a suffix of the file name."""
    path = Path(options.out)
    display.figure_.savefig(path.with_stem(path.stem + name), dpi=150)


# %%
# Losses
# ------
# Losses are divided by the loss of a reconstruction by the mean. The training loss is above the held-out loss because
# noise is added to the training samples. The dashed line is the loss of PCA, with which the network is initialized.

save(LossCurveDisplay.from_estimator(large), "_loss")

# %%
# Reconstructions
# ---------------
# Held-out digits are reconstructed from eight codes.

save(ReconstructionDisplay.from_estimator(large, X_test, image_shape=(8, 8), cmap="gray_r"), "_reconstructions")

# %%
# Codes
# -----
# The left plot shows two codes of each held-out digit. The right plot shows images decoded from a grid of codes, where
# there are samples.

save(LatentDisplay.from_estimator(small, X_test, y_test, image_shape=(8, 8), n_images=14, cmap="gray_r"))

# %%
# Loadings
# --------
# The upper row shows the effect of each pixel on a code, the lower row the effect of a code on each pixel, averaged
# over samples. Red is an increase and blue a decrease. For PCA, both are the same up to the standard deviations of the
# pixels. For other autoencoders, they may differ.

save(LatentLoadingsDisplay.from_estimator(large, X_train, image_shape=(8, 8)), "_loadings")

# %%
# Contributions to codes
# ----------------------
# Each row is a held-out digit, each column a code. Red pixels raised the code of this digit, blue pixels lowered it.

save(AttributionDisplay.from_estimator(large, X_test, image_shape=(8, 8)), "_contributions")

# %%
# Errors of outliers
# ------------------
# A detector trained on zeros looks at other digits. Of those that it finds most unusual, the errors show which pixels
# differ from what it expects.

zeros = AutoEncoderTransformer(8, max_epochs=MAX_EPOCHS, random_state=0)
detector = AutoEncoderOutlierDetector(zeros, random_state=0).fit(X_train[y_train == 0])
save(ReconstructionErrorDisplay.from_estimator(detector, X_test, image_shape=(8, 8)), "_errors")

# %%
# Number of components
# --------------------
# One autoencoder and PCA are fitted for each fold of a cross-validation. Held-out samples are scored by the first code
# alone, the first two, and so on.

tried = AutoEncoderTransformer(LARGEST, max_epochs=MAX_EPOCHS // 3, random_state=0)
display = BottleneckDisplay.from_estimator(tried, X_train, cv=2)
save(display, "_bottlenecks")
for size in range(0, LARGEST, 3):
    own, pca = display.test_scores[size].mean(), display.pca_scores[size].mean()
    print(f"{size + 1} numbers: skae {own:.3f}, PCA {pca:.3f} of the held-out variance explained")
