"""Scales and codes of E4M3 as pure functions on tensors (Micikevicius et al. 2022, arXiv 2209.05433)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit import E4M3_MAX, Factor, round_to_e4m3_, walk_columns

if TYPE_CHECKING:
    from torch import Tensor


BLOCK_SIZE = 128


def scales_of(largest: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the scales, in the `dtype` in which they are stored, that bring absolute values up to `largest` to 448.

    Never zero: 1 where `largest` is, the smallest normal number where the scale would vanish in `dtype`.
    """
    scales = torch.where(largest == 0, 1.0, largest.float() / E4M3_MAX).to(dtype)
    return torch.where(scales == 0, torch.finfo(dtype).smallest_normal, scales)


def encode(weight: Tensor, scales: Tensor) -> Tensor:
    """Return the codes of a weight, (N, K) float8_e4m3fn, for scales () or (N, 1) as they are stored; never NaN.

    Divides in fp32: in bf16 the quotient would be rounded before it is rounded to a code.
    """
    # A scale that was rounded down puts the largest weights just above 448.
    return (weight.float() / scales.float()).clamp_(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def encode_making_up(weights: Sequence[Tensor], scales: Sequence[Tensor], factor: Factor) -> list[Tensor]:
    """The same for weights that share an input, the codes of each channel making up for the errors of those before it.

    factor: of the damped Hessian of the inputs (GPTQ), see `hyocr_core.kit.damped_factor`.
    """
    outputs = [len(weight) for weight in weights]
    columns = torch.cat([weight.detach() for weight in weights]).T.float().contiguous()
    pairs = zip(scales, outputs, strict=True)
    each = torch.cat([own.float().expand(count, 1).flatten() for own, count in pairs])
    steps, one = torch.empty_like(columns), torch.ones((), device=columns.device)

    def settle(channel: int, target: Tensor, error: Tensor) -> None:
        # Casting a row there and back takes three times as long.
        step = round_to_e4m3_(torch.div(target, each, out=steps[channel]), one)
        error.addcmul_(step, each, value=-1)

    walk_columns(columns, factor, BLOCK_SIZE, settle)
    return [own.T.contiguous() for own in torch.split(steps.to(torch.float8_e4m3fn), outputs, 1)]
