"""From layers of the core to quantized layers with their metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, Stats
from hyocr_core.kit import (
    Factor,
    Grid,
    checked_hessian,
    damped_factor,
    fit_grid_by_solving,
    integer_layer,
    join_columns,
    measured,
    quantize_columns,
    relative_errors,
    round_to_nearest,
)
from hyocr_plugin_awq.clip import clipped_grid
from hyocr_plugin_awq.columns import full_range_grid, rounded

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_awq.config import AwqConfig

UNCLIPPED = (".q_proj", ".k_proj")
"""Layers whose outputs are multiplied with each other, so that an error of one output says little of the result."""

DAMPING = 0.01
"""Share of the Hessian's mean diagonal that is added to it, as GPTQ does by default."""

BLOCK_SIZE = 128

HOPELESS = "its Hessian has no Cholesky factor; rounded to nearest instead"

FOUND_BEFORE = ("output_error_rtn", "ratio")
"""Metrics that `settle` leaves in the statistics."""


def quantize(layer: Layer, stats: Stats | None, config: AwqConfig) -> QuantizedLayer:
    """Choose where to clip, and codes; `stats` are those that `settle` returned for this layer.

    metrics: `output_error`, the Frobenius norm of the change in the outputs on the calibration inputs relative to the
    outputs'; `output_error_rtn`, the same for rounding the layer to nearest without smoothing and clipping;
    `ratio`, see scales.py.
    """
    hessian = checked_hessian([layer], stats)
    columns = join_columns([layer])
    solves = config.rounding == "gptq"
    factor = solving_factor(hessian) if solves else None
    grid = _grid(columns, hessian, layer, config, solved=factor is not None)
    codes = round_to_nearest(columns, grid) if factor is None else quantize_columns(columns, factor, grid, BLOCK_SIZE)
    degraded = HOPELESS if solves and factor is None else None
    result = integer_layer(layer, codes, grid)
    return replace(result, metrics=_metrics(columns, result.dequantized.T, stats or {}), degraded=degraded)


def solving_factor(hessian: Tensor) -> Factor | None:
    """What codes of GPTQ are found with; None if there is no factor."""
    return damped_factor(hessian, damp_percent=DAMPING, desc_act=True)


def _grid(columns: Tensor, hessian: Tensor, layer: Layer, config: AwqConfig, *, solved: bool) -> Grid:
    """Where to clip: by the error of GPTQ's codes if it gives them (`solved`), else by that of the nearest."""
    dtype = layer.weight.dtype
    if not config.mse_range or layer.name.endswith(UNCLIPPED):
        return full_range_grid(columns, dtype, config)
    if not solved:
        return clipped_grid(columns, hessian, dtype, config)
    return fit_grid_by_solving(
        columns,
        hessian,
        dtype,
        bits=config.bits,
        group_size=config.group_size,
        sym=config.sym,
        damp_percent=DAMPING,
        desc_act=True,
    )


def rounding_error(layer: Layer, hessian: Tensor, config: AwqConfig) -> float:
    """The metric `output_error_rtn` of a layer that nothing was done to."""
    columns = join_columns([layer])[:, measured(len(layer.weight))].contiguous()
    plain = rounded(columns, full_range_grid(columns, layer.weight.dtype, config))
    return relative_errors(columns, [plain], hessian)[0]


def _metrics(columns: Tensor, values: Tensor, stats: Stats) -> dict[str, float]:
    picked = measured(columns.shape[1])
    # Outputs that were scaled down for the next layer count as much as they did before.
    rows = stats["rows"][picked] if "rows" in stats else torch.ones(1, device=columns.device)
    [error] = relative_errors(columns[:, picked] * rows, [values[:, picked].float() * rows], stats["hessian"])
    return {"output_error": error} | {name: float(stats[name]) for name in FOUND_BEFORE if name in stats}
