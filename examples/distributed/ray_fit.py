"""
Fit by Ray Train to a data set of Ray Data
==========================================

Each worker of a ``TorchTrainer`` reads its shard of the data set. ``transform`` is called for the batches of a shard.
"""

import os
import tempfile

import numpy as np
import ray
import ray.data
import ray.train
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from skae import AutoEncoderTransformer, load, save
from skae.distributed import fit


def fit_on_worker(config):
    """Fit to the shard of one worker, in the process group of Ray Train."""
    chunks = (batch["x"] for batch in ray.train.get_dataset_shard("train").iter_batches(batch_size=1024))
    estimator = fit(AutoEncoderTransformer(1, max_epochs=config["max_epochs"], random_state=0), chunks)
    with tempfile.TemporaryDirectory() as directory:
        checkpoint = None
        if ray.train.get_context().get_world_rank() == 0:
            save(estimator, os.path.join(directory, "model.skae"))
            checkpoint = Checkpoint.from_directory(directory)
        ray.train.report({"best_epoch": estimator.best_epoch_}, checkpoint=checkpoint)


def main(n_samples=4000, n_workers=2, max_epochs=20):
    """Fit to random curved samples, and transform them where they are."""
    angles = np.random.RandomState(0).uniform(0, 3, size=(n_samples, 1))
    X = np.hstack([np.cos(angles), np.sin(angles), angles**2])
    dataset = ray.data.from_numpy(X).rename_columns({"data": "x"})
    trainer = TorchTrainer(
        fit_on_worker,
        train_loop_config={"max_epochs": max_epochs},
        scaling_config=ScalingConfig(num_workers=n_workers),
        run_config=RunConfig(storage_path=tempfile.mkdtemp()),
        datasets={"train": dataset},
    )
    with trainer.fit().checkpoint.as_directory() as directory:
        estimator = load(os.path.join(directory, "model.skae"))
    codes = dataset.map_batches(lambda batch: {"z": estimator.transform(batch["x"])})
    print(f"codes {codes.take_batch(n_samples)['z'].shape}, score {estimator.score(X):.3f}")


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False)
    main()
    ray.shutdown()
