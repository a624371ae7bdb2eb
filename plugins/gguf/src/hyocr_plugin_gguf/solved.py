"""GPTQ on the grids of ggml: codes for columns (K, N), each corrected for the errors before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit import (
    Factor,
    Grid,
    fit_grid,
    fit_grid_by_solving,
    quantize_columns,
    round_to_nearest,
    walk_columns,
)
from hyocr_plugin_gguf.blocks import BITS, BLOCK, SYMMETRIC, pack_blocks, storable
from hyocr_plugin_gguf.k_quants import GROUP, Steps, fit_steps, pack_steps

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_gguf.config import GgufConfig


@dataclass(frozen=True)
class Solved:
    """blocks: (N, bytes) uint8. values: (K, N) fp32, what they hold; nearest: the same of rounding on that grid."""

    blocks: Tensor
    values: Tensor
    nearest: Tensor


def solve_blocks(columns: Tensor, hessian: Tensor, factor: Factor | None, kind: str, config: GgufConfig) -> Solved:
    """Quantize `columns` (K, N) fp32 to blocks of this type.

    They are rounded to nearest where there is no factor of the `hessian` (K, K) fp32.
    """
    if kind in GROUP:
        return _solve_steps(columns, hessian, factor, kind, config)
    if factor is None:
        grid = fit_grid(columns, torch.float16, bits=BITS[kind], group_size=BLOCK, sym=SYMMETRIC[kind], mse=True)
    else:
        grid = fit_grid_by_solving(
            columns,
            hessian,
            torch.float16,
            bits=BITS[kind],
            group_size=BLOCK,
            sym=SYMMETRIC[kind],
            damp_percent=config.damp_percent,
            desc_act=config.desc_act,
        )
    grid = storable(grid, kind)
    nearest = round_to_nearest(columns, grid)
    codes = nearest if factor is None else quantize_columns(columns, factor, grid, config.block_size)
    return Solved(pack_blocks(codes, grid, kind), _values(codes, grid), _values(nearest, grid))


def _values(codes: Tensor, grid: Grid) -> Tensor:
    groups = codes.view(-1, BLOCK, codes.shape[1]).float()
    return ((groups - grid.zeros[:, None]) * grid.scales.float()[:, None]).view(codes.shape)


def _solve_steps(columns: Tensor, hessian: Tensor, factor: Factor | None, kind: str, config: GgufConfig) -> Solved:
    """Scales by the importance of the input channels, then codes by the solver."""
    weight = columns.T.contiguous()
    # Not zero anywhere: a group that no input reached is rounded like any other.
    importance = hessian.diagonal().clamp(min=1e-9 * float(hessian.diagonal().mean()) or 1.0)
    steps = fit_steps(weight, importance, kind)
    nearest = steps.codes(weight).T.contiguous()
    codes = nearest if factor is None else _walk(columns, factor, steps, config)
    blocks = pack_steps(codes.T.contiguous(), steps, kind)
    return Solved(blocks, _of_steps(codes, steps), _of_steps(nearest, steps))


def _walk(columns: Tensor, factor: Factor, steps: Steps, config: GgufConfig) -> Tensor:
    codes = torch.empty_like(columns)
    size = len(columns) // steps.scales.shape[1]
    scales, minima = steps.scales.T.contiguous(), steps.minima.T.contiguous()
    divisors = torch.where(scales == 0, torch.inf, scales)

    def settle(channel: int, target: Tensor, error: Tensor) -> None:
        group = channel // size
        code = torch.add(target, minima[group], out=codes[channel])
        code.div_(divisors[group]).round_().clamp_(steps.least, steps.most)
        error.sub_(torch.addcmul(-minima[group], code, scales[group]))

    walk_columns(columns, factor, config.block_size, settle)
    return codes


def _of_steps(codes: Tensor, steps: Steps) -> Tensor:
    groups = codes.view(steps.scales.shape[1], -1, codes.shape[1])
    return (groups * steps.scales.T[:, None] - steps.minima.T[:, None]).view(codes.shape)
