"""Trace functions of tensors, with their derivatives, into ONNX graphs."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

# Operator set and version of the file format, which onnxruntime has known since 2023.
OPSET, IR_VERSION = 18, 8
# Number of samples of an example, unlike any other size of a network: it stands for any number.
EXAMPLE_SAMPLES = 7
# Coefficients of rational approximations of the error function, W. J. Cody, "Rational Chebyshev approximations for the
# error function", Mathematics of Computation 23 (1969) 631-637: numerators and denominators, lowest power first, for
# arguments up to 0.46875, up to 4, and above.
SMALL = (
    (
        3.20937758913846947e03,
        3.77485237685302021e02,
        1.13864154151050156e02,
        3.16112374387056560e00,
        1.85777706184603153e-1,
    ),
    (2.84423683343917062e03, 1.28261652607737228e03, 2.44024637934444173e02, 2.36012909523441209e01, 1.0),
)
MEDIUM = (
    (
        1.23033935479799725e03,
        2.05107837782607147e03,
        1.71204761263407058e03,
        8.81952221241769090e02,
        2.98635138197400131e02,
        6.61191906371416295e01,
        8.88314979438837594e00,
        5.64188496988670089e-1,
        2.15311535474403846e-8,
    ),
    (
        1.23033935480374942e03,
        3.43936767414372164e03,
        4.36261909014324716e03,
        3.29079923573345963e03,
        1.62138957456669019e03,
        5.37181101862009858e02,
        1.17693950891312499e02,
        1.57449261107098347e01,
        1.0,
    ),
)
LARGE = 4.0
ROOT_OF_PI = 1.7724538509055160273


def exported(function: Callable, examples: Sequence[Tensor]) -> Any:
    """Trace a function of tensors into an ONNX model.

    Parameters
    ----------
    function : callable
        Maps tensors to a tuple of tensors. The first dimension of each is the number of samples.
    examples : sequence of Tensor
        Arguments of any numbers of samples.

    Returns
    -------
    onnx.ModelProto
        The model, whose inputs are in the order of the arguments.

    Raises
    ------
    ImportError
        If onnxscript is not installed.
    NotImplementedError
        If something in the function has no translation.
    """
    check_packages()
    examples = [example.detach().clone() for example in examples]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's exporter about itself
        try:
            traced = make_fx(function, cast(Any, DECOMPOSITIONS), tracing_mode="symbolic", _allow_non_fake_inputs=True)(
                *examples
            )
            _keep_precision(traced, examples[0].dtype)
            shapes = tuple({0: torch.export.Dim("n_samples")} for _ in examples)
            program = torch.export.export(traced, tuple(examples), dynamic_shapes=shapes, strict=False)
            return cast(Any, torch.onnx.export(program, opset_version=OPSET, dynamo=True, verbose=False)).model_proto
        except Exception as error:
            reason = str(error).strip().splitlines()
            raise NotImplementedError(
                f"The network cannot be converted to ONNX: {type(error).__name__}: {reason[0] if reason else ''} A "
                "custom module must consist of operations that torch.onnx.export translates; with projection_steps=0 "
                "only its encoder is converted."
            ) from error


def _keep_precision(traced: torch.fx.GraphModule, dtype: torch.dtype) -> None:
    """Replace numbers in operations by tensors, because torch's exporter rounds numbers to single precision."""
    if dtype != torch.float64:
        return
    for node in list(traced.graph.nodes):
        if node.target not in OF_TENSORS:
            continue
        arguments = []
        for value in node.args:
            if isinstance(value, float):
                name = f"number_{len(list(traced.buffers()))}"
                traced.register_buffer(name, torch.tensor(value, dtype=dtype))
                with traced.graph.inserting_before(node):
                    value = traced.graph.get_attr(name)
            arguments.append(value)
        if any(new is not old for new, old in zip(arguments, node.args, strict=True)):
            node.target, node.args = OF_TENSORS[node.target], tuple(arguments)
    traced.recompile()


def check_packages() -> None:
    """Check that everything is installed that the export needs.

    Raises
    ------
    ImportError
        If it is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('skae.onnx needs the packages onnx and onnxscript: pip install "skae[onnx]".') from error


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """Evaluate a polynomial by Horner's scheme."""
    value = x * coefficients[-1] + coefficients[-2]
    for coefficient in reversed(coefficients[:-2]):
        value = value * x + coefficient
    return value


def erf(x: Tensor) -> Tensor:
    """Compute the error function of each value from operations that onnxruntime has in double precision, to 5e-14."""
    size = x.abs()
    squares = (size * size).clamp(max=0.25)
    small = x * polynomial(squares, SMALL[0]) / polynomial(squares, SMALL[1])
    bounded = size.clamp(max=LARGE)
    ratio = polynomial(bounded, MEDIUM[0]) / polynomial(bounded, MEDIUM[1])
    medium = 1.0 - torch.exp(-bounded * bounded) * ratio
    beyond = 1.0 - torch.exp(-size * size) / (ROOT_OF_PI * size.clamp(min=LARGE)) * _tail(size.clamp(min=LARGE))
    return torch.where(size < 0.46875, small, torch.sign(x) * torch.where(size < LARGE, medium, beyond))


