"""Project samples onto the manifold of a decoder, and differentiate encoders and decoders."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skae._utils import gradients_on

# Number of steps of "auto". Most samples stop after four to six; a sample that lies on the manifold gets its code back
# to 1e-5 of the spread (median over held-out samples of digits, usps, letter and isolet at k = 2 to 16).
DEFAULT_STEPS = 16
# A sample stops where the next step is expected to lower its loss by less than this fraction. A smaller one gains less
# than .0002 of the variance on the same data, at a fifth more steps.
STEP_TOL = 1e-3
# A step counts if it lowers the loss by more than this fraction, so that rounding does not decide.
STEP_MARGIN = 1e-7
# Smallest loss that is improved, as a fraction of the loss of the mean.
SMALLEST_LOSS = 1e-12
# Bounds of a step length by secants, and what a step that does not count is shortened to.
SHORTEST, LONGEST, SHORTENED = 0.1, 10.0, 0.4
# Added to the diagonal of the metric, as a fraction of its mean: a code without effect does not move.
METRIC_RIDGE = 1e-3
# Number of values that the Jacobians of some samples may have at once.
JACOBIAN_VALUES = 1_000_000


class ProjectionState(NamedTuple):
    """State of the projection of samples.

    Attributes
    ----------
    z : Tensor of shape (n, n_components)
        Codes with the lowest losses so far.
    losses : Tensor of shape (n,)
        Losses of the codes.
    direction : Tensor of shape (n, n_components)
        Preconditioned gradients of the losses.
    length : Tensor of shape (n,)
        Lengths of the next steps.
    slope : Tensor of shape (n,)
        Expected decrease of the losses by a step of length one.
    moving : Tensor of bool of shape (n,)
        Whether the expected decrease is large enough for another step.
    """

    z: Tensor
    losses: Tensor
    direction: Tensor
    length: Tensor
    slope: Tensor
    moving: Tensor


class ReconstructionLoss:
    """Any loss of the reconstructions by any decoder.

    Parameters
    ----------
    decode : callable
        Maps codes to samples.
    per_sample : callable
        Maps reconstructions, samples and codes to losses of shape (n,).
    x : Tensor of shape (n, n_features)
        The samples.
    """

    def __init__(self, decode: Callable, per_sample: Callable, x: Tensor) -> None:
        self.decode = decode
        self.per_sample = per_sample
        self.x = x

    @torch.enable_grad()
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        losses = self.per_sample(self.decode(z), self.x, z)
        (gradient,) = torch.autograd.grad(losses.sum(), z)
        return losses.detach(), gradient

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The samples."""
        return (self.x,)

    def of(self, *tensors: Tensor) -> "ReconstructionLoss":
        """Return the loss of other samples."""
        return ReconstructionLoss(self.decode, self.per_sample, *tensors)


