"""
Reconstruction error as a function of the number of components
==============================================================

More components reduce the reconstruction error. The error of the training samples always decreases. The error of
held-out samples decreases less, and so does the difference between the autoencoder and PCA.
"""

import argparse

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import ShuffleSplit

from skae import AutoEncoderTransformer, bottleneck_curve

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="bottleneck.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs and components, only to see it run")
options = parser.parse_args()

LARGEST, MAX_EPOCHS = (4, 5) if options.quick else (32, 150)
X = load_digits().data

# %%
# Training error and held-out error
# ---------------------------------
# The codes are ordered, so that one fit gives the errors of all sizes. The first split scores held-out samples, and the
# second one the training samples.

((train, test),) = ShuffleSplit(1, test_size=0.25, random_state=0).split(X)
autoencoder = AutoEncoderTransformer(LARGEST, max_epochs=MAX_EPOCHS, random_state=0)
curve = bottleneck_curve(autoencoder, X, cv=[(train, test), (train, train)])
errors = {"PCA": 1 - curve.pca_scores, "skae": 1 - curve.test_scores}
for k in sorted({1, 2, 4, LARGEST}):
    left = (f"{name} {values[k - 1, 0]:.3f} (training {values[k - 1, 1]:.3f})" for name, values in errors.items())
    print(f"{k} numbers: fraction of the variance that is left by " + ", ".join(left))

# %%
# Size of the codes
# -----------------
# A pixel takes one byte. A code with four components in single precision takes 16 bytes, a quarter of the 64 bytes of
# an image. The decoder is stored once for all images.

print(f"2 numbers in single precision save {1 - 4 * 2 / 64:.0%} of an image's bytes; the decoder is kept once.")

figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
for color, (name, values) in zip(("C0", "C1"), errors.items(), strict=True):
    for label, style, error in zip(("held out", "training"), ("-", ":"), values.T, strict=True):
        axis.plot(curve.n_components, error, color=color, linestyle=style, label=f"{name}, {label}")
axis.set(yscale="log", xlabel="n_components", ylabel="fraction of the variance that is left")
axis.set_title("The gap between dotted and solid is what was learnt by heart", fontsize=10)
axis.legend()
figure.savefig(options.out, dpi=150)
