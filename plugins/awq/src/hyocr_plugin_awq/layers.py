"""From layers of the core to quantized layers with their metrics, and to the tensors of a checkpoint and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, RunError, Stats, is_finite
from hyocr_core.kit.grid import Grid, decode, join_columns, round_to_nearest
from hyocr_plugin_awq.clip import clipped_grid
from hyocr_plugin_awq.columns import full_range_grid, rounded
from hyocr_plugin_awq.errors import measured, relative_error

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_awq.config import AwqConfig

UNCLIPPED = (".q_proj", ".k_proj")
"""Layers whose outputs are multiplied with each other, so that an error of one output says little of the result."""

FOUND_BEFORE = ("output_error_rtn", "ratio")
"""Metrics that `calibrate` leaves in the statistics."""


def quantize(layer: Layer, stats: Stats | None, config: AwqConfig) -> QuantizedLayer:
    """Choose where to clip and round to nearest; `stats` are those that `calibrate` returned for this layer.

    metrics: `output_error`, the Frobenius norm of the change in the outputs on the calibration inputs relative to the
    outputs'; `output_error_rtn`, the same for rounding the layer to nearest without smoothing and clipping;
    `ratio`, see scales.py.
    """
    hessian = _checked_hessian(layer, stats)
    columns = join_columns([layer])
    if config.mse_range and not layer.name.endswith(UNCLIPPED):
        grid = clipped_grid(columns, hessian, layer.weight.dtype, config)
    else:
        grid = full_range_grid(columns, layer.weight.dtype, config)
    codes = round_to_nearest(columns, grid)
    values = decode(codes, grid)
    if not is_finite(values):
        raise RunError(f"{layer.name}: its largest weights overflow {layer.weight.dtype} once quantized")
    tensors = {"codes": codes, "scales": grid.scales, "zeros": grid.zeros}
    return QuantizedLayer(layer.name, tensors, values.T.contiguous(), _metrics(columns, values, stats or {}))


def rounding_error(layer: Layer, hessian: Tensor, config: AwqConfig) -> float:
    """The metric `output_error_rtn` of a layer that nothing was done to."""
    columns = join_columns([layer])[:, measured(len(layer.weight))].contiguous()
    return relative_error(columns, rounded(columns, full_range_grid(columns, layer.weight.dtype, config)), hessian)


def pack(layer: QuantizedLayer, config: AwqConfig) -> dict[str, Tensor]:
    """Return the layer's tensors in the format of `config`, under local names."""
    grid = Grid(layer.tensors["scales"], layer.tensors["zeros"], 2**config.bits - 1)
    return config.on_disk.pack(layer.tensors["codes"], grid)


def unpack(tensors: dict[str, Tensor], config: AwqConfig) -> Tensor:
    """Return the dequantized weight, (N, K), of the tensors that `pack` made."""
    return decode(*config.on_disk.unpack(tensors)).T.contiguous()


def _metrics(columns: Tensor, values: Tensor, stats: Stats) -> dict[str, float]:
    picked = measured(columns.shape[1])
    # Outputs that were scaled down for the next layer count as much as they did before.
    rows = stats["rows"][picked] if "rows" in stats else torch.ones(1, device=columns.device)
    error = relative_error(columns[:, picked] * rows, values[:, picked].float() * rows, stats["hessian"])
    return {"output_error": error} | {name: float(stats[name]) for name in FOUND_BEFORE if name in stats}


def _checked_hessian(layer: Layer, stats: Stats | None) -> Tensor:
    if stats is None:
        raise RunError(f"{layer.name}: AWQ needs calibration statistics and was given none")
    hessian = stats["hessian"]
    if not is_finite(hessian):
        raise RunError(f"{layer.name}: the Hessian of its inputs holds NaN or infinite values")
    return hessian
