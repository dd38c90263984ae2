"""
Deployment of a pipeline with ONNX
==================================

A pipeline that scales digits, reduces them to eight components and classifies them is converted to an ONNX file. A
separate process then predicts with onnxruntime and numpy only, without scikit-learn, torch and skae. The labels are
compared with those of the pipeline, and the time per call is measured.

    pip install "skae[onnx]" onnxruntime && python examples/plot_onnx.py
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae.onnx
from skae import AutoEncoderTransformer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", default="onnx.png", help="where the picture goes")
parser.add_argument("--quick", action="store_true", help="few epochs and calls, only to see it run")
options = parser.parse_args()

# %%
# The pipeline
# ------------
# Samples are float32, which is common in applications. Labels are predicted for 10,000 samples, which are drawn from
# the test digits. Noise is added to all but the first thousand, so that some differ from all training samples.

digits = load_digits()
X_train, X_test, y_train, _ = train_test_split(digits.data.astype(np.float32), digits.target, random_state=0)
pipeline = make_pipeline(
    StandardScaler(),
    AutoEncoderTransformer(8, max_epochs=3 if options.quick else 100, random_state=0),
    LogisticRegression(max_iter=1000),
).fit(X_train, y_train)
random = np.random.default_rng(0)
rows = X_test[random.integers(len(X_test), size=10_000)]
rows[1000:] += random.normal(scale=2.0, size=rows[1000:].shape)

# %%
# Conversion to ONNX
# ------------------
# :func:`skae.onnx.register` registers the converter of the autoencoder with skl2onnx. Without the option
# ``zipmap=False``, probabilities would be returned as a list of dictionaries.

skae.onnx.register()
model = to_onnx(pipeline, X_train[:1], options={"zipmap": False})

# %%
# Prediction in a separate process
# --------------------------------
# The process loads the file with onnxruntime. It uses a single thread, as does the pipeline for so few samples.

SERVER = """
import json, sys
from time import perf_counter
import numpy as np
import onnxruntime

model, rows, labels, n_calls = sys.argv[1:]
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
X = np.load(rows)
np.save(labels, session.run(["label"], {"X": X})[0])
medians = {}
for n_samples in (1, 1000):
    seconds = []
    for _ in range(int(n_calls)):
        start = perf_counter()
        session.run(["label"], {"X": X[:n_samples]})
        seconds.append(perf_counter() - start)
    medians[n_samples] = float(np.median(seconds))
loaded = {name.split(".")[0] for name in sys.modules}
print(json.dumps({"medians": medians, "loaded": sorted(loaded & {"skae", "torch", "sklearn", "skorch", "scipy"})}))
"""
N_CALLS = 5 if options.quick else 200

with tempfile.TemporaryDirectory() as folder:
    paths = [Path(folder, name) for name in ("pipeline.onnx", "rows.npy", "labels.npy")]
    paths[0].write_bytes(model.SerializeToString())
    np.save(paths[1], rows)
    command = [sys.executable, "-c", SERVER, *map(str, paths), str(N_CALLS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    served_labels = np.load(paths[2])
    n_bytes = paths[0].stat().st_size
served = json.loads(done.stdout)
if served["loaded"]:
    raise SystemExit(f"The server loaded {served['loaded']}.")
live_labels = pipeline.predict(rows)
n_different = np.count_nonzero(served_labels != live_labels)
print(f"Size of the file: {n_bytes / 1e6:.2f} MB. Of skae, torch and scikit-learn the server loaded nothing.")
print(f"Labels that differ among {len(rows)} rows: {n_different}")

# %%
# Time per call
# -------------
# The median time of many calls is compared with that of the pipeline. For a single sample, the pipeline spends most of
# its time on the validation of the input in each step.


def median_seconds(n_samples):
    """Return the median time in seconds that the pipeline takes for this number of samples."""
    seconds = []
    for _ in range(N_CALLS):
        start = perf_counter()
        pipeline.predict(rows[:n_samples])
        seconds.append(perf_counter() - start)
    return float(np.median(seconds))


live = {n_samples: 1e3 * median_seconds(n_samples) for n_samples in (1, 1000)}
onnx = {int(n_samples): 1e3 * seconds for n_samples, seconds in served["medians"].items()}
for n_samples in (1, 1000):
    print(f"Milliseconds for {n_samples} row(s): live {live[n_samples]:.3f}, onnxruntime {onnx[n_samples]:.3f}")

figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for axis, n_samples in zip(axes, (1, 1000), strict=True):
    bars = axis.barh(["onnxruntime", "live"], [onnx[n_samples], live[n_samples]], color=["tab:orange", "tab:blue"])
    axis.bar_label(bars, fmt="%.2f ms", padding=3)
    axis.set(title=f"{n_samples} row{'s' if n_samples > 1 else ''}", xlabel="milliseconds a call, median")
    axis.margins(x=0.25)
    axis.spines[["top", "right"]].set_visible(False)
figure.suptitle("A pipeline with an autoencoder: live, and served by onnxruntime alone")
figure.savefig(options.out, dpi=150)
print(f"\nPicture: {options.out}")
