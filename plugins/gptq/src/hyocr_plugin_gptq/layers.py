"""From layers of the core to columns, through the solver, and back to quantized layers with their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, RunError, Stats, is_finite
from hyocr_core.kit.grid import Grid, decode, fit_grid, join_columns, round_to_nearest
from hyocr_plugin_gptq.gptq import DAMPING_STEPS, output_energy, solve

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_gptq.config import GptqConfig, RtnConfig

MEASURED_OUTPUTS = 512
"""Outputs per layer, evenly spread, that its error metrics are taken from: enough to be right within percents."""


def quantize_rtn(layer: Layer, config: RtnConfig) -> QuantizedLayer:
    """Round one weight to the nearest values of its grid."""
    columns = join_columns([layer])
    grid = _fit(columns, layer, config, None)
    return _finish(layer, round_to_nearest(columns, grid), grid)


def quantize_gptq(layers: Sequence[Layer], stats: Stats | None, config: GptqConfig) -> list[QuantizedLayer]:
    """Quantize layers that share one input side by side.

    metrics: `output_error`, the Frobenius norm of the change in the outputs on the calibration inputs relative to the
    outputs'; `output_error_rtn`, the same for rounding to nearest on the same grid; `damping`; unless degraded,
    `hessian_condition`, an estimate from below of the damped Hessian's condition number.
    """
    hessian = _checked_hessian(layers, stats)
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
            _finish(layer, own_codes, own_grid),
            metrics=error_metrics(own_columns, own_codes, own_grid, hessian) | of_hessian,
            degraded=degraded,
        )
        for layer, own_columns, own_codes, own_grid in parts
    ]


def error_metrics(columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> dict[str, float]:
    """Return sqrt(tr(dW H dW^T) / tr(W H W^T)) of one layer for `codes` (K, N) and for rounding to nearest."""
    picked = slice(None, None, -(-columns.shape[1] // MEASURED_OUTPUTS))
    columns, codes = columns[:, picked], codes[:, picked]
    grid = replace(grid, scales=grid.scales[:, picked], zeros=grid.zeros[:, picked])
    values = (decode(codes, grid), decode(round_to_nearest(columns, grid), grid))
    energies = output_energy(torch.cat([columns, *(columns - value for value in values)], 1), hessian)
    whole, lost, lost_rtn = (part.sum().item() for part in energies.chunk(3))
    ratios = [(part / whole) ** 0.5 if whole else 0.0 for part in (lost, lost_rtn)]
    return dict(zip(("output_error", "output_error_rtn"), ratios, strict=True))


def pack(layer: QuantizedLayer, config: RtnConfig) -> dict[str, Tensor]:
    """Return the layer's tensors in the format of `config`, under local names."""
    return config.on_disk.pack(layer.tensors["codes"], _grid(layer.tensors, config))


def unpack(tensors: dict[str, Tensor], config: RtnConfig) -> Tensor:
    """Return the dequantized weight, (N, K), of the tensors that `pack` made."""
    return decode(*config.on_disk.unpack(tensors)).T.contiguous()


def _checked_hessian(layers: Sequence[Layer], stats: Stats | None) -> Tensor:
    name = layers[0].name
    if stats is None:
        raise RunError(f"{name}: GPTQ needs calibration statistics and was given none")
    hessian = stats["hessian"].to(layers[0].weight.device)
    if not is_finite(hessian):
        raise RunError(f"{name}: the Hessian of its inputs holds NaN or infinite values")
    return hessian


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


def _grid(tensors: Stats, config: RtnConfig) -> Grid:
    return Grid(tensors["scales"], tensors["zeros"], 2**config.bits - 1)


def _finish(layer: Layer, codes: Tensor, grid: Grid) -> QuantizedLayer:
    dequantized = decode(codes, grid).T.contiguous()
    if not is_finite(dequantized):
        raise RunError(f"{layer.name}: its largest weights overflow {layer.weight.dtype} once quantized")
    return QuantizedLayer(layer.name, {"codes": codes, "scales": grid.scales, "zeros": grid.zeros}, dequantized)