def _tail(x: Tensor) -> Tensor:
    """Asymptotic series of the complementary error function relative to its first term, for arguments above 4."""
    y = 1.0 / (2.0 * x * x)
    return polynomial(y, (1.0, -1.0, 3.0, -15.0, 105.0, -945.0, 10395.0))


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Compute GELU from the error function."""
    if approximate != "none":
        return NotImplemented
    return 0.5 * x * (1.0 + torch.erf(x * 0.5**0.5))


def gelu_backward(gradient: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    """Compute the gradient of GELU from the error function."""
    if approximate != "none":
        return NotImplemented
    density = torch.exp(-0.5 * x * x) / (2.0 * torch.pi) ** 0.5
    return gradient * (0.5 * (1.0 + torch.erf(x * 0.5**0.5)) + x * density)


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list,
    padding: list,
    dilation: list,
    transposed: bool,
    output_padding: list,
    groups: int,
    mask: list,
) -> tuple:
    """Compute the gradient of a convolution by its input: a transposed convolution, or the other way round."""
    if mask[1] or mask[2]:
        return NotImplemented
    convolve = torch.ops.aten.convolution.default
    if transposed:
        return convolve(gradient, weight, None, stride, padding, dilation, False, [0, 0], groups), None, None
    sides = [
        size - ((out - 1) * step - 2 * pad + wide * (kernel - 1) + 1)
        for size, out, step, pad, wide, kernel in zip(
            x.shape[2:], gradient.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True
        )
    ]
    return convolve(gradient, weight, None, stride, padding, dilation, True, sides, groups), None, None


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list,
    padding: list,
    dilation: list,
    transposed: bool,
    output_padding: list,
    groups: int,
) -> Tensor:
    """Compute a convolution of images as one product for each place in the filter; onnxruntime has none in double."""
    if x.dtype != torch.float64 or groups != 1 or set(dilation) != {1} or x.dim() != 4:
        return NotImplemented
    pads = [(pad, pad) for pad in padding]
    if transposed:  # a convolution of the image with zeros between its values
        height, width = (size * step for size, step in zip(x.shape[2:], stride, strict=True))
        x = torch.nn.functional.pad(x[:, :, :, None, :, None], (0, stride[1] - 1, 0, 0, 0, stride[0] - 1))
        x = x.reshape(-1, weight.shape[0], height, width)[:, :, : height - stride[0] + 1, : width - stride[1] + 1]
        weight, stride = weight.flip(2, 3).transpose(0, 1), [1, 1]
        ends = zip(weight.shape[2:], padding, output_padding, strict=True)
        pads = [(size - 1 - pad, size - 1 - pad + more) for size, pad, more in ends]
    x = torch.nn.functional.pad(x, (*pads[1], *pads[0]))
    sides = [
        (size - kernel) // step + 1 for size, kernel, step in zip(x.shape[2:], weight.shape[2:], stride, strict=True)
    ]
    result: Any = None
    for row, column in itertools.product(*map(range, weight.shape[2:])):
        rows, columns = (
            slice(first, first + (side - 1) * step + 1, step)
            for first, side, step in zip((row, column), sides, stride, strict=True)
        )
        term = torch.matmul(weight[:, :, row, column], x[:, :, rows, columns].flatten(2))
        result = term if result is None else result + term
    result = result.reshape(-1, weight.shape[0], *sides)
    return result if bias is None else result + bias[:, None, None]


def solve(A: Tensor, b: Tensor) -> Tensor:
    """Solve systems of positive definite matrices A, of shape (n, k, k), by Gaussian elimination."""
    k = b.shape[1]
    rows = [torch.cat([A[:, i], b[:, i : i + 1]], dim=1) for i in range(k)]
    for i in range(k):
        rows[i] = rows[i] / rows[i][:, i : i + 1]
        rows = [row if j == i else row - row[:, i : i + 1] * rows[i] for j, row in enumerate(rows)]
    return torch.stack([row[:, k] for row in rows], dim=1)


def elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    """Compute ELU, which onnxruntime does not have in double precision."""
    return scale * torch.where(x > 0, x, alpha * torch.expm1(input_scale * x.clamp(max=0.0)))


aten = torch.ops.aten
# What torch's exporter does not know, and what onnxruntime does not have in double precision. For derivatives torch has
# decompositions of its own.
DECOMPOSITIONS = {
    **get_decompositions(
        [
            aten.native_layer_norm,
            aten.native_layer_norm_backward,
            aten.native_group_norm,
            aten.native_group_norm_backward,
            aten.elu_backward,
            aten.silu_backward,
            aten.sigmoid_backward,
            aten.tanh_backward,
            aten.threshold_backward,
            aten.leaky_relu_backward,
            aten.softplus_backward,
            aten.hardtanh_backward,
            aten.huber_loss,
            aten.huber_loss_backward,
            aten.smooth_l1_loss_backward,
            aten.mse_loss_backward,
            aten._softmax_backward_data,
            aten._log_softmax_backward_data,
        ]
    ),
    aten.elu.default: elu,
    aten.gelu.default: gelu,
    aten.gelu_backward.default: gelu_backward,
    aten.convolution.default: convolution,
    aten.convolution_backward.default: convolution_backward,
}
# Operations of tensors and numbers, and the same of tensors alone.
OF_TENSORS = {
    aten.add.Tensor: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.clamp.default: aten.clamp.Tensor,
    aten.gt.Scalar: aten.gt.Tensor,
    aten.lt.Scalar: aten.lt.Tensor,
    aten.ge.Scalar: aten.ge.Tensor,
    aten.le.Scalar: aten.le.Tensor,
}
