"""The grid of values a weight may take: scales and zero points per group, and rounding to it.

Weights here are columns, (K, N), as in gptq.py. A group is `group_size` neighbouring input channels of one output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

CLIP_RATIOS = (1.0, 1.07, 0.94, 0.89, 0.84, 0.79, 0.74, 0.7, 0.65, 0.61)
"""Shares of a group's range that the search tries. Symmetric codes reach one step further down than up, so that more
than the whole range can pay: 1.07 gives the largest positive value its own code."""


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


def fit_grid(
    columns: Tensor,
    dtype: torch.dtype,
    *,
    bits: int,
    group_size: int,
    sym: bool,
    mse: bool,
    importance: Tensor | None = None,
) -> Grid:
    """Choose the grid of `columns` (K, N) fp32 with scales rounded to `dtype`.

    group_size: -1 for one group per output. mse: search the clipping range with the least squared error.
    importance: (K,) weights of the input channels in that error; None for equal ones.
    """
    groups = _grouped(columns, len(columns) if group_size == -1 else group_size)
    weights = None if importance is None else importance.view(*groups.shape[:2], 1)
    ratios = CLIP_RATIOS if mse else CLIP_RATIOS[:1]
    max_code = 2**bits - 1
    # Group by group, because a search over one stays in the processor's cache.
    fitted = [
        _search(group, dtype, max_code, sym, ratios, None if weights is None else weights[index])
        for index, group in enumerate(groups)
    ]
    scales, zeros = (torch.stack(part) for part in zip(*fitted, strict=True))
    return Grid(scales, zeros.to(torch.uint8), max_code)


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


def _search(
    group: Tensor, dtype: torch.dtype, max_code: int, sym: bool, ratios: tuple[float, ...], weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the scales and zeros, both (N,), of the ratio with the least weighted error on a group (g, N)."""
    scales, zeros = _span(group, dtype, max_code, sym, ratios[0])
    if len(ratios) == 1:
        return scales, zeros
    least = _error(group, scales, zeros, max_code, weights)
    for ratio in ratios[1:]:
        candidate = _span(group, dtype, max_code, sym, ratio)
        error = _error(group, *candidate, max_code, weights)
        better = error < least
        least = torch.where(better, error, least)
        scales = torch.where(better, candidate[0], scales)
        zeros = torch.where(better, candidate[1], zeros)
    return scales, zeros


def _span(group: Tensor, dtype: torch.dtype, max_code: int, sym: bool, ratio: float) -> tuple[Tensor, Tensor]:
    """Return scales (N,) in `dtype` and zeros (N,) fp32 that reach over `ratio` of the range of a group (g, N)."""
    low, high = group.amin(0).clamp_(max=0), group.amax(0).clamp_(min=0)
    if sym:
        high = torch.maximum(-low, high)
        low = -high
    scales = ((high - low) * (ratio / max_code)).to(dtype)
    # All values of such a group are zero (or vanish in `dtype`): any scale will do, but 0 / 0 would not.
    scales = torch.where(scales == 0, 1, scales)
    if sym:
        return scales, torch.full_like(high, (max_code + 1) // 2)
    return scales, (-low * ratio / scales.float()).round_().clamp_(0, max_code)


def _error(group: Tensor, scales: Tensor, zeros: Tensor, max_code: int, weights: Tensor | None) -> Tensor:
    """Return the (weighted) sum of squared rounding errors, (N,), of a group (g, N)."""
    steps = scales.float()
    values = (group / steps).round_().add_(zeros).clamp_(0, max_code).sub_(zeros).mul_(steps)
    squares = values.sub_(group).square_()
    return squares.sum(0) if weights is None else squares.mul_(weights).sum(0)
