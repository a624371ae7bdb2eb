"""How far a quantized weight may be from the original one, by what stores it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hyocr_core.formats import Format, GptqFormat, PackQuantizedFormat
from hyocr_core.formats.fp8 import CompressedFp8Format, Fp8Format
from hyocr_core.verification.own_format import OwnFormat


@dataclass(frozen=True)
class Bound:
    """decibels: the least signal-to-quantization-noise ratio of a layer.

    low, high: what a group of weights may be scaled by, found by projecting it on the original group.
    GPTQ trades the error of a weight for that of the output and a clipped range cuts single weights off, so that both
    must be generous; a doubled or halved scale, a wrong layer and a wrong zero point are still far outside.
    """

    decibels: float
    low: float
    high: float


FOUR_BITS = Bound(7.0, 0.58, 1.55)
EIGHT_BITS = Bound(26.0, 0.85, 1.18)
ANY_BITS = Bound(3.0, 0.58, 1.55)
"""Signs alone, times their best scale, keep 4.4 dB of normally distributed weights and 0.64 of their size."""


def bound_of(written: Format | OwnFormat) -> Bound:
    """FP8 keeps three bits of mantissa, which is as good as 8-bit integers are at least."""
    match written:
        case Fp8Format() | CompressedFp8Format() | GptqFormat(bits=8) | PackQuantizedFormat(bits=8):
            return EIGHT_BITS
        case OwnFormat():
            return ANY_BITS
        case _:
            return FOUR_BITS


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
