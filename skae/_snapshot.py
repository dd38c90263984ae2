"""A training in plain values and numpy arrays, to be gone on with to the last bit."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from skae._layers import SeededDropout
from skae._modules import DataUnits
from skae._net import TrainingSettings
from skae._sample import Sample
from skae._steps import Training


def training_state(training: Training) -> dict:
    """What it began with, and what changes while a network is trained: weights, averages, memories, generators."""
    averaging, objective = training.net.averaging, training.objective
    return plain(
        {
            "model": dict(training.model.state_dict()),
            "residual_share": training.settings.residual_share,
            "unit": training.criterion.unit,
            "core": dict(training.core.state_dict()),
            "average": [] if averaging is None else averaging.average_,
            "n_steps": 0 if averaging is None else averaging.n_steps_,
            "optimizer": training.net.optimizer_.state_dict(),
            "generators": [generator.get_state() for generator in _generators(training)],
            "nat": 0.0 if objective is None else objective.nat,
            "n_epochs": 0 if objective is None else objective.n_epochs,
        }
    )


@torch.no_grad()
def restored_training(state: dict, model: DataUnits, settings: TrainingSettings, sample: Sample) -> Training:
    """Make a training that goes on where another one was.

    Parameters
    ----------
    state : dict
        Of the other one.
    model : DataUnits
        Of the same architecture, whatever its weights.
    settings : TrainingSettings
        As for the other one, but for the residual share.
    sample : Sample
        Any rows.
    """
    state = tensors(state)
    model.load_state_dict(state["model"])
    training = Training(
        model, replace(settings, residual_share=state["residual_share"]), sample, callbacks=settings.callbacks
    )
    training.core.load_state_dict(state["core"])
    training.criterion.unit = state["unit"]
    averaging = training.net.averaging
    if averaging is not None:
        averaging.n_steps_ = state["n_steps"]
        for average, value in zip(averaging.average_, state["average"], strict=True):
            average.copy_(value)
    training.net.optimizer_.load_state_dict(state["optimizer"])
    for generator, value in zip(_generators(training), state["generators"], strict=True):
        generator.set_state(value)
    if training.objective is not None:
        training.objective.n_epochs, training.objective.nat = state["n_epochs"], state["nat"]
    return training


def _generators(training: Training) -> Iterator[torch.Generator]:
    """All that a training draws from."""
    yield training.net.shuffler
    yield training.noise.generator
    if training.objective is not None:
        yield from training.objective.generators
    for layer in training.core.modules():
        if isinstance(layer, SeededDropout) and layer.generator is not None:
            yield layer.generator


def plain(value: Any) -> Any:
    """Make arrays of the tensors in nested dictionaries and lists."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def tensors(value: Any) -> Any:
    """Make tensors of the arrays in nested dictionaries and lists."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: tensors(entry) for key, entry in value.items()}
    return [tensors(entry) for entry in value] if isinstance(value, list) else value
