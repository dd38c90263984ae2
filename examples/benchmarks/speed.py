"""
Speed against PCA, bare torch and other autoencoders
====================================================

Everything is measured side by side in one process, alternating, and reported as medians and ratios of medians, because
seconds depend on the machine and on what else it does. Sections: ``epoch``, an epoch against a bare torch loop and
against its matrix products; ``quality``, seconds until the held-out score of other autoencoders is reached; ``whole``,
whole fits with defaults; ``transform``; ``memory``, in processes of their own; ``search``, a grid search on one and on
two processes; ``start``, what ``import skae`` adds.

    pip install -c constraints.txt -e ".[bench]"
    python examples/benchmarks/speed.py [--data DIR] [--only SECTION ...] [--repeats N]

Without ``--data`` the sections that want MNIST and other large sets are left out.
"""

import argparse
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from peers import PEERS
from sklearn.datasets import load_digits, make_low_rank_matrix
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.callbacks import Callback
from torch import nn

from skae import AutoEncoderTransformer

IMAGES = {"mnist": 255.0, "usps": 1.0, "optdigits": 16.0}
QUALITY_SETS = ("optdigits", "letter", "isolet1560", "gas_drift", "usps", "mnist")
HIDDEN = (256, 128)


def held_out(name, folder):
    """Training and test rows in single precision: images divided by their range, tables standardised."""
    arrays = np.load(Path(folder) / f"{name}.npz")
    train, test = arrays["X_train"].astype(np.float32), arrays["X_test"].astype(np.float32)
    if name in IMAGES:
        return train / np.float32(IMAGES[name]), test / np.float32(IMAGES[name])
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


def medians(repeats, **functions):
    """Call the functions in turn, again and again, and return each one's median seconds."""
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def line(section, what, ours, theirs, limit):
    """Print one comparison."""
    ratio = ours / theirs
    print(f"| {section} | {what} | {ours:.3g} | {theirs:.3g} | {ratio:.2f} | {limit} |", flush=True)


def stack(sizes):
    """Dense layers with GELU between them."""
    layers = []
    for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(n_in, n_out), nn.GELU()]
    return nn.Sequential(*layers[:-1])


class BareNetwork(nn.Module):
    """The network that skae trains, written down by hand: a linear path beside two stacks."""

    def __init__(self, n_features, k):
        super().__init__()
        self.encoder = stack((n_features, *HIDDEN, k))
        self.decoder = stack((k, *HIDDEN[::-1], n_features))
        self.encoding = nn.Linear(n_features, k, bias=False)
        self.decoding = nn.Linear(k, n_features, bias=False)

    def forward(self, x):
        """Reconstruct x."""
        z = self.encoding(x) + self.encoder(x)
        return self.decoding(z) + self.decoder(z)


def bare_loop(X, k, batch_size, epochs):
    """Train it on tensors in memory, with nothing beside the steps."""
    rows, network = torch.from_numpy(X), BareNetwork(X.shape[1], k)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, fused=True)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(batch_size):
            x = rows[batch]
            optimizer.zero_grad()
            nn.functional.mse_loss(network(x), x).backward()
            optimizer.step()


