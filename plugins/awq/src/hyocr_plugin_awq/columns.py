"""Weights as columns, (K, N) fp32, cut into pieces that stay in the processor's cache, and rounded on plain grids.

A layer's grid spans the full range of each group; what clips it is in clip.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit import Grid, clipped_grid, decode, one_thread, round_to_nearest

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_awq.config import AwqConfig

PIECE = 2**17
"""Weights worked on at once: they and the intermediate results of rounding them stay in the processor's cache."""


def pieces(columns: Tensor, group_size: int) -> Iterator[tuple[int, slice, slice]]:
    """Cut `columns` (K, N): yield the number of a group, its rows, and some of its outputs."""
    size = len(columns) if group_size == -1 else group_size
    outputs = max(PIECE // size, 1)
    for group in range(len(columns) // size):
        for start in range(0, columns.shape[1], outputs):
            yield group, slice(group * size, (group + 1) * size), slice(start, start + outputs)


def full_range_grid(columns: Tensor, dtype: torch.dtype, config: AwqConfig) -> Grid:
    """The grid of `columns` (K, N) that spans each group; scales are in `dtype`."""
    return clipped_grid(columns, dtype, bits=config.bits, group_size=config.group_size, sym=config.sym)


def piece_grid(piece: Tensor, dtype: torch.dtype, config: AwqConfig, ratio: float = 1.0) -> Grid:
    """The grid that spans this share of a piece, (g, n), which is one group."""
    return clipped_grid(piece, dtype, bits=config.bits, group_size=-1, sym=config.sym, ratio=ratio)


def rounded(columns: Tensor, grid: Grid) -> Tensor:
    """The values of the grid nearest to `columns` (K, N), fp32."""
    return decode(round_to_nearest(columns, grid), grid).float()


def smoothed_errors(columns: Tensor, scales: Tensor, dtype: torch.dtype, config: AwqConfig) -> Tensor:
    """Return Q(W s) / s - W for columns W (K, N) and scales s (K,): (K, N) bf16, which is good to three digits.

    W s is rounded to `dtype` as folding the scales rounds it. Values that overflow become infinite or NaN.
    """
    errors = torch.empty(columns.shape, dtype=torch.bfloat16, device=columns.device)
    with one_thread():
        for _, rows, outputs in pieces(columns, config.group_size):
            piece, factors = columns[rows, outputs], scales[rows, None]
            folded = (piece * factors).to(dtype).float()
            values = rounded(folded, piece_grid(folded, dtype, config))
            errors[rows, outputs] = values.div_(factors).sub_(piece)
    return errors
