"""From layers of the core to columns, through the solver, and back to quantized layers with their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, Stats
from hyocr_core.kit import (
    DAMPING_STEPS,
    Factor,
    Grid,
    checked_hessian,
    damped_factor,
    fit_grid,
    fit_grid_by_solving,
    full_precision_targets,
    integer_layer,
    join_columns,
    output_errors,
    quantize_columns,
    refine,
    round_to_nearest,
)

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_gptq.config import GptqConfig, RtnConfig


def quantize_rtn(layer: Layer, config: RtnConfig) -> QuantizedLayer:
    """Round one weight to the nearest values of its grid."""
    columns = join_columns([layer])
    grid = _fit(columns, layer, config, mse=config.mse)
    return integer_layer(layer, round_to_nearest(columns, grid), grid)


def quantize_gptq(layers: Sequence[Layer], stats: Stats | None, config: GptqConfig) -> list[QuantizedLayer]:
    """Quantize layers that share one input side by side.

    metrics: those of `hyocr_core.kit.output_errors`, against the targets; `damping`; unless degraded,
    `hessian_condition`, an estimate from below of the damped Hessian's condition number.
    """
    hessian = checked_hessian(layers, stats)
    columns = join_columns(layers)
    factor = damped_factor(hessian, damp_percent=config.damp_percent, desc_act=config.desc_act)
    if factor is None:
        grid = _fit(columns, layers[0], config, mse=config.mse)
        codes, damping = round_to_nearest(columns, grid), config.damp_percent * DAMPING_STEPS[-1]
        of_hessian = {"damping": damping}
        degraded = f"its Hessian has no Cholesky factor even with damping {damping:g}; rounded to nearest instead"
    else:
        columns = full_precision_targets(columns, stats or {}, factor, config.target_strength)
        codes, grid = _solved(columns, hessian, factor, layers[0], config)
        of_hessian, degraded = {"damping": factor.damping, "hessian_condition": factor.condition}, None
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


def _solved(columns: Tensor, hessian: Tensor, factor: Factor, layer: Layer, config: GptqConfig) -> tuple[Tensor, Grid]:
    """Codes and grid of the targets `columns`."""
    if config.mse:
        grid = fit_grid_by_solving(
            columns,
            hessian,
            layer.weight.dtype,
            bits=config.bits,
            group_size=config.group_size,
            sym=config.sym,
            damp_percent=config.damp_percent,
            desc_act=config.desc_act,
        )
    else:
        grid = _fit(columns, layer, config, mse=False)
    codes = quantize_columns(columns, factor, grid, config.block_size)
    for _ in range(config.refine):
        codes, grid = refine(columns, codes, grid, hessian, factor.damping, config.block_size)
    return codes, grid


def _fit(columns: Tensor, layer: Layer, config: RtnConfig, *, mse: bool) -> Grid:
    return fit_grid(
        columns, layer.weight.dtype, bits=config.bits, group_size=config.group_size, sym=config.sym, mse=mse
    )