class QuadraticLoss:
    """Mean squared error of a decoder whose last layer is linear, without forming the reconstructions.

    With ``x_hat = h W^T + b`` the squared error is ``|x - b|^2 - 2 h (W^T (x - b)) + h (W^T W) h``: after one product
    with each sample, its cost does not depend on the number of features.

    Parameters
    ----------
    hidden : callable
        Maps codes to the inputs h of the last layer.
    gram : Tensor of shape (n_hidden, n_hidden)
        ``W^T W``.
    products : Tensor of shape (n, n_hidden)
        ``(x - b) W``.
    squares : Tensor of shape (n,)
        ``|x - b|^2``.
    n_features : int
        Number of features.
    """

    def __init__(self, hidden: Callable, gram: Tensor, products: Tensor, squares: Tensor, n_features: int) -> None:
        self.hidden = hidden
        self.gram = gram
        self.products = products
        self.squares = squares
        self.n_features = n_features

    @classmethod
    def of_samples(cls, hidden: Callable, weight: Tensor, bias: Tensor, x: Tensor) -> "QuadraticLoss":
        """Prepare the loss of samples x for a last layer with this weight, of shape (n_features, n_hidden)."""
        offsets = x - bias
        return cls(hidden, weight.T @ weight, offsets @ weight, offsets.square().sum(dim=1), x.shape[1])

    @torch.enable_grad()
    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z.detach().requires_grad_()
        h = self.hidden(z)
        values = h.detach()
        half = values @ self.gram
        losses = (self.squares + ((half - 2.0 * self.products) * values).sum(dim=1)) / self.n_features
        (gradient,) = torch.autograd.grad(h, z, (half - self.products) * (2.0 / self.n_features))
        return losses.clamp(min=0.0), gradient

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The products and squares of the samples."""
        return self.products, self.squares

    def of(self, *tensors: Tensor) -> "QuadraticLoss":
        """Return the loss of other samples."""
        products, squares = tensors
        return QuadraticLoss(self.hidden, self.gram, products, squares, self.n_features)


# Loss of each sample as a function of its code. A call with codes of shape (n, n_components) returns losses of shape
# (n,) and their gradients. The first dimension of ``tensors`` is that of the samples, and ``of`` returns the loss for
# other such tensors.
CodeLoss = ReconstructionLoss | QuadraticLoss


def project(loss: CodeLoss, starts: Sequence[Tensor], metric: Tensor, n_steps: int) -> Tensor:
    """Move codes toward the nearest points of the decoder's manifold.

    Each step goes along the gradient of the loss, preconditioned by one matrix for all samples; its length for a sample
    is that of the secant between its last two points [1]_. A step that does not lower the loss of a sample is taken
    back and shortened. Each sample stops by itself, so its code does not depend on the other samples.

    Parameters
    ----------
    loss : CodeLoss
        Loss of each sample and its gradient.
    starts : sequence of Tensor of shape (n, n_components)
        Codes to start from; each sample starts from the one that reconstructs it best.
    metric : Tensor of shape (n_components, n_components)
        The preconditioner.
    n_steps : int
        Largest number of steps.

    Returns
    -------
    Tensor of shape (n, n_components)
        The codes.

    References
    ----------
    .. [1] J. Barzilai, J. M. Borwein, "Two-point step size gradient methods", IMA Journal of Numerical Analysis 8
       (1988) 141-148. :doi:`10.1093/imanum/8.1.141`
    """
    state = first_state(loss, starts, metric)
    codes, kept = state.z, None  # kept: positions in codes of the samples that are still computed
    for _ in range(n_steps):
        index = state.moving.nonzero()[:, 0]
        if 4 * len(index) < 3 * len(state.z):  # leave out those that have stopped
            codes = state.z if kept is None else codes.index_copy(0, kept, state.z)
            kept = index if kept is None else kept[index]
            state = ProjectionState(*(values[index] for values in state))
            loss = loss.of(*(values[index] for values in loss.tensors))
        if len(index) == 0:
            break
        state = next_state(loss, state, metric)
    return state.z if kept is None else codes.index_copy(0, kept, state.z)


def first_state(loss: CodeLoss, starts: Sequence[Tensor], metric: Tensor) -> ProjectionState:
    """Choose the best start of each sample."""
    z, (losses, gradient) = starts[0], loss(starts[0])
    for other in starts[1:]:
        other_losses, other_gradient = loss(other)
        better = other_losses < losses
        z = torch.where(better[:, None], other, z)
        gradient = torch.where(better[:, None], other_gradient, gradient)
        losses = torch.where(better, other_losses, losses)
    direction = gradient @ metric
    slope = (gradient * direction).sum(dim=1)
    return ProjectionState(
        z, losses, direction, torch.ones_like(losses), slope, slope > STEP_TOL * losses + SMALLEST_LOSS
    )


def next_state(loss: CodeLoss, state: ProjectionState, metric: Tensor) -> ProjectionState:
    """Take a step with the samples that are still moving."""
    z, losses, direction, length, slope, moving = state
    moved = z - length[:, None] * direction
    moved_losses, gradient = loss(moved)
    moved_direction = gradient @ metric
    better = moving & (moved_losses < (1.0 - STEP_MARGIN) * losses)
    dz, dp = moved - z, moved_direction - direction
    secant = (dz * dp).sum(dim=1).abs() / dp.square().sum(dim=1).clamp(min=torch.finfo(z.dtype).tiny)
    length = torch.where(better, secant.clamp(SHORTEST, LONGEST), SHORTENED * length)
    slope = torch.where(better, (gradient * moved_direction).sum(dim=1), slope)
    z = torch.where(better[:, None], moved, z)
    direction = torch.where(better[:, None], moved_direction, direction)
    losses = torch.where(better, moved_losses, losses)
    moving = moving & (length * slope > STEP_TOL * losses + SMALLEST_LOSS)
    return ProjectionState(z, losses, direction, length, slope, moving)


def metric_of(loss: CodeLoss, z: Tensor, jacobians: Tensor) -> Tensor:
    """Compute the preconditioner of `project`: the inverse of the mean of J^T J, in units of the loss.

    Parameters
    ----------
    loss : CodeLoss
        Loss of some training samples.
    z : Tensor of shape (n, n_components)
        Their codes.
    jacobians : Tensor of shape (n_components, n_components)
        Mean of J^T J over them, J being the Jacobian of the decoder.

    Returns
    -------
    Tensor of shape (n_components, n_components)
        Such that the first steps of these samples have about the length that secants give them.
    """
    ridge = METRIC_RIDGE * jacobians.diagonal().mean().clamp(min=torch.finfo(z.dtype).tiny)
    metric = torch.linalg.inv(jacobians + ridge * torch.eye(len(jacobians), dtype=z.dtype, device=z.device))
    direction = loss(z)[1] @ metric
    size = direction.norm(dim=1).median().clamp(min=torch.finfo(z.dtype).tiny)
    step = 1e-3 * z.std(dim=0, correction=0).norm().clamp(min=1e-6) / size
    change = loss(z - step * direction)[1] @ metric - direction
    lengths = step * (direction * change).sum(dim=1).abs() / change.square().sum(dim=1).clamp(min=1e-300)
    return metric * lengths.nan_to_num(1.0, posinf=1.0).median()


def mean_gauss_newton(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Compute the mean of J^T J over codes z, J being the decoder's Jacobian, of shape (n_components, n_components)."""
    with torch.no_grad():
        n_values = decode(z[:1]).shape[1] * z.shape[1]
        total = torch.zeros((z.shape[1], z.shape[1]), dtype=z.dtype, device=z.device)
        for part in z.split(max(JACOBIAN_VALUES // n_values, 1)):
            jacobians = decoder_jacobians(decode, part)
            total += torch.einsum("ndk,ndl->kl", jacobians, jacobians)
        return total / len(z)


def decoder_jacobians(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Compute the Jacobian of each reconstruction by its code, of shape (n, n_features, n_components).

    Some layers of custom modules have no second derivatives, such as attention and distances, and recurrent layers on a
    GPU have no derivatives in evaluation mode. For these, finite differences are used.
    """
    try:
        return _by_two_passes(decode, z)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return _by_differences(decode, z)


def _differentiable(values: Tensor) -> Tensor:
    """Return values that require gradients, also for tensors created in inference mode."""
    return (values.clone() if values.is_inference() else values).detach().requires_grad_()


@torch.no_grad()
def _by_differences(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Compute central differences, with steps for which errors by rounding and by curvature are similar."""
    features = []
    for index in range(z.shape[1]):
        step = torch.finfo(z.dtype).eps ** (1 / 3) * z[:, index].abs().clamp(min=1.0)
        up, down = z.clone(), z.clone()
        up[:, index] += step
        down[:, index] -= step
        features.append((decode(up) - decode(down)) / (up - down)[:, index, None])
    return torch.stack(features, dim=2)


@gradients_on()
def _by_two_passes(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Compute the Jacobians by two backward passes, which more layers support than forward derivatives."""
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
    """Compute the mean of the derivatives of a function over samples, or the root mean square if not signed."""
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
