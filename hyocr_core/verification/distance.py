"""How far a quantized weight is from the original one."""

from __future__ import annotations

import torch
from torch import Tensor

from hyocr_core.formats import Levels

TAIL = 16
"""Among so many of the largest errors of a layer is looked for one that stands apart from the next."""

APART = ((3.0, 3.0), (5.0, 1.6))
"""An error of more steps than the first that is so many times the next one is none that a method makes. Nearest
rounding errs by a step at most; what GPTQ hands on adds up to nine, but one is then 1.45 times the next at most."""


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


def gain(expected: Tensor, found: Tensor) -> float:
    """What the whole weight was multiplied by."""
    return float(group_gains(expected.double().reshape(1, -1), found.double().reshape(1, -1), 1))


def shift(errors: Tensor, groups: int) -> float:
    """The median over all groups of their mean error; errors: (N, K), in steps."""
    return float(errors.reshape(len(errors), groups, -1).mean(-1).median())


def apart(errors: Tensor, levels: Levels) -> Tensor:
    """Return (N, K) bool: the few errors, in steps, that are far larger than all others.

    What was clipped, and so ends at the last value before the original's, is left out.
    """
    clipped = (levels.lowest & (errors > 0)) | (levels.highest & (errors < 0))
    sizes = errors.abs().masked_fill_(clipped, 0)
    largest = sizes.flatten().topk(min(TAIL + 1, sizes.numel())).values
    first, next_ = largest[:-1], largest[1:]
    gaps = torch.stack([(first > steps) & (first > times * next_) for steps, times in APART]).any(0)
    return sizes >= first[gaps].min() if gaps.any() else torch.zeros_like(clipped)
