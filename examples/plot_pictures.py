"""
Five pictures of an autoencoder
===============================

How training went, what comes back of a row, where rows lie in the bottleneck, what each code means, and how many codes
are worth it: each is one line. The five classes follow scikit-learn's conventions: made by ``from_estimator``, drawn
into axes of your own by ``ax``, with the data kept as attributes.
"""

import argparse
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import (
    AutoEncoderTransformer,
    BottleneckDisplay,
    LatentDisplay,
    LatentLoadingsDisplay,
    LossCurveDisplay,
    ReconstructionDisplay,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="pictures.png", help="where the map of the codes goes, the others beside it")
parser.add_argument("--quick", action="store_true", help="few epochs and bottlenecks, only to see it run")
options = parser.parse_args()

SIZES = (2, 8) if options.quick else (1, 2, 4, 8, 16)
MAX_EPOCHS = 3 if options.quick else 100
digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(digits.data, digits.target, random_state=0)
small, large = (AutoEncoderTransformer(k, max_epochs=MAX_EPOCHS, random_state=0).fit(X_train) for k in (2, 8))


def save(display, name=""):
    """Put a picture where it was asked for, or beside that."""
    path = Path(options.out)
    display.figure_.savefig(path.with_stem(path.stem + name), dpi=150)


# %%
# How training went
# -----------------
# Everything is a share of what the mean of the rows loses. Training rows are disturbed while they are learnt from, so
# they lose more than those held out. The dashed line is PCA, where it starts.

save(LossCurveDisplay.from_estimator(large), "_loss")

# %%
# What comes back
# ---------------
# Digits that were not trained on, as eight numbers each.

save(ReconstructionDisplay.from_estimator(large, X_test, image_shape=(8, 8), cmap="gray_r"), "_reconstructions")

# %%
# Where the digits lie
# --------------------
# Two numbers a digit, and what the decoder makes of the places where there are digits.

save(LatentDisplay.from_estimator(small, X_test, y_test, image_shape=(8, 8), n_images=14, cmap="gray_r"))

# %%
# What the codes mean
# -------------------
# Above, what a pixel does to each of the eight codes; below, what a code does to the pixels: red for more, blue for
# less, on average over digits. That the two resemble each other is no matter of course: of PCA they are the same up to
# the spread of the pixels.

save(LatentLoadingsDisplay.from_estimator(large, X_train, image_shape=(8, 8)), "_loadings")

# %%
# How many codes are worth it
# ---------------------------
# Each bottleneck is cross-validated, and PCA with it. A search that has been made already has its scores:
# ``BottleneckDisplay.from_cv_results(search, X)`` draws them.

tried = AutoEncoderTransformer(max_epochs=MAX_EPOCHS // 3, random_state=0)
display = BottleneckDisplay.from_estimator(tried, X_train, n_components=SIZES, cv=2)
save(display, "_bottlenecks")
for size, own, pca in zip(SIZES, display.scores.mean(axis=1), display.pca_scores.mean(axis=1), strict=True):
    print(f"{size} numbers: skae {own:.3f}, PCA {pca:.3f} of the held-out variance explained")
