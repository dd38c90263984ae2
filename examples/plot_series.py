"""
Anomalies in a series
=====================

The arterial blood pressure of a patient is a series of beats. A convolutional autoencoder learns windows of 64 values
of the first beats, which are normal. Windows that it reconstructs badly are anomalies. The series is number 135 of the
UCR anomaly archive, "InternalBleeding16", and is part of the package ``aeon``: 1,200 values to train on, and 7,501 in
which a few were changed, at 4187 to 4198.

    pip install aeon && python examples/plot_series.py
"""

import argparse

import matplotlib.pyplot as plt
import numpy as np
from aeon.datasets import load_kdd_tsad_135
from sklearn.decomposition import PCA

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="series.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs, only to see it run")
options = parser.parse_args()

# %%
# Windows
# -------
# A sample is a window of consecutive values. Convolutions need its shape: one channel and the length. A series of
# several channels has windows of shape (channels, length), which are flattened.

LENGTH = 64
train, _ = load_kdd_tsad_135(split="train")
series, labels = load_kdd_tsad_135(split="test")
changed = np.flatnonzero(labels)
windows, test_windows = (np.lib.stride_tricks.sliding_window_view(one, LENGTH) for one in (train, series))

autoencoder = AutoEncoderTransformer(
    4,
    architecture="conv",
    input_shape=(1, LENGTH),
    hidden_layer_sizes=(16, 32, 64),
    max_epochs=2 if options.quick else "auto",
    random_state=0,
).fit(windows)
pca = PCA(4).fit(windows)

# %%
# A score over time
# -----------------
# ``score_samples`` is minus the mean squared error of a window. The score of a time is the mean over the windows that
# contain it.


def over_time(scores):
    """Return the mean score of the windows that contain each value of the series."""
    ones = np.ones(LENGTH)
    return np.convolve(scores, ones) / np.convolve(np.ones_like(scores), ones)


errors = {
    "PCA": over_time(np.square(test_windows - pca.inverse_transform(pca.transform(test_windows))).mean(axis=1)),
    "skae": over_time(-autoencoder.score_samples(test_windows)),
}
far = np.ones(len(series), dtype=bool)
far[changed[0] - LENGTH : changed[-1] + LENGTH] = False
for name, error in errors.items():
    print(
        f"{name:>5}: largest error at {error.argmax()}; the error of the changed values is "
        f"{error[changed].max() / error[far].max():.1f} times the largest of all others"
    )

figure, axes = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
near = slice(changed[0] - 700, changed[-1] + 700)
times = np.arange(len(series))[near]
axes[0].plot(times, series[near], color="black", linewidth=1)
axes[0].set(ylabel="blood pressure", title="The changed values are shaded")
for name, error in errors.items():
    axes[1].plot(times, error[near] / error[far].max(), label=name)
axes[1].set(xlabel="time", ylabel="error, 1 is the\nlargest elsewhere", yscale="log")
axes[1].legend()
for axis in axes:
    axis.axvspan(changed[0], changed[-1], color="tab:red", alpha=0.3)
figure.savefig(options.out, dpi=150)