def products_alone(n_features, k, batch_size, n_samples):
    """The matrix products of one epoch: each weight once forward and twice backward, but for the input's gradient."""
    sizes = (n_features, *HIDDEN, k, *HIDDEN[::-1], n_features)
    shapes = [*zip(sizes[:-1], sizes[1:], strict=True), (n_features, k), (k, n_features)]
    tensors = [[torch.randn(shape) for shape in ((batch_size, a), (a, b), (batch_size, b))] for a, b in shapes]
    for _ in range(n_samples // batch_size):
        for x, weight, output in tensors:
            torch.mm(x, weight)
            torch.mm(x.T, output)
            if weight.shape[0] != n_features:
                torch.mm(output, weight.T)


def few_epochs(X, k, batch_size, epochs):
    """Train skae for as long, with all that it does beside the steps."""
    parameters = {"early_stopping": False, "random_state": 0}
    model = AutoEncoderTransformer(k, hidden_layer_sizes=HIDDEN, batch_size=batch_size, max_epochs=epochs, **parameters)
    return model.fit(X)


def section_epoch(options):
    """An epoch of skae against one of the bare loop."""
    table = make_low_rank_matrix(20_000, 50, effective_rank=10, random_state=0).astype(np.float32)
    cases = [
        ("20,000 x 50, batch 256", table, 8, 256, 20, 1.15),
        ("digits, batch 64", load_digits().data.astype(np.float32), 8, 64, 20, 1.30),
    ]
    if options.data:
        cases.append(("MNIST, batch 512", held_out("mnist", options.data)[0], 16, 512, 10, 1.10))
    for what, X, k, batch_size, epochs, limit in cases:
        seconds = medians(
            options.repeats,
            ours=lambda X=X, rest=(k, batch_size, epochs): few_epochs(X, *rest),
            bare=lambda X=X, rest=(k, batch_size, epochs): bare_loop(X, *rest),
            products=lambda X=X, rest=(k, batch_size): products_alone(X.shape[1], *rest, len(X)),
        )
        line("epoch", f"{what}: fit against bare loop", seconds["ours"], seconds["bare"], limit)
        per_epoch, limit = seconds["ours"] / epochs, 1.3 if what.startswith("MNIST") else "none"
        line("epoch", f"{what}: epoch against its matrix products", per_epoch, seconds["products"], limit)


class HeldOutCurve(Callback):
    """Notes the held-out score after each epoch, and the seconds spent without this look."""

    def __init__(self, test, mean, scale):
        self.rows = torch.from_numpy(((test - mean) / scale).astype(np.float32))
        self.started, self.curve, self.looking = time.perf_counter(), [], 0.0

    def on_epoch_end(self, net, **kwargs):
        """Score the averaged weights."""
        looked = time.perf_counter()
        with torch.no_grad(), net.evaluation() as core:
            errors = sum(float((core(part) - part).square().sum()) for part in self.rows.split(2000))
        self.curve.append((looked - self.started - self.looking, 1 - errors / float(self.rows.square().sum())))
        self.looking += time.perf_counter() - looked


def share_explained(X, X_hat, mean):
    """Held-out score of any method."""
    return 1 - np.sum((X - X_hat) ** 2, dtype=np.float64) / np.sum((X - mean) ** 2, dtype=np.float64)


def section_quality(options):
    """Seconds until each peer's final held-out score is reached."""
    for name in QUALITY_SETS if options.data else ():
        train, test = held_out(name, options.data)
        mean = train.mean(axis=0, dtype=np.float64)
        scale = np.sqrt(train.var(axis=0, dtype=np.float64).mean())
        curve = HeldOutCurve(test, mean, scale)
        AutoEncoderTransformer(8, random_state=0, callbacks=[curve]).fit(train)
        whole = time.perf_counter() - curve.started - curve.looking
        for peer, reconstruct in PEERS.items():
            started = time.perf_counter()
            try:
                predict = reconstruct(train, 8)
            except ImportError as error:
                print(f"{peer} is left out: {error}")
                continue
            seconds = time.perf_counter() - started
            score = share_explained(test, predict(test), mean)
            reached = next((at for at, value in curve.curve if value >= score), whole)
            line("quality", f"{name}: {peer} at {score:.4f}", reached, seconds, "below 1, median 0.33")


def section_whole(options):
    """Whole fits with defaults."""
    train, test = train_test_split(load_digits().data, random_state=0)
    models = {}

    def perceptron():
        models["mlp"] = MLPRegressor(hidden_layer_sizes=(256, 128, 8, 128, 256), random_state=0).fit(train, train)

    def skae():
        models["skae"] = AutoEncoderTransformer(8, random_state=0).fit(train)

    seconds = medians(options.repeats, ours=skae, theirs=perceptron)
    scores = models["skae"].score(test), share_explained(test, models["mlp"].predict(test), train.mean(axis=0))
    what = "digits, k=8, against MLPRegressor, held out {:.4f} and {:.4f}".format(*scores)
    line("whole", what, seconds["ours"], seconds["theirs"], 3)
    if options.data:
        train, test = held_out("mnist", options.data)
        seconds = medians(
            1, ours=lambda: models.update(mnist=AutoEncoderTransformer(16, random_state=0).fit(train)),
            theirs=lambda: PCA(16, random_state=0).fit(train),
        )  # fmt: skip
        print(f"MNIST, k=16: {seconds['ours']:.0f} s (wanted below 180), held out {models['mnist'].score(test):.4f}")
        line("whole", "MNIST, k=16, against PCA", seconds["ours"], seconds["theirs"], "none")


def section_transform(options):
    """One row against PCA, many rows against the bare forward pass."""
    X = load_digits().data.astype(np.float32)
    ours, pca = AutoEncoderTransformer(8, max_epochs=2, random_state=0).fit(X), PCA(8).fit(X)
    row, codes = X[:1], pca.transform(X[:1])

    def often(function, argument):
        return lambda: [function(argument) for _ in range(200)]

    for member, argument in (("transform", row), ("inverse_transform", codes)):
        seconds = medians(
            options.repeats, ours=often(getattr(ours, member), argument), theirs=often(getattr(pca, member), argument)
        )
        line("transform", f"one row, {member}, against PCA", seconds["ours"] / 200, seconds["theirs"] / 200, 2)
    least = BareNetwork(X.shape[1], 8).eval()

    @torch.inference_mode()
    def validated(rows):
        check_is_fitted(ours)
        x = torch.from_numpy(validate_data(ours, rows, dtype=(np.float64, np.float32), reset=False))
        return (least.encoding(x) + least.encoder(x)).numpy()

    seconds = medians(options.repeats, bare=often(validated, row), theirs=often(pca.transform, row))
    what = "one row, bare network behind scikit-learn's validation, against PCA"
    line("transform", what, seconds["bare"] / 200, seconds["theirs"] / 200, "none")
    random = np.random.RandomState(0)
    X = (random.rand(100_000, 30) @ random.rand(30, 784)).astype(np.float32)
    ours = AutoEncoderTransformer(16, hidden_layer_sizes=HIDDEN, max_epochs=1, random_state=0).fit(X[:2000])
    network, codes = BareNetwork(784, 16).eval(), ours.transform(X)

    @torch.inference_mode()
    def encode():
        return network.encoding(torch.from_numpy(X)) + network.encoder(torch.from_numpy(X))

    @torch.inference_mode()
    def decode():
        return network.decoding(torch.from_numpy(codes)) + network.decoder(torch.from_numpy(codes))

    for member, argument, bare in (("transform", X, encode), ("inverse_transform", codes, decode)):
        seconds = medians(options.repeats, ours=lambda m=member, a=argument: getattr(ours, m)(a), theirs=bare)
        line("transform", f"100,000 x 784, {member}, against bare", seconds["ours"], seconds["theirs"], 1.11)


MEMORY = """
import resource, numpy as np
from skae import AutoEncoderTransformer
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
random = np.random.default_rng(0)
small = random.random((2000, 1000), dtype=np.float32)
model = AutoEncoderTransformer(8, max_epochs=1, random_state=0).fit(small)
model.transform(small)
X = np.empty(({rows}, 1000), dtype=np.float32)
for chunk in np.array_split(X, 100):
    random.random(out=chunk, dtype=np.float32)
before = peak()
if "{member}" == "fit":
    AutoEncoderTransformer(8, max_epochs=1, random_state=0).fit(X)
else:
    model.transform(X)
print(X.nbytes / 2**20, peak() - before)
"""


def section_memory(options):
    """Peak resident memory above the array, in a process of its own."""
    for member, limit in (("fit", "0.35 of it"), ("transform", "64 MB and the codes")):
        command = [sys.executable, "-c", MEMORY.format(rows=250_000, member=member)]
        size, above = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        line("memory", f"{member}, MB above an array of {size:.0f} MB, limit {limit}", above, size, 0.35)
    if options.data:
        X = held_out("mnist", options.data)[0]
        seconds = medians(
            options.repeats,
            ours=lambda: AutoEncoderTransformer(16, max_epochs=0).fit(X),
            theirs=lambda: PCA(16, svd_solver="auto", random_state=0).fit(X),
        )
        line("memory", "MNIST: seconds for the principal directions, against PCA", *seconds.values(), 1)


def section_search(options):
    """Five sizes x five folds, on one process and on two."""
    X = load_digits().data
    model = AutoEncoderTransformer(max_epochs=30, random_state=0)

    def search(n_jobs):
        return lambda: GridSearchCV(model, {"n_components": [2, 4, 8, 16, 32]}, cv=5, n_jobs=n_jobs).fit(X)

    search(2)()  # the processes start, and import, once
    seconds = medians(min(options.repeats, 3), two=search(2), one=search(1))
    line("search", "digits, two processes against one", seconds["two"], seconds["one"], round(1 / 1.7, 2))


def section_start(options):
    """Seconds that importing skae takes after torch, scikit-learn and skorch."""
    code = (
        "import torch, sklearn.base, sklearn.utils, skorch, time; t = time.perf_counter(); import skae; "
        "print(time.perf_counter() - t)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(5)]
    line("start", "seconds that import skae adds", np.median([float(run.stdout) for run in runs]), 0.3, 1)


SECTIONS = {name.removeprefix("section_"): value for name, value in vars().items() if name.startswith("section_")}


def main():
    """Measure the sections asked for and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of .npz files with X_train and X_test")
    parser.add_argument("--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    print("| section | what | skae | other | ratio | limit |\n|---|---|---:|---:|---:|---:|")
    for name in options.only:
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
