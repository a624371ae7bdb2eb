"""The grid of values a weight may take: scales and zero points per group, and rounding to it.

Weights here are columns, (K, N): row k holds what input channel k contributes to the N outputs. A group is `group_size`
neighbouring input channels of one output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit.checks import check_weights
from hyocr_core.kit.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.contract.types import Layer

CLIP_RATIOS = (1.0, 1.07, 0.94, 0.89, 0.84, 0.79, 0.74, 0.7, 0.65, 0.61)
"""Shares of a group's range that the search tries. Symmetric codes reach one step further down than up, so that more
than the whole range can pay: 1.07 gives the largest positive value its own code."""

OUTPUTS_AT_ONCE = 1024
"""Outputs fitted together: a group of so many stays in the processor's cache during the search."""


@dataclass(frozen=True)
class Grid:
    """A value is (code - zero) * scale with 0 <= code <= max_code.

    scales: (K / group_size, N), in the dtype in which they are stored.
    zeros: (K / group_size, N) uint8.
    """

    scales: Tensor
    zeros: Tensor
    max_code: int

    def split(self, outputs: list[int]) -> list[Grid]:
        """Cut the grid of layers side by side into one per layer."""
        parts = zip(torch.split(self.scales, outputs, 1), torch.split(self.zeros, outputs, 1), strict=True)
        return [replace(self, scales=scales, zeros=zeros) for scales, zeros in parts]


def join_columns(layers: Sequence[Layer]) -> Tensor:
    """Return weights side by side as columns, (K, sum of N) fp32; raise RunError naming one that is unusable."""
    check_weights(layers)
    return torch.cat([layer.weight.detach() for layer in layers]).T.contiguous().float()


def fit_grid(columns: Tensor, dtype: torch.dtype, *, bits: int, group_size: int, sym: bool, mse: bool) -> Grid:
    """Choose the grid of `columns` (K, N) fp32 with scales rounded to `dtype`.

    group_size: -1 for one group per output. mse: search the clipping range with the least squared error.
    """
    if not mse:
        return clipped_grid(columns, dtype, bits=bits, group_size=group_size, sym=sym)
    groups = _grouped(columns, len(columns) if group_size == -1 else group_size)
    scales = torch.empty(len(groups), columns.shape[1], dtype=dtype, device=columns.device)
    zeros = torch.empty(scales.shape, dtype=torch.uint8, device=columns.device)
    with one_thread():
        for index, group in enumerate(groups):
            for start in range(0, columns.shape[1], OUTPUTS_AT_ONCE):
                part = slice(start, start + OUTPUTS_AT_ONCE)
                scales[index, part], zeros[index, part] = _search(group[:, part], dtype, 2**bits - 1, sym)
    return Grid(scales, zeros, 2**bits - 1)


def clipped_grid(
    columns: Tensor, dtype: torch.dtype, *, bits: int, group_size: int, sym: bool, ratio: float = 1.0
) -> Grid:
    """The grid of `columns` (K, N) fp32 that reaches as far as this share of each group's range; else as `fit_grid`."""
    groups = _grouped(columns, len(columns) if group_size == -1 else group_size)
    low, high = _range(groups, 1, sym)
    scales, zeros = _span(low * ratio, high * ratio, dtype, 2**bits - 1, sym)
    return Grid(scales, zeros.to(torch.uint8), 2**bits - 1)


def round_to_nearest(columns: Tensor, grid: Grid) -> Tensor:
    """Return the codes, (K, N) uint8, of the grid's values nearest to `columns` (K, N) fp32."""
    groups = _grouped(columns, len(columns) // len(grid.scales))
    codes = (groups / grid.scales.float()[:, None]).round_().add_(grid.zeros[:, None]).clamp_(0, grid.max_code)
    return codes.to(torch.uint8).flatten(0, 1)


def decode(codes: Tensor, grid: Grid) -> Tensor:
    """Return the values of `codes` (K, N) uint8 in the dtype of the scales, rounded once, as the runtimes do."""
    dtype = grid.scales.dtype
    groups = _grouped(codes, len(codes) // len(grid.scales)).to(dtype)
    return (groups - grid.zeros[:, None].to(dtype)).mul_(grid.scales[:, None]).flatten(0, 1)


def _grouped(columns: Tensor, size: int) -> Tensor:
    return columns.reshape(-1, size, columns.shape[1])


def _range(values: Tensor, dim: int, sym: bool) -> tuple[Tensor, Tensor]:
    """The least and the largest value along a dimension, zero always between them."""
    low, high = values.amin(dim).clamp_(max=0), values.amax(dim).clamp_(min=0)
    if sym:
        high = torch.maximum(-low, high)
        low = -high
    return low, high


def _search(group: Tensor, dtype: torch.dtype, max_code: int, sym: bool) -> tuple[Tensor, Tensor]:
    """Return scales and zeros, (N,) each, of the clipping ratio with the least squared error on a group (g, N)."""
    low, high = _range(group, 0, sym)
    scales, zeros = _span(low, high, dtype, max_code, sym)
    scratch = torch.empty_like(group)
    least = _error(group, scales, zeros, max_code, scratch)
    for ratio in CLIP_RATIOS[1:]:
        other_scales, other_zeros = _span(low * ratio, high * ratio, dtype, max_code, sym)
        error = _error(group, other_scales, other_zeros, max_code, scratch)
        better = error < least
        least = torch.where(better, error, least)
        scales = torch.where(better, other_scales, scales)
        zeros = torch.where(better, other_zeros, zeros)
    return scales, zeros


def _span(low: Tensor, high: Tensor, dtype: torch.dtype, max_code: int, sym: bool) -> tuple[Tensor, Tensor]:
    """Return scales in `dtype` and zeros fp32 of grids from `low` to `high`, all of one shape."""
    scales = ((high - low) / max_code).to(dtype)
    # All values of such a group are zero (or vanish in `dtype`): any scale will do, but 0 / 0 would not.
    scales = torch.where(scales == 0, 1, scales)
    if sym:
        return scales, torch.full_like(high, (max_code + 1) // 2)
    return scales, (-low / scales.float()).round_().clamp_(0, max_code)


def _error(group: Tensor, scales: Tensor, zeros: Tensor, max_code: int, scratch: Tensor) -> Tensor:
    """Return the sums of squared rounding errors, (N,), of a group (g, N); overwrites `scratch` (g, N)."""
    steps = scales.float()
    torch.div(group, steps, out=scratch).round_().clamp_(-zeros, max_code - zeros)
    torch.addcmul(group, scratch, steps, value=-1, out=scratch)
    return scratch.square_().sum(0)
