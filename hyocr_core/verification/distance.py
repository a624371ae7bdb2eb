"""How far a quantized weight is from the original one."""

from __future__ import annotations

import torch
from torch import Tensor

from hyocr_core.formats import Levels

TAIL = 4
"""Among so many of the largest errors of a layer is looked for one that stands apart from the next."""

STEPS, APART = 3.0, 2.0
"""An error of more steps that is so many times the next one is none that a method makes. Rounding to nearest errs by a
step at most. What GPTQ hands on adds up to fourteen steps, in inputs and outputs where it errs anyway: measured by what
is usual there, none was 1.7 times the next in 2000 layers."""

QUIET = 0.3
"""The usual error, in steps, of rounding to nearest."""


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


def dwarfed(weight: Tensor, groups: int, times: float) -> Tensor:
    """Return (N, groups) bool: groups in which nothing comes within 1 / `times` of their output's largest weight."""
    largest = weight.abs().reshape(len(weight), groups, -1).amax(-1)
    return largest * times < largest.amax(1, keepdim=True)


def shift(errors: Tensor, groups: int) -> float:
    """The median over all groups of their mean error; errors: (N, K), in steps."""
    return float(errors.reshape(len(errors), groups, -1).mean(-1).median())


def apart(errors: Tensor, levels: Levels) -> Tensor:
    """Return (N, K) bool: the few errors, in steps, that are far larger than is usual in their input and output.

    What was clipped, and so ends at the last value before the original's, is left out.
    """
    clipped = (levels.lowest & (errors > 0)) | (levels.highest & (errors < 0))
    sizes = errors.abs().masked_fill_(clipped, 0)
    usual = torch.maximum(_rms_of_others(sizes, 0), _rms_of_others(sizes, 1)).clamp_(min=QUIET)
    scores = sizes / usual
    largest = scores.flatten().topk(min(TAIL + 1, scores.numel()))
    first, next_ = largest.values[:-1], largest.values[1:]
    gaps = (sizes.flatten()[largest.indices[:-1]] > STEPS) & (first > APART * next_)
    return scores >= first[gaps].min() if gaps.any() else torch.zeros_like(clipped)


def _rms_of_others(sizes: Tensor, dim: int) -> Tensor:
    """The root of the mean square along a dimension, without the largest."""
    squares = sizes.square()
    others = squares.sum(dim, keepdim=True) - squares.amax(dim, keepdim=True)
    return (others / max(1, sizes.shape[dim] - 1)).sqrt()
