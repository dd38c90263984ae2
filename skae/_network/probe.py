"""Try everything that a user's own module will be asked for before training."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from skae._network.architecture import Architecture
from skae._network.custom import DRAWS_IN_EVALUATION, DRAWS_IN_TRAINING, MAKES_TENSORS, called, custom_module
from skae._network.draws import Draws

ADVICE = (
    "It must take any number of samples, one among them, in the precision of X, and in double precision too, in which "
    "codes far from all others are found. Make new tensors like the input, as x.new_zeros does, and hold constants in "
    "buffers (register_buffer)."
)


@dataclass(frozen=True)
class Demands:
    """How a network will be used.

    Attributes
    ----------
    device : torch.device
        Where.
    training_dtype : torch.dtype or None
        In what precision it is trained; None where it is not.
    smallest_batch : int
        Number of samples in the smallest batch while training.
    second_derivatives : bool
        Whether the loss has derivatives of the encoder in it.
    """

    device: torch.device
    training_dtype: torch.dtype | None = torch.float32
    smallest_batch: int = 2
    second_derivatives: bool = False


def needs_of(module: nn.Module, n_features: int, n_components: int, demands: Demands) -> tuple[str, ...]:
    """Try everything that a network will be asked for, and say what it needs besides its weights.

    Parameters
    ----------
    module : nn.Module
        With ``encode`` and ``decode``; it stays as it is.
    n_features, n_components : int
        Features of samples and codes.
    demands : Demands
        How it will be used.

    Returns
    -------
    tuple of str
        Constants of `skae._custom`.

    Raises
    ------
    ValueError
        If it fails, or if it returns another shape or precision than is wanted.
    """
    try:
        return _Probe(module, n_features, n_components, demands, asarray_like=False).needs()
    except ValueError as error:
        try:
            return _Probe(module, n_features, n_components, demands, asarray_like=True).needs()
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
    """Make a network of a user's class or instance, if there is one, try it, and say what it needs.

    Raises
    ------
    ValueError
        If there are options, but no class; else as `custom_module` and `needs_of`.
    TypeError
        As `custom_module`.
    """
    if module is None:
        if params:
            raise ValueError(f"module_params={params!r} is for a module class, but module is None. Pass the class.")
        return None, ()
    module = custom_module(module, params, n_features, n_components, seed)
    return module, needs_of(module, n_features, n_components, demands)


def check_same(before: Architecture, now: Architecture) -> None:
    """Refuse to go on with a network that is not what is asked for now.

    Raises
    ------
    ValueError
        If a size or another choice differs, or a weight of the user's own network.
    """
    asked = "warm_start=True needs the network of the fit before, as partial_fit does: that was "
    if before != now:
        raise ValueError(
            f"{asked}{before}, but the parameters and X now ask for {now}. Set warm_start=False and call fit, or keep "
            "the sizes."
        )
    shapes, other = _shapes(before.module), _shapes(now.module)
    if shapes != other:
        wrong = min(name for name in {*shapes, *other} if shapes.get(name) != other.get(name))
        raise ValueError(
            f"{asked}a module whose {wrong!r} has the shape {shapes.get(wrong)}, but module "
            f"{type(now.module).__name__} now has {other.get(wrong)}. Set warm_start=False and call fit, or keep "
            "module and module_params."
        )


def _shapes(module: nn.Module | None) -> dict[str, tuple[int, ...]]:
    return {} if module is None else {name: tuple(value.shape) for name, value in module.state_dict().items()}


class _Probe:
    """One attempt, with or without a hand in the tensors that the network makes."""

    def __init__(
        self, module: nn.Module, n_features: int, n_components: int, demands: Demands, asarray_like: bool
    ) -> None:
        self.module = module
        self.widths = {"encode": (n_features, n_components), "decode": (n_components, n_features)}
        self.demands = demands
        self.asarray_like = asarray_like

    def needs(self) -> tuple[str, ...]:
        """Ask for everything."""
        found = [MAKES_TENSORS] if self.asarray_like else []
        if self._draws_in_evaluation():
            found.append(DRAWS_IN_EVALUATION)
        if self.demands.training_dtype is not None and self._draws_in_training(self.demands.training_dtype):
            found.append(DRAWS_IN_TRAINING)
        return tuple(found)

    def _draws_in_evaluation(self) -> bool:
        draws = Draws(0)
        single_only = self.demands.device.type == "mps"
        for dtype in (torch.float32,) if single_only else (torch.float32, torch.float64):
            module = copy.deepcopy(self.module).to(self.demands.device, dtype).eval()
            for n_samples in (2, 1, 3):
                for context in (torch.no_grad, torch.inference_mode):
                    with context():
                        self._both_ways(module, self._samples(n_samples, dtype), draws, "in evaluation mode")
        return draws.used

    def _draws_in_training(self, dtype: torch.dtype) -> bool:
        draws = Draws(0)
        module = copy.deepcopy(self.module).to(self.demands.device, dtype).train()
        weights = [one for one in module.parameters() if one.requires_grad]
        for n_samples in (self.demands.smallest_batch, 3):
            x = self._samples(n_samples, dtype)
            z, x_hat = self._both_ways(module, x, draws, "while training")
            loss = z.square().mean() + x_hat.square().mean()
            if loss.requires_grad:
                self._blamed("encode or decode", n_samples, dtype, "while training", _gradients, loss, weights)
            if self.demands.second_derivatives:
                self._check_second_derivatives(module, x, draws, weights)
        return draws.used

    def _check_second_derivatives(self, module, x, draws, weights):
        """Do with the encoder what a contractive penalty does."""
        x = x.requires_grad_()
        codes = called(module, "encode", x, self.asarray_like, draws)
        try:
            (jacobian_rms,) = torch.autograd.grad(codes.sum(), x, create_graph=True)
            if jacobian_rms.requires_grad:
                _gradients(jacobian_rms.square().sum(), weights)
        except RuntimeError as error:
            raise ValueError(
                "regularizer='contractive' needs second derivatives of encode, which a layer of module "
                f"{type(module).__name__} does not have: {error} Replace that layer, or choose regularizer='denoising'."
            ) from error

    def _samples(self, n_samples: int, dtype: torch.dtype) -> Tensor:
        """Draw standard normal values, since samples are centered and of unit scale."""
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(n_samples, self.widths["encode"][0], generator=generator)
        return values.to(self.demands.device, dtype)

    def _both_ways(self, module, x, draws, when):
        z = self._one_way(module, "encode", x, draws, when)
        return z, self._one_way(module, "decode", z, draws, when)

    def _one_way(self, module, direction, values, draws, when):
        """Apply one direction, and check the result."""
        n_samples, width = len(values), self.widths[direction][1]
        arguments = module, direction, values, self.asarray_like, draws
        result = self._blamed(direction, n_samples, values.dtype, when, called, *arguments)
        shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        if shape != (n_samples, width):
            raise ValueError(
                f"{direction} of module {type(module).__name__} returned {shape} for an input of shape "
                f"{tuple(values.shape)}, but must return a tensor of shape ({n_samples}, {width})."
            )
        if result.dtype != values.dtype:
            raise ValueError(
                f"{direction} of module {type(module).__name__} returned {_name(result.dtype)} for an input in "
                f"{_name(values.dtype)}, but must return the precision of its input. {ADVICE}"
            )
        return result

    def _blamed(self, what, n_samples, dtype, when, function, *arguments):
        """Say whose fault it is, whatever a user's code raises."""
        try:
            return function(*arguments)
        except Exception as error:
            alone = " batch_size=1 makes batches of one sample." if n_samples == 1 and when == "while training" else ""
            raise ValueError(
                f"{what} of module {type(self.module).__name__} fails for {n_samples} sample"
                f"{'s' if n_samples > 1 else ''} in {_name(dtype)} {when}: {type(error).__name__}: "
                f"{str(error).rstrip('.')}.{alone} {ADVICE}"
            ) from error


def _gradients(loss, weights):
    return torch.autograd.grad(loss, weights, allow_unused=True) if weights else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
