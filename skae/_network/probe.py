"""Test calls of custom modules before training."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from skae._network.architecture import Architecture
from skae._network.custom import DRAWS_IN_EVALUATION, DRAWS_IN_TRAINING, MAKES_TENSORS, called, custom_module
from skae._network.draws import Draws
from skae._network.layers import trainable
from skae._utils import seeded_generator

ADVICE = (
    "It must accept any number of samples, including one, in the dtype of X and in float64, in which codes far from "
    "all others are found. Make new tensors like the input, for example with x.new_zeros, and register constants as "
    "buffers (register_buffer)."
)


@dataclass(frozen=True)
class Demands:
    """Conditions under which a custom module is used.

    Attributes
    ----------
    device : torch.device
        Device of the module.
    training_dtype : torch.dtype or None
        Dtype in training. None if the module is not trained.
    smallest_batch : int
        Number of samples in the smallest batch in training.
    second_derivatives : bool
        Whether the loss depends on derivatives of the encoder.
    """

    device: torch.device
    training_dtype: torch.dtype | None = torch.float32
    smallest_batch: int = 2
    second_derivatives: bool = False


def tried_module(
    module: "nn.Module | type[nn.Module] | None",
    params: Mapping[str, Any],
    n_features: int,
    n_components: int,
    seed: int,
    demands: Demands,
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Create a custom module, call it as in training and evaluation, and determine what it needs.

    Parameters
    ----------
    module : nn.Module class, instance or None
        Module with the methods ``encode`` and ``decode``.
    params : dict
        Other keyword arguments of a class.
    n_features : int
        Number of features of the samples.
    n_components : int
        Number of features of the codes.
    seed : int
        Seed of the initial weights, as in `custom_module`.
    demands : Demands
        Conditions under which the module is used.

    Returns
    -------
    module : nn.Module or None
        The module, or None if the parameter is None.
    needs : tuple of str
        Constants of `skae._network.custom`, such as ``DRAWS_IN_TRAINING``.

    Raises
    ------
    ValueError
        If there are parameters without a class, a call fails or returns another shape or dtype than expected, or as in
        `custom_module`.
    TypeError
        As in `custom_module`.
    """
    if module is None:
        if params:
            raise ValueError(f"module_params={params!r} is for a module class, but module is None. Pass the class.")
        return None, ()
    module = custom_module(module, params, n_features, n_components, seed)
    widths = {"encode": (n_features, n_components), "decode": (n_components, n_features)}
    try:
        return module, _Probe(module, widths, demands, like_input=False).needs()
    except ValueError as error:
        try:
            return module, _Probe(module, widths, demands, like_input=True).needs()
        except ValueError:
            raise error from error.__cause__


def check_same(before: Architecture, now: Architecture) -> None:
    """Check that training can be continued with the network of an earlier fit.

    Raises
    ------
    ValueError
        If the architectures differ, or the shape of a parameter of the custom modules does.
    """
    prefix = "warm_start=True needs the network of the previous fit, as partial_fit does. That was "
    if before != now:
        raise ValueError(
            f"{prefix}{before}, but the parameters and X now ask for {now}. Set warm_start=False and call fit, or keep "
            "the sizes."
        )
    shapes, new_shapes = _shapes(before.module), _shapes(now.module)
    if shapes != new_shapes:
        name = min(name for name in {*shapes, *new_shapes} if shapes.get(name) != new_shapes.get(name))
        raise ValueError(
            f"{prefix}a module whose {name!r} has the shape {shapes.get(name)}, but module "
            f"{type(now.module).__name__} now has {new_shapes.get(name)}. Set warm_start=False and call fit, or keep "
            "module and module_params."
        )


