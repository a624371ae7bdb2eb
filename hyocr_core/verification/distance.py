"""How far a quantized weight is from the original one."""

from __future__ import annotations

import torch
from torch import Tensor


def sqnr_db(expected: Tensor, found: Tensor) -> float | None:
    """10 log10 of the expected weight's energy over the difference's; None when there is no difference."""
    noise = (expected - found).double().square().sum()
    if noise == 0:
        return None
    ratio = expected.double().square().sum() / noise
    # A weight of zeros, or one that is infinite, has no finite ratio.
    return float(10 * torch.log10(ratio).clamp(-999, 999).nan_to_num(nan=-999))


def group_gains(expected: Tensor, found: Tensor, groups: int) -> Tensor:
    """Return (N, groups): what each group of an output's (N, K) weights was multiplied by; 1 where there is nothing."""
    left, right = (weight.reshape(len(weight), groups, -1) for weight in (expected, found))
    energy = left.square().sum(-1)
    return torch.where(energy == 0, 1, (left * right).sum(-1) / energy)
