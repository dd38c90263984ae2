"""
A GPU beside the processor
==========================

Epochs, whole fits and ``transform`` on a GPU and on the processor, and one training step of the same network in other
ways: as a CUDA graph, compiled, and with products in bfloat16. The data are synthetic images, smooth functions of
sixteen hidden variables with noise, so that nothing is needed but this file.

    python examples/benchmarks/device.py [--device cuda] [--threads 2] [--images 60000] [--only SECTION ...]

Each line is a measurement, a median of several runs; the first line names the GPU. Sections: ``epoch``, ``fit``,
``transform``, ``step``.
"""

import argparse
import statistics
import sys
import time
import traceback
from functools import partial
from itertools import product

import numpy as np
import torch

from skae import AutoEncoderTransformer

# Pixels of an image, hidden variables behind the pixels, and components.
N_PIXELS, N_HIDDEN, N_COMPONENTS = 784, 16, 16
BATCH_SIZES = (256, 4096)


def synthetic_images(n_images, seed=0):
    """Smooth functions of hidden variables, between 0 and 1, with noise, in single precision."""
    random = np.random.default_rng(seed)
    # The functions are drawn first, so that they do not depend on the number of images.
    inner, outer = (random.standard_normal(sizes, dtype=np.float32) for sizes in ((N_HIDDEN, 64), (64, N_PIXELS)))
    hidden = random.standard_normal((n_images, N_HIDDEN), dtype=np.float32)
    logits = np.tanh(hidden @ inner / 4) @ outer / 2
    noise = random.standard_normal((n_images, N_PIXELS), dtype=np.float32)
    return 1 / (1 + np.exp(-logits)) + np.float32(0.05) * noise


def report(measure, *values):
    """Print one measurement."""
    print(f"{measure:<64}", *values, sep="\t", flush=True)


def median_seconds(function, repeats, device):
    """Call a function once to warm up and then several times; return the median seconds."""
    function()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def trained(device, X, n_epochs, batch_size, **parameters):
    """Train for some epochs, with the default layers."""
    parameters |= {"max_epochs": n_epochs, "early_stopping": False, "batch_size": batch_size, "random_state": 0}
    return AutoEncoderTransformer(N_COMPONENTS, **parameters, device=device).fit(X)


def epoch_section(options, X):
    """Seconds of an epoch of training."""
    for batch_size in BATCH_SIZES:
        seconds = {}
        for device, n_epochs in ((options.device, 10), ("cpu", 3)):
            history = trained(device, X, n_epochs, batch_size).net_.history
            seconds[device] = statistics.median(history[1:, "dur"])
            report(f"epoch of {len(X):,} x {N_PIXELS}, batch {batch_size}, {device}", f"{seconds[device]:.3f} s")
        report(f"epoch, batch {batch_size}, {options.device} / cpu", f"{seconds[options.device] / seconds['cpu']:.3f}")


def fit_section(options, X):
    """Seconds and scores of whole fits with the defaults, and of one with larger batches."""
    X_test, few = synthetic_images(options.images + 2_000)[options.images :], X[: len(X) // 6]
    runs = [
        (options.device, X, {}),
        (options.device, X, {"batch_size": 2048}),
        (options.device, few, {}),
        ("cpu", few, {}),
    ]
    for device, samples, parameters in runs:
        started = time.perf_counter()
        estimator = AutoEncoderTransformer(N_COMPONENTS, **parameters, random_state=0, device=device).fit(samples)
        seconds = time.perf_counter() - started
        what = f"fit of {len(samples):,} x {N_PIXELS}, {parameters or 'defaults'}, {device}"
        report(what, f"{seconds:.1f} s", f"score {estimator.score(X_test):.4f}", f"{estimator.n_iter_} epochs")


def transform_section(options, X):
    """Seconds of `transform` for one sample and for all."""
    for device, steps in product((options.device, "cpu"), ("auto", 0)):
        estimator = trained(device, X[:5000], 5, 256, projection_steps=steps)
        for n_samples, repeats in ((1, 50), (len(X), 3)):
            seconds = median_seconds(partial(estimator.transform, X[:n_samples]), repeats, device)
            report(f"transform of {n_samples:,}, projection_steps={steps}, {device}", f"{1e3 * seconds:.2f} ms")


def step_section(options, X):
    """Seconds of one training step of the default network, as torch can run it."""
    network = trained(options.device, X[:5000], 1, 256).net_.module_.network
    for batch_size in BATCH_SIZES:
        x = torch.from_numpy(X[:batch_size]).to(options.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, fused=True, capturable=options.device != "cpu")

        def loss_of(x=x):
            return torch.nn.functional.mse_loss(network(x), x)

        def step(loss_of=loss_of, optimizer=optimizer):
            optimizer.zero_grad(set_to_none=True)
            loss_of().backward()
            optimizer.step()

        def bfloat16(step=step):
            with torch.autocast(options.device, torch.bfloat16):
                step()

        ways = {"as it is": step, "bfloat16": bfloat16}
        if options.device != "cpu":
            for name, one in list(ways.items()):
                ways[f"{name}, CUDA graph"] = as_graph(one)
        compiled = torch.compile(loss_of)
        ways["compiled"] = lambda step=step, compiled=compiled: step(compiled)
        for name, one in ways.items():
            seconds = median_seconds(one, 200, options.device)
            report(f"step, batch {batch_size}, {name}, {options.device}", f"{1e3 * seconds:.3f} ms")


def as_graph(step):
    """Record a step as a CUDA graph; return what replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


SECTIONS = {"epoch": epoch_section, "fit": fit_section, "transform": transform_section, "step": step_section}


def main():
    """Measure the sections; one that fails is reported, and the others are measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--threads", type=int, default=2, help="threads of the processor")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--only", nargs="*", default=list(SECTIONS), choices=SECTIONS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    report(f"{name}, torch {torch.__version__}, {options.threads} threads of the processor")
    X = synthetic_images(options.images)
    failed = []
    for section in options.only:
        try:
            SECTIONS[section](options, X)
        except Exception:
            traceback.print_exc()
            failed.append(section)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