def _shapes(module: nn.Module | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters and buffers of a module."""
    return {} if module is None else {name: tuple(value.shape) for name, value in module.state_dict().items()}


@dataclass(frozen=True)
class _Probe:
    """Test calls of a module.

    Attributes
    ----------
    module : nn.Module
        The module, copies of which are called.
    widths : dict of str to tuple of int
        Numbers of features of the input and the output of ``encode`` and ``decode``.
    demands : Demands
        Conditions under which the module is used.
    like_input : bool
        Whether tensors that the module creates without a dtype or device get those of the input.
    """

    module: nn.Module
    widths: dict[str, tuple[int, int]]
    demands: Demands
    like_input: bool

    def needs(self) -> tuple[str, ...]:
        """Make all calls, and return the needs of the module."""
        evaluation, training = Draws(0), Draws(0)
        self._evaluate(evaluation)
        if self.demands.training_dtype is not None:
            self._train(training, self.demands.training_dtype)
        needs = {
            MAKES_TENSORS: self.like_input,
            DRAWS_IN_EVALUATION: evaluation.used,
            DRAWS_IN_TRAINING: training.used,
        }
        return tuple(name for name, needed in needs.items() if needed)

    def _evaluate(self, draws: Draws) -> None:
        """Call the module in evaluation mode."""
        single_only = self.demands.device.type == "mps"
        for dtype in (torch.float32,) if single_only else (torch.float32, torch.float64):
            module = copy.deepcopy(self.module).to(self.demands.device, dtype).eval()
            for n_samples, context in product((2, 1, 3), (torch.no_grad, torch.inference_mode)):
                with context():
                    self._encode_and_decode(module, self._samples(n_samples, dtype), draws)

    def _train(self, draws: Draws, dtype: torch.dtype) -> None:
        """Call the module in training mode, and compute gradients."""
        module = copy.deepcopy(self.module).to(self.demands.device, dtype).train()
        weights = trainable(module)
        for n_samples in (self.demands.smallest_batch, 3):
            x = self._samples(n_samples, dtype)
            z, x_hat = self._encode_and_decode(module, x, draws)
            loss = z.square().mean() + x_hat.square().mean()
            with self._explained("encode or decode", module, x):
                _gradients(loss, weights)
            if self.demands.second_derivatives:
                self._check_second_derivatives(module, x, draws, weights)

    def _check_second_derivatives(
        self, module: nn.Module, x: Tensor, draws: Draws, weights: list[nn.Parameter]
    ) -> None:
        """Compute second derivatives of the encoder, as in a contractive penalty."""
        codes = called(module, "encode", x.requires_grad_(), self.like_input, draws)
        try:
            (gradient,) = torch.autograd.grad(codes.sum(), x, create_graph=True)
            _gradients(gradient.square().sum(), weights)
        except RuntimeError as error:
            raise ValueError(
                "regularizer='contractive' needs second derivatives of encode, which a layer of module "
                f"{type(module).__name__} does not have: {error} Replace that layer, or choose regularizer='denoising'."
            ) from error

    def _samples(self, n_samples: int, dtype: torch.dtype) -> Tensor:
        """Draw samples from the standard normal distribution, because samples are standardized."""
        values = torch.randn(n_samples, self.widths["encode"][0], generator=seeded_generator(0))
        return values.to(self.demands.device, dtype)

    def _encode_and_decode(self, module: nn.Module, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return the codes and reconstructions of samples."""
        z = self._checked_call(module, "encode", x, draws)
        return z, self._checked_call(module, "decode", z, draws)

    def _checked_call(self, module: nn.Module, direction: str, values: Tensor, draws: Draws) -> Tensor:
        """Call a method, and check the shape and dtype of its result."""
        with self._explained(direction, module, values):
            result = called(module, direction, values, self.like_input, draws)
        expected = len(values), self.widths[direction][1]
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        if shape != expected:
            raise ValueError(
                f"{direction} of module {type(module).__name__} returned {shape} for an input of shape "
                f"{tuple(values.shape)}, but must return a tensor of shape {expected}."
            )
        if result.dtype != values.dtype:
            raise ValueError(
                f"{direction} of module {type(module).__name__} returned {_name(result.dtype)} for an input in "
                f"{_name(values.dtype)}, but must return the dtype of its input. {ADVICE}"
            )
        return result

    @contextmanager
    def _explained(self, what: str, module: nn.Module, values: Tensor) -> Iterator[None]:
        """Convert any exception in this block to a ValueError that names the module and the values."""
        try:
            yield
        except Exception as error:
            samples = "1 sample" if len(values) == 1 else f"{len(values)} samples"
            advice = "batch_size=1 makes batches of one sample. " if len(values) == 1 and module.training else ""
            raise ValueError(
                f"{what} of module {type(module).__name__} fails for {samples} in {_name(values.dtype)} "
                f"{'while training' if module.training else 'in evaluation mode'}: {type(error).__name__}: "
                f"{str(error).rstrip('.')}. {advice}{ADVICE}"
            ) from error


def _gradients(loss: Tensor, weights: list[nn.Parameter]) -> None:
    """Compute the gradients of a loss, if it depends on weights."""
    if weights and loss.requires_grad:
        torch.autograd.grad(loss, weights, allow_unused=True)


def _name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without the module."""
    return str(dtype).removeprefix("torch.")
