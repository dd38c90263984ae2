"""Test calls of custom modules before training."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skae._network.architecture import Architecture
from skae._network.custom import DRAWS_IN_EVALUATION, DRAWS_IN_TRAINING, MAKES_TENSORS, called, custom_module
from skae._network.draws import Draws

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


def needs_of(module: nn.Module, n_features: int, n_components: int, demands: Demands) -> tuple[str, ...]:
    """Call a custom module as in training and evaluation, and determine what it needs.

    Parameters
    ----------
    module : nn.Module
        Module with the methods ``encode`` and ``decode``. A copy is called.
    n_features : int
        Number of features of the samples.
    n_components : int
        Number of features of the codes.
    demands : Demands
        Conditions under which the module is used.

    Returns
    -------
    tuple of str
        Constants of `skae._network.custom`, such as ``DRAWS_IN_TRAINING``.

    Raises
    ------
    ValueError
        If a call fails or returns another shape or dtype than expected.
    """
    try:
        return _Probe(module, n_features, n_components, demands, like_input=False).needs()
    except ValueError as error:
        try:
            return _Probe(module, n_features, n_components, demands, like_input=True).needs()
        except ValueError:
            raise error from error.__cause__


def tried_module(
    module: "nn.Module | type[nn.Module] | None",
    params: Mapping[str, Any],
    n_features: int,
    n_components: int,
    seed: int,
    demands: Demands,
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Create a custom module by `custom_module`, and determine its needs by `needs_of`.

    Returns
    -------
    module : nn.Module or None
        The module, or None if the parameter is None.
    needs : tuple of str
        Its needs.

    Raises
    ------
    ValueError
        If there are parameters without a class, or as in `custom_module` and `needs_of`.
    TypeError
        As in `custom_module`.
    """
    if module is None:
        if params:
            raise ValueError(f"module_params={params!r} is for a module class, but module is None. Pass the class.")
        return None, ()
    module = custom_module(module, params, n_features, n_components, seed)
    return module, needs_of(module, n_features, n_components, demands)


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


class _Probe:
    """Test calls of a module, with or without a default dtype and device of the tensors that it creates."""

    def __init__(
        self, module: nn.Module, n_features: int, n_components: int, demands: Demands, like_input: bool
    ) -> None:
        self.module = module
        self.widths = {"encode": (n_features, n_components), "decode": (n_components, n_features)}
        self.demands = demands
        self.like_input = like_input

    def needs(self) -> tuple[str, ...]:
        """Make all calls, and return the needs of the module."""
        found = [MAKES_TENSORS] if self.like_input else []
        if self._draws_in_evaluation():
            found.append(DRAWS_IN_EVALUATION)
        if self.demands.training_dtype is not None and self._draws_in_training(self.demands.training_dtype):
            found.append(DRAWS_IN_TRAINING)
        return tuple(found)

    def _draws_in_evaluation(self) -> bool:
        """Call the module in evaluation mode, and return whether it draws random numbers."""
        draws = Draws(0)
        single_only = self.demands.device.type == "mps"
        for dtype in (torch.float32,) if single_only else (torch.float32, torch.float64):
            module = copy.deepcopy(self.module).to(self.demands.device, dtype).eval()
            for n_samples in (2, 1, 3):
                for context in (torch.no_grad, torch.inference_mode):
                    with context():
                        self._encode_and_decode(module, self._samples(n_samples, dtype), draws, "in evaluation mode")
        return draws.used

    def _draws_in_training(self, dtype: torch.dtype) -> bool:
        """Call the module in training mode, and return whether it draws random numbers."""
        draws = Draws(0)
        module = copy.deepcopy(self.module).to(self.demands.device, dtype).train()
        weights = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for n_samples in (self.demands.smallest_batch, 3):
            x = self._samples(n_samples, dtype)
            z, x_hat = self._encode_and_decode(module, x, draws, "while training")
            loss = z.square().mean() + x_hat.square().mean()
            if loss.requires_grad:
                self._call("encode or decode", n_samples, dtype, "while training", _gradients, loss, weights)
            if self.demands.second_derivatives:
                self._check_second_derivatives(module, x, draws, weights)
        return draws.used

    def _check_second_derivatives(
        self, module: nn.Module, x: Tensor, draws: Draws, weights: list[nn.Parameter]
    ) -> None:
        """Compute second derivatives of the encoder, as in a contractive penalty."""
        x = x.requires_grad_()
        codes = called(module, "encode", x, self.like_input, draws)
        try:
            (gradient,) = torch.autograd.grad(codes.sum(), x, create_graph=True)
            if gradient.requires_grad:
                _gradients(gradient.square().sum(), weights)
        except RuntimeError as error:
            raise ValueError(
                "regularizer='contractive' needs second derivatives of encode, which a layer of module "
                f"{type(module).__name__} does not have: {error} Replace that layer, or choose regularizer='denoising'."
            ) from error

    def _samples(self, n_samples: int, dtype: torch.dtype) -> Tensor:
        """Draw samples from the standard normal distribution, because samples are standardized."""
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(n_samples, self.widths["encode"][0], generator=generator)
        return values.to(self.demands.device, dtype)

    def _encode_and_decode(self, module: nn.Module, x: Tensor, draws: Draws, when: str) -> tuple[Tensor, Tensor]:
        """Return the codes and reconstructions of samples."""
        z = self._checked_call(module, "encode", x, draws, when)
        return z, self._checked_call(module, "decode", z, draws, when)

    def _checked_call(self, module: nn.Module, direction: str, values: Tensor, draws: Draws, when: str) -> Tensor:
        """Call a method, and check the shape and dtype of its result."""
        n_samples, width = len(values), self.widths[direction][1]
        arguments = module, direction, values, self.like_input, draws
        result = self._call(direction, n_samples, values.dtype, when, called, *arguments)
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        if shape != (n_samples, width):
            raise ValueError(
                f"{direction} of module {type(module).__name__} returned {shape} for an input of shape "
                f"{tuple(values.shape)}, but must return a tensor of shape ({n_samples}, {width})."
            )
        if result.dtype != values.dtype:
            raise ValueError(
                f"{direction} of module {type(module).__name__} returned {_name(result.dtype)} for an input in "
                f"{_name(values.dtype)}, but must return the dtype of its input. {ADVICE}"
            )
        return result

    def _call(
        self, what: str, n_samples: int, dtype: torch.dtype, when: str, function: Callable, *arguments: Any
    ) -> Any:
        """Call a function, and convert any exception to a ValueError that names the module."""
        try:
            return function(*arguments)
        except Exception as error:
            batch_size = (
                " batch_size=1 makes batches of one sample." if n_samples == 1 and when == "while training" else ""
            )
            raise ValueError(
                f"{what} of module {type(self.module).__name__} fails for {n_samples} sample"
                f"{'s' if n_samples > 1 else ''} in {_name(dtype)} {when}: {type(error).__name__}: "
                f"{str(error).rstrip('.')}.{batch_size} {ADVICE}"
            ) from error


def _gradients(loss: Tensor, weights: list[nn.Parameter]) -> Any:
    """Compute the gradients of a loss, or return None if there are no weights."""
    return torch.autograd.grad(loss, weights, allow_unused=True) if weights else None


def _name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without the module."""
    return str(dtype).removeprefix("torch.")
