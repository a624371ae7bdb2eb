"""Static scales from what passed by: the largest value, a percentile, or the range of least squared error.

Absolute values are counted by their bf16 bits, of which there are 2^15: an exact histogram of bf16 activations in
256 KiB, whatever the number of tokens; fp16 and fp32 values are counted to within 2^-9 of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hyocr_core import Collected, Stat
from hyocr_core.kit import is_finite, one_thread, round_to_e4m3_
from hyocr_plugin_fp8.config import DEFAULT_PERCENTILE
from hyocr_plugin_fp8.fp8 import scales_of

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_fp8.config import Fp8Config

MAGNITUDES = 2**15

SAMPLED = 16
"""Where only the largest value matters, every so many tokens are counted, for the reported error."""

RANGES = tuple(2 ** (step / 16) for step in (0, *range(-1, -65, -1), *range(1, 17)))
"""Shares of the largest value that `mse` tries, the whole first. E4M3 is a float, so more than the whole can pay: it
moves the bulk of the values to another place between two powers of two."""


@dataclass(frozen=True)
class Fit:
    """scale: (), as it is stored. error: Frobenius norm of the rounding errors relative to that of the values."""

    scale: Tensor
    error: Tensor

    @classmethod
    def of(cls, largest: Tensor, counts: Tensor, config: Fp8Config, dtype: torch.dtype) -> Fit | None:
        """Return the scale that `config.observer` chooses, in `dtype`; None when what was seen is not finite.

        largest, counts: as `Magnitudes` collects them.
        """
        if not is_finite(largest):
            return None
        present = counts.nonzero().flatten()
        values = present.to(torch.int16).view(torch.bfloat16).float()
        with one_thread():
            return fit_scale(values, counts[present], largest, config, dtype)


class Magnitudes:
    """Absolute values seen so far: the largest, and how often each occurred, weighted as its tokens are.

    every: count one row in so many.
    """

    def __init__(self, *, every: int) -> None:
        self._largest: Tensor | None = None
        self._every = every
        self._counts: Tensor | None = None

    def add(self, values: Tensor, weights: Tensor | None = None, offset: int = 0) -> None:
        """Take note of activations (..., tokens, C); the largest value of all rows, the counts of one row in `every`.

        weights: of the tokens, (tokens,); None: all 1. offset: the first row to count, modulo `every`; another one for
        every sample, so that the first token of each, often far larger, gets no more than its share.
        """
        if values.numel() == 0:
            return
        rows = values.flatten(0, -2)
        picked = slice(offset % min(self._every, len(rows)), None, self._every)
        of_rows = None if weights is None else weights.expand(values.shape[:-1]).flatten()[picked]
        with one_thread():
            low, high = torch.aminmax(rows)
            counts = _count_magnitudes(rows[picked], of_rows)
        largest = torch.maximum(-low, high).float()
        self._largest = largest if self._largest is None else torch.maximum(self._largest, largest)
        self._counts = counts if self._counts is None else self._counts + counts

    def collected(self, prefix: str) -> Collected | None:
        """The largest value, () fp32, and the counts, (MAGNITUDES,); None when nothing was seen."""
        if self._largest is None or self._counts is None:
            return None
        return {f"{prefix}_largest": Stat(self._largest, "max"), f"{prefix}_counts": Stat(self._counts, "sum")}


def _count_magnitudes(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return how often each absolute value occurs: (MAGNITUDES,) int64, by the bits of bf16 without their sign.

    In this order the values ascend from 0. With weights (rows,) of the rows of `values` (rows, C) it is the sum of the
    weights of those it occurs in, fp64.
    """
    bits = values.to(torch.bfloat16).contiguous().view(torch.int16) & 0x7FFF
    of_values = None if weights is None else weights.double()[:, None].expand(values.shape).flatten()
    if bits.device.type == "cpu":
        return torch.bincount(bits.flatten(), of_values, minlength=MAGNITUDES)
    # The host would wait until bincount has looked for the largest number.
    each = torch.ones_like(bits, dtype=torch.int64).flatten() if of_values is None else of_values
    return torch.zeros(MAGNITUDES, dtype=each.dtype, device=bits.device).scatter_add_(0, bits.flatten().long(), each)


def fit_scale(values: Tensor, counts: Tensor, largest: Tensor, config: Fp8Config, dtype: torch.dtype) -> Fit:
    """Choose the scale, in `dtype`, of absolute values: `values` (V,) fp32, ascending, `counts` (or weights) of each.

    largest: of all, () fp32; `counts` may be of a part of them.
    """
    if config.observer == "mse":
        scale = least_error_scale(values, counts, largest, dtype)
    elif config.observer == "percentile":
        scale = scales_of(percentile(values, counts, config.percentile or DEFAULT_PERCENTILE), dtype)
    else:
        scale = scales_of(largest, dtype)
    energy = (values.double().square() * counts).sum()
    error = (squared_error(values, counts, scale) / energy).sqrt() if energy > 0 else energy
    return Fit(scale, error)


def percentile(values: Tensor, counts: Tensor, percent: float) -> Tensor:
    """Return the smallest of `values`, ascending, that `percent` of all counts do not exceed: nearest rank, ().

    When that is zero, return the largest value: almost all zeros say nothing about the range of the others.
    """
    reached = counts.cumsum(0)
    rank = torch.minimum(reached[-1].double() * percent / 100, reached[-1])
    found = values[torch.searchsorted(reached.double(), rank)]
    return torch.where(found > 0, found, values[-1])


def least_error_scale(values: Tensor, counts: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the scale, () in `dtype`, of the range among RANGES that rounds `values` with the least squared error."""
    scales = [scales_of(largest * share, dtype) for share in RANGES]
    errors = torch.stack([squared_error(values, counts, scale) for scale in scales])
    return scales[int(errors.argmin())]


def squared_error(values: Tensor, counts: Tensor, scale: Tensor) -> Tensor:
    """Return the sum of the squared errors of rounding each of `values` (V,) fp32, `counts` times: () fp64."""
    rounded = round_to_e4m3_(values.clone(), scale.float())
    return ((values.double() - rounded).square_() * counts).sum()
