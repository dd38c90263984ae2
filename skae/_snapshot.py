"""A training in plain values and numpy arrays, to be gone on with to the last bit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from skae._layers import SeededDropout, learnt_values
from skae._steps import Training


def training_state(training: Training) -> dict:
    """What changes while a network is trained: weights, averages, the optimizer's memory, generators."""
    averaging = training.net.averaging
    return plain(
        {
            "model": dict(training.model.state_dict()),
            "weights": learnt_values(training.core),
            "average": [] if averaging is None else averaging.average_,
            "n_steps": 0 if averaging is None else averaging.n_steps_,
            "optimizer": training.net.optimizer_.state_dict(),
            "generators": [generator.get_state() for generator in _generators(training)],
            "n_epochs": 0 if training.objective is None else training.objective.n_epochs,
        }
    )


@torch.no_grad()
def restore_training(training: Training, state: dict) -> None:
    """Put a training, made anew from the same start, where another one was."""
    state = tensors(state)
    averaging = training.net.averaging
    if averaging is not None:
        averaging.n_steps_ = state["n_steps"]
    averages = [] if averaging is None else averaging.average_
    for places, values in ((learnt_values(training.core), state["weights"]), (averages, state["average"])):
        for place, value in zip(places, values, strict=True):
            place.copy_(value)
    training.net.optimizer_.load_state_dict(state["optimizer"])
    for generator, value in zip(_generators(training), state["generators"], strict=True):
        generator.set_state(value)
    if training.objective is not None:
        training.objective.n_epochs = state["n_epochs"]


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
