"""The grid that GPTQ itself does best on: each group is solved alone at several clipping ranges.

What the nearest rounding loses says little of what is left once later channels have taken up earlier ones' errors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit.grid import Grid, clipped_grid, decode
from hyocr_core.kit.solver import Factor, damped_factor, quantize_columns

if TYPE_CHECKING:
    from torch import Tensor

RATIOS = (1.0, 0.9, 0.8, 0.7)
"""Shares of a group's range that are tried. More of them gain nothing that can be told from noise."""

BLOCK_SIZE = 128


def fit_grid_by_solving(
    columns: Tensor,
    hessian: Tensor,
    dtype: torch.dtype,
    *,
    bits: int,
    group_size: int,
    sym: bool,
    damp_percent: float,
    desc_act: bool,
) -> Grid:
    """Choose the grid of `columns` (K, N) fp32, scales rounded to `dtype`, under their `hessian` (K, K) fp32.

    Of each group and output the range with the least e^T H e over the group's own channels, all others left exact.
    group_size: -1 for one group per output. damp_percent, desc_act: see `hyocr_core.kit.solve`. A group whose part of
    the Hessian has no Cholesky factor keeps its whole range.
    """
    tried = [clipped_grid(columns, dtype, bits=bits, group_size=group_size, sym=sym, ratio=ratio) for ratio in RATIOS]
    scales, zeros = torch.stack([grid.scales for grid in tried]), torch.stack([grid.zeros for grid in tried])
    groups, size = scales.shape[1], len(columns) // scales.shape[1]
    best = torch.zeros(scales.shape[1:], dtype=torch.int64, device=columns.device)
    for index in range(groups):
        part, row = slice(index * size, (index + 1) * size), slice(index, index + 1)
        factor = damped_factor(hessian[part, part], damp_percent=damp_percent, desc_act=desc_act)
        if factor is not None:
            losses = [
                _losses(columns[part], factor, replace(g, scales=g.scales[row], zeros=g.zeros[row])) for g in tried
            ]
            best[index] = torch.stack(losses).argmin(0)
    return Grid(scales.gather(0, best[None])[0], zeros.gather(0, best[None])[0], tried[0].max_code)


def _losses(columns: Tensor, factor: Factor, grid: Grid) -> Tensor:
    """What GPTQ leaves of each output's error, (N,), on one group of channels, (g, N), with this grid."""
    codes = quantize_columns(columns, factor, grid, BLOCK_SIZE)
    return factor.losses(columns - decode(codes, grid).float())
