"""Which rows or codes are beyond the limits of those that were learnt from."""

import torch
from torch import Tensor


def all_within(limit: Tensor, values: Tensor) -> bool:
    """Whether no row exceeds a limit in any column; twice as fast as looking at each row, by far for a single one."""
    return torch.equal(values.clamp(-limit, limit), values)


def rows_beyond(limit: Tensor, values: Tensor) -> Tensor:
    """Whether each row exceeds a limit in any column, of shape (n,)."""
    return values.abs().sub_(limit).amax(dim=1) > 0  # several times as fast as any() over comparisons


def nearness(values: Tensor, limit: Tensor) -> Tensor:
    """1 for rows within the limits, falling to 0 for rows at twice a limit or beyond, of shape (n, 1)."""
    return (2.0 - (values.abs() / limit).amax(dim=1, keepdim=True)).clamp(0.0, 1.0)
