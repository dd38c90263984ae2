"""
Incremental learning from files
===============================

A dataset that does not fit into memory is stored in a folder of parquet files. ``pyarrow`` reads a thousand samples at
a time, and ``partial_fit`` is called with each chunk. The estimator is pickled after half of the chunks. Training that
continues from the pickle gives the same result to the last bit as training without an interruption.

The dataset is that of 53,940 diamonds from the package ``plotnine``, so that the example runs in less than a minute.

    pip install plotnine pyarrow && python examples/plot_stream.py
"""

import argparse
import pickle
import tempfile
from itertools import islice
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow
import pyarrow.dataset
from plotnine.data import diamonds
from sklearn.compose import make_column_transformer
from sklearn.decomposition import IncrementalPCA
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from tqdm import tqdm

from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="stream.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few rows, only to see it run")
options = parser.parse_args()

# %%
# Parquet files
# -------------
# The samples are shuffled before they are written, because chunks must have similar distributions. ``split=train`` and
# ``split=test`` become folders, so that a filter reads only one of them.

N_ROWS, CHUNK, N_PASSES, K = (4_000, 500, 1, 4) if options.quick else (len(diamonds), 1_000, 2, 4)
shuffled = diamonds.sample(N_ROWS, random_state=0).assign(split="train")
shuffled.iloc[: N_ROWS // 10, -1] = "test"
folder = tempfile.TemporaryDirectory()
pyarrow.dataset.write_dataset(
    pyarrow.Table.from_pandas(shuffled, preserve_index=False),
    folder.name,
    format="parquet",
    partitioning=["split"],
    partitioning_flavor="hive",
    max_rows_per_file=14_000,
    max_rows_per_group=14_000,
)
files = sorted(Path(folder.name).rglob("*.parquet"))
print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")

# %%
# Iterator of chunks
# ------------------
# The encoder of the features is fitted to the first chunk. It determines the categories and the standard deviations.

table = pyarrow.dataset.dataset(folder.name, format="parquet", partitioning="hive")
WORDS = ["cut", "color", "clarity"]
NUMBERS = [name for name in diamonds if name not in WORDS]


def frames(split):
    """Yield the samples of a split in the order of the files, as data frames."""
    chosen = pyarrow.dataset.field("split") == split
    for batch in table.to_batches(columns=[*NUMBERS, *WORDS], filter=chosen, batch_size=CHUNK):
        yield batch.to_pandas()


WORD_ENCODER = OneHotEncoder(sparse_output=False, handle_unknown="ignore")
encoder = make_column_transformer((StandardScaler(), NUMBERS), (WORD_ENCODER, WORDS)).fit(next(frames("train")))


def arrays(split):
    """Yield the encoded samples, with 27 features."""
    for frame in frames(split):
        yield encoder.transform(frame).astype(np.float32)


def chunks():
    """Yield the training samples several times."""
    for _ in range(N_PASSES):
        yield from arrays("train")


N_CHUNKS = N_PASSES * sum(1 for _ in frames("train"))
X_test = np.concatenate(list(arrays("test")))

# %%
# Training with partial_fit
# -------------------------
# The progress bar shows the explained variance ratio of the test samples. ``IncrementalPCA`` is fitted to the same
# chunks. The size of the estimator does not grow with the number of samples, except for about two hundred bytes per
# chunk.


def explained(pca):
    """Return the explained variance ratio of the test samples, as the ``score`` of the autoencoder."""
    error = X_test - pca.inverse_transform(pca.transform(X_test))
    return 1 - np.square(error).sum() / np.square(X_test - pca.mean_).sum()


autoencoder = AutoEncoderTransformer(K, random_state=0)
pca = IncrementalPCA(K)
seen, scores, pca_scores, sizes, pickled = [], [], [], [], None
with tqdm(chunks(), total=N_CHUNKS, unit="chunk") as bar:
    for number, chunk in enumerate(bar, start=1):
        autoencoder.partial_fit(chunk)
        pca.partial_fit(chunk)
        if number == N_CHUNKS // 2:
            pickled = pickle.dumps(autoencoder)
        if number % 3 == 1 or number == N_CHUNKS:
            seen.append(int(autoencoder.n_samples_seen_))
            scores.append(autoencoder.score(X_test))
            pca_scores.append(explained(pca))
            sizes.append(len(pickle.dumps(autoencoder)))
            bar.set_postfix(explained=f"{scores[-1]:.3f}")
print(f"{seen[-1]} rows: skae explains {scores[-1]:.3f} of the variance of the test rows, PCA {pca_scores[-1]:.3f}")
print(f"What the estimator keeps: {sizes[-1] / 1e6:.1f} MB; the rows seen: {seen[-1] * X_test[0].nbytes / 1e6:.1f} MB")

# %%
# Training from the pickle
# ------------------------
# The chunks that the estimator has already seen are skipped. The pickle contains everything else: the principal
# components, the stored samples, the state of the optimizer and the states of the random generators.

resumed = pickle.loads(pickled)
for chunk in tqdm(islice(chunks(), N_CHUNKS // 2, None), total=N_CHUNKS, initial=N_CHUNKS // 2, unit="chunk"):
    resumed.partial_fit(chunk)
same = np.array_equal(resumed.transform(X_test), autoencoder.transform(X_test))
print(f"Stopped and gone on, it gives the same codes to the last bit: {same}")
folder.cleanup()

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
axes[0].plot(seen, scores, marker=".", label="skae")
axes[0].plot(seen, pca_scores, marker=".", label="IncrementalPCA")
axes[0].axvline(seen[-1] / 2, color="gray", linestyle=":", label="pickled here")
axes[0].set(xlabel="rows seen", ylabel="variance of test rows explained")
axes[0].legend()
axes[1].plot(seen, np.divide(sizes, 1e6), marker=".", label="the estimator, pickled")
axes[1].plot(seen, np.multiply(seen, X_test[0].nbytes / 1e6), marker=".", label="the rows seen")
axes[1].set(xlabel="rows seen", ylabel="MB")
axes[1].legend()
figure.suptitle(f"{K} numbers of {X_test.shape[1]}, a thousand diamonds at a time")
figure.savefig(options.out, dpi=150)
