"""Check and wrap a user's own module."""

import threading

import torch
from torch import Tensor, nn

# Torch draws first weights from its global generator: only one network at a time may do so.
_CONSTRUCTION = threading.Lock()


class CustomModuleHalf(nn.Module):
    """One direction of a user's own network.

    Parameters
    ----------
    module : nn.Module
        With ``encode`` and ``decode``.
    direction : {"encode", "decode"}
        Which of them.
    """

    def __init__(self, module: nn.Module, direction: str) -> None:
        super().__init__()
        self.module = module
        self.direction = direction

    def forward(self, values: Tensor) -> Tensor:
        """Call it."""
        return getattr(self.module, self.direction)(values)


def custom_module(module: "nn.Module | type[nn.Module]", n_features: int, n_components: int, seed: int) -> nn.Module:
    """Make a network of a class, or take the instance, and check that it does what is asked of it.

    Parameters
    ----------
    module : nn.Module class or instance
        A class is called with ``n_features`` and ``n_components``, torch's global generator seeded for that while
        and put back after it.
    n_features, n_components : int
        Features of samples and codes.
    seed : int
        For the first weights of a class.

    Raises
    ------
    TypeError
        If it is no torch module, or lacks ``encode`` or ``decode``.
    ValueError
        If one of them returns another shape than is wanted.
    """
    if isinstance(module, type) and issubclass(module, nn.Module):
        with _CONSTRUCTION, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = module(n_features, n_components)
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, class or instance, got {module!r}.")
    missing = [name for name in ("encode", "decode") if not callable(getattr(module, name, None))]
    if missing:
        raise TypeError(
            f"module {type(module).__name__} lacks {' and '.join(missing)}: it needs encode(x), from shape "
            f"(n, {n_features}) to (n, {n_components}), and decode(z) back."
        )
    _check_shapes(module, n_features, n_components)
    return module


def _check_shapes(module, n_features, n_components):
    """Send two samples through and look at what comes out."""
    mode = module.training
    asarray_like = next(module.parameters(), torch.empty(0))
    with torch.no_grad():
        module.eval()
        for name, width_in, width_out in (("encode", n_features, n_components), ("decode", n_components, n_features)):
            result = getattr(module, name)(
                torch.zeros(2, width_in, dtype=asarray_like.dtype, device=asarray_like.device)
            )
            shape = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
            if shape != (2, width_out):
                raise ValueError(
                    f"{name} of module {type(module).__name__} returned {shape} for an input of shape (2, {width_in}), "
                    f"but must return a tensor of shape (2, {width_out})."
                )
    module.train(mode)
