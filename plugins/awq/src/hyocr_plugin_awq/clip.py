"""Where to clip a group of weights: a narrower grid has finer steps and pays with its largest values.

Lin et al. 2023 run calibration tokens through every candidate. Here the error d^T H d that a group's rounding errors d
add to its output, H the group's own block of the Hessian, stands for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hyocr_core.kit import Grid, one_thread
from hyocr_plugin_awq.columns import piece_grid, pieces, rounded

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_awq.config import AwqConfig

RATIOS = (1.0, 1.06, 1.03, *(round(0.97 - 0.03 * step, 2) for step in range(16)))
"""Shares of a group's range that are tried. Symmetric codes reach one step further down than up, so that more than the
whole range can pay."""


def clipped_grid(columns: Tensor, hessian: Tensor, dtype: torch.dtype, config: AwqConfig) -> Grid:
    """Choose the grid of `columns` (K, N) fp32 with the least output error of each group; scales are in `dtype`.

    hessian: (K, K) fp32, of which only the blocks of the groups matter.
    """
    groups = 1 if config.group_size == -1 else len(columns) // config.group_size
    scales = torch.empty(groups, columns.shape[1], dtype=dtype, device=columns.device)
    zeros = torch.empty(scales.shape, dtype=torch.uint8, device=columns.device)
    with one_thread():
        for group, rows, outputs in pieces(columns, config.group_size):
            grid = _best(columns[rows, outputs].contiguous(), hessian[rows, rows], dtype, config)
            scales[group, outputs], zeros[group, outputs] = grid.scales[0], grid.zeros[0]
    return Grid(scales, zeros, 2**config.bits - 1)


def _best(piece: Tensor, hessian: Tensor, dtype: torch.dtype, config: AwqConfig) -> Grid:
    """The grid, one group of n outputs, whose ratio has the least error on `piece` (g, n); hessian: (g, g)."""
    best = piece_grid(piece, dtype, config)
    least = _errors(piece, best, hessian)
    for ratio in RATIOS[1:]:
        grid = piece_grid(piece, dtype, config, ratio)
        errors = _errors(piece, grid, hessian)
        better = errors < least
        least = torch.where(better, errors, least)
        scales, zeros = (
            torch.where(better, new, old) for new, old in ((grid.scales, best.scales), (grid.zeros, best.zeros))
        )
        best = Grid(scales, zeros, grid.max_code)
    return best


def _errors(piece: Tensor, grid: Grid, hessian: Tensor) -> Tensor:
    """d^T H d of each output, (n,), for the errors d of rounding `piece` (g, n)."""
    errors = rounded(piece, grid).sub_(piece)
    return (hessian @ errors).mul_(errors).sum(0)
