"""
Encoder and decoder of different sizes
======================================

By default, the decoder mirrors the encoder. With ``decoder_layer_sizes``, it has hidden layers of its own: a small
encoder is useful if samples are encoded on a device with little memory, and a small decoder if they are rarely
decoded. This example compares the held-out explained variance of small and large encoders and decoders.
"""

import argparse

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="asymmetric.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

X_train, X_test = train_test_split(load_digits().data, random_state=0)

# %%
# Four pairs of sizes
# -------------------
# For each pair, the number of weights and the explained variance ratio of the held-out samples are printed. PCA with
# the same number of components is the reference.

SHAPES = {
    "both small": (16, 16),
    "small encoder": (16, (128, 256)),
    "small decoder": ((256, 128), 16),
    "both large": ((256, 128), (128, 256)),
}
scores = {}
for name, (encoder, decoder) in SHAPES.items():
    model = AutoEncoderTransformer(
        4,
        hidden_layer_sizes=encoder,
        decoder_layer_sizes=decoder,
        max_epochs=4 if options.quick else 120,
        random_state=0,
    ).fit(X_train)
    core = model.net_.module_.network
    sizes = [sum(weight.numel() for weight in stack.parameters()) for stack in (core.encoder, core.decoder)]
    scores[name] = model.score(X_test)
    print(f"{name}: {sizes[0]:,} weights encode, {sizes[1]:,} decode, variance explained {scores[name]:.3f}")

pca = AutoEncoderTransformer(4, activation="identity").fit(X_train).score(X_test)
print(f"PCA: variance explained {pca:.3f}")

figure, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
axis.barh(list(scores), list(scores.values()))
axis.axvline(pca, color="C1", label="PCA")
axis.set(xlabel="held-out variance explained", xlim=(0, 1))
axis.legend()
figure.savefig(options.out, dpi=150)
