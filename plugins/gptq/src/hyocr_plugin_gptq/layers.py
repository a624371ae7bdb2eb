"""From layers of the core to columns, through the solver, and back to quantized layers with their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, Stats
from hyocr_core.kit import (
    DAMPING_STEPS,
    Grid,
    checked_hessian,
    fit_grid,
    integer_layer,
    join_columns,
    output_errors,
    round_to_nearest,
    solve,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_gptq.config import GptqConfig, RtnConfig


def quantize_rtn(layer: Layer, config: RtnConfig) -> QuantizedLayer:
    """Round one weight to the nearest values of its grid."""
    columns = join_columns([layer])
    grid = _fit(columns, layer, config, None)
    return integer_layer(layer, round_to_nearest(columns, grid), grid)


def quantize_gptq(layers: Sequence[Layer], stats: Stats | None, config: GptqConfig) -> list[QuantizedLayer]:
    """Quantize layers that share one input side by side.

    metrics: those of `hyocr_core.kit.output_errors`; `damping`; unless degraded, `hessian_condition`, an estimate from
    below of the damped Hessian's condition number.
    """
    hessian = checked_hessian(layers, stats)
    columns = join_columns(layers)
    grid = _fit(columns, layers[0], config, hessian.diagonal())
    solution = solve(
        columns, hessian, grid, damp_percent=config.damp_percent, block_size=config.block_size, desc_act=config.desc_act
    )
    if solution is None:
        codes, damping = round_to_nearest(columns, grid), config.damp_percent * DAMPING_STEPS[-1]
        of_hessian = {"damping": damping}
        degraded = f"its Hessian has no Cholesky factor even with damping {damping:g}; rounded to nearest instead"
    else:
        codes, degraded = solution.codes, None
        of_hessian = {"damping": solution.damping, "hessian_condition": solution.condition}
    sizes = [len(layer.weight) for layer in layers]
    parts = zip(layers, *(torch.split(matrix, sizes, 1) for matrix in (columns, codes)), grid.split(sizes), strict=True)
    return [
        replace(
            integer_layer(layer, own_codes, own_grid),
            metrics=output_errors(own_columns, own_codes, own_grid, hessian) | of_hessian,
            degraded=degraded,
        )
        for layer, own_columns, own_codes, own_grid in parts
    ]


def _fit(columns: Tensor, layer: Layer, config: RtnConfig, importance: Tensor | None) -> Grid:
    return fit_grid(
        columns,
        layer.weight.dtype,
        bits=config.bits,
        group_size=config.group_size,
        sym=config.sym,
        mse=config.mse,
        importance=importance,
    )
