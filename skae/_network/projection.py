"""Improve codes of single samples, and differentiate encoders and decoders."""

from collections.abc import Callable

import torch
from torch import Tensor

from skae._utils import gradients_on

# Steps that look for a better code of a sample beyond the reach of the training samples.
REFINEMENT_STEPS = 5
# Values that the Jacobians of some samples may hold at once.
JACOBIAN_VALUES = 1_000_000


def refined_codes(decode: Callable[[Tensor], Tensor], x: Tensor, *starts: Tensor) -> Tensor:
    """Take Levenberg-Marquardt steps to codes that reconstruct the samples x better, from the better of two starts.

    A step counts if it lowers a sample's squared error noticeably, so a code that is best already stays what it is.
    """
    n_samples = max(JACOBIAN_VALUES // (x.shape[1] * starts[0].shape[1]), 1)
    with torch.inference_mode(False), torch.no_grad():
        parts = zip(*(samples.clone().split(n_samples) for samples in (x, *starts)), strict=True)
        return torch.cat([_refined_part(decode, *part) for part in parts])


def _refined_part(decode, x, z, other):
    """Refine codes whose Jacobians fit into memory together."""
    errors, other_errors = ((x - decode(codes)).square().sum(dim=1) for codes in (z, other))
    z = torch.where((other_errors < errors)[:, None], other, z)
    errors = torch.minimum(errors, other_errors)
    damping = torch.ones_like(errors)
    for _ in range(REFINEMENT_STEPS):
        jacobian_rms = decoder_jacobians(decode, z)
        gradient = torch.einsum("rdk,rd->rk", jacobian_rms, x - decode(z))
        curvature = jacobian_rms.mT @ jacobian_rms
        diagonal = curvature.diagonal(dim1=1, dim2=2)
        floor = torch.finfo(z.dtype).eps * diagonal.amax(dim=1, keepdim=True)
        damped = curvature + torch.diag_embed(damping[:, None] * diagonal + floor)
        moved = z + torch.linalg.solve_ex(damped, gradient)[0]
        moved_errors = (x - decode(moved)).square().sum(dim=1)
        better = moved_errors < (1.0 - 1e-4) * errors
        z = torch.where(better[:, None], moved, z)
        errors = torch.where(better, moved_errors, errors)
        damping = torch.where(better, 0.3 * damping, 4.0 * damping)
    return z


def jacobian_rms(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """How far a reconstruction moves for a small step in each code: root mean square over the codes z."""
    with torch.no_grad():
        n_values = decode(z[:1]).shape[1] * z.shape[1]
        parts = z.split(max(JACOBIAN_VALUES // n_values, 1))
        return torch.cat([decoder_jacobians(decode, part).square().sum(dim=1) for part in parts]).mean(dim=0).sqrt()


def decoder_jacobians(decode, z):
    """Compute the Jacobian of each reconstruction by its code, of shape (n, n_features, n_components).

    Some layers of a user's own network have no second derivatives, such as attention and distances, and recurrent
    layers on a GPU have none at all in evaluation mode: differences take their place, which ask for values alone.
    """
    try:
        return _by_two_passes(decode, z)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return _by_differences(decode, z)


def _differentiable(values: Tensor) -> Tensor:
    """Copy values such that derivatives by them can be computed, also from inference mode."""
    return (values.clone() if values.is_inference() else values).detach().requires_grad_()


@torch.no_grad()
def _by_differences(decode, z):
    """Central differences, with the steps at which rounding and curvature cost about the same."""
    features = []
    for index in range(z.shape[1]):
        step = torch.finfo(z.dtype).eps ** (1 / 3) * z[:, index].abs().clamp(min=1.0)
        up, down = z.clone(), z.clone()
        up[:, index] += step
        down[:, index] -= step
        features.append((decode(up) - decode(down)) / (up - down)[:, index, None])
    return torch.stack(features, dim=2)


@gradients_on()
def _by_two_passes(decode, z):
    """Compute the Jacobians by two backward passes; more layers lack forward derivatives."""
    z = _differentiable(z)
    x_hat = decode(z)
    weights = torch.zeros_like(x_hat, requires_grad=True)
    (products,) = torch.autograd.grad(x_hat, z, weights, create_graph=True)
    features = [torch.autograd.grad(feature.sum(), weights, retain_graph=True)[0] for feature in products.unbind(dim=1)]
    return torch.stack(features, dim=2)


def average_jacobian(
    jacobians: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor],
    function: Callable[[Tensor], Tensor],
    values: Tensor,
    n_out: int,
    signed: bool,
) -> Tensor:
    """Average the derivatives of a function over samples of values: their mean, or the root of their mean square."""
    total = torch.zeros((), dtype=values.dtype, device=values.device)
    for samples in values.split(max(JACOBIAN_VALUES // (n_out * values.shape[1]), 1)):
        part = jacobians(function, samples)
        total = total + (part if signed else part.square()).sum(dim=0)
    average = total / len(values)
    return average if signed else average.sqrt()


@gradients_on()
def encoder_jacobians(encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute the Jacobian of each code vector by the features, of shape (n, n_features, n_components)."""
    x = _differentiable(x)
    features = encode(x).unbind(dim=1)
    slopes_of = [torch.autograd.grad(one.sum(), x, retain_graph=True, materialize_grads=True)[0] for one in features]
    return torch.stack(slopes_of, dim=2)


def all_within(limit: Tensor, values: Tensor) -> bool:
    """Return whether no sample exceeds a limit in any feature; faster than a comparison sample by sample."""
    return torch.equal(values.clamp(-limit, limit), values)


def samples_beyond(limit: Tensor, values: Tensor) -> Tensor:
    """Whether each sample exceeds a limit in any feature, of shape (n,)."""
    return values.abs().sub_(limit).amax(dim=1) > 0  # several times as fast as any() over comparisons


def nearness(values: Tensor, limit: Tensor) -> Tensor:
    """1 for samples within the limits, falling to 0 for samples at twice a limit or beyond, of shape (n, 1)."""
    return (2.0 - (values.abs() / limit).amax(dim=1, keepdim=True)).clamp(0.0, 1.0)
