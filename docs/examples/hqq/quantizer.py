"""Half-quadratic quantization (Badri and Shaji 2023). Weights are columns here, (K, N): K = in, N = out_features."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from hyocr_core import Layer, QuantizedLayer
from hyocr_core.kit import Grid, fit_grid, integer_layer, join_columns, round_to_nearest

from hyocr_plugin_hqq.config import BITS, HqqConfig

if TYPE_CHECKING:
    from torch import Tensor

BETA, KAPPA = 10.0, 1.01
"""How closely the outliers follow the error, in steps of the grid, and how that grows; the paper's values."""


def quantize(layer: Layer, config: HqqConfig) -> QuantizedLayer:
    """Round a weight to the grid with the least p-norm of the error, p < 1."""
    columns = join_columns([layer])
    start = fit_grid(columns, layer.weight.dtype, bits=BITS, group_size=config.group_size, sym=True, mse=True)
    grid = search(columns, start, config)
    result = integer_layer(layer, round_to_nearest(columns, grid), grid)
    return replace(result, metrics={"weight_error": _error(layer.weight, result.dequantized)})


def search(columns: Tensor, grid: Grid, config: HqqConfig) -> Grid:
    """Return the best grid on the way of the half-quadratic solver, for each group on its own.

    The solver splits the error into outliers, which it sets aside, and a rest, for which least squares give the scale.
    The paper moves the zero point instead; those that runtimes read are integers.
    """
    weights = columns.view(len(grid.scales), -1, columns.shape[1])
    best, least, beta = grid, _norm(weights, grid, config.p), BETA
    for _ in range(config.steps):
        values, scales = _values(weights, grid), grid.scales.float()[:, None]
        error = weights / scales - values
        shrunk = error.abs() - error.abs().clamp(min=1e-6) ** (config.p - 1) / beta
        outliers = error.sign() * shrunk.clamp(min=0) * scales
        fitted = ((weights - outliers) * values).sum(1) / values.square().sum(1).clamp(min=1e-6)
        grid = replace(grid, scales=torch.where(fitted > 0, fitted.to(grid.scales.dtype), grid.scales))
        norm = _norm(weights, grid, config.p)
        best = replace(best, scales=torch.where(norm < least, grid.scales, best.scales))
        least, beta = torch.minimum(norm, least), beta * KAPPA
    return best


def _values(weights: Tensor, grid: Grid) -> Tensor:
    """The nearest codes without zero point, (groups, group_size, N) fp32, of weights of the same shape."""
    zeros = grid.zeros.float()[:, None]
    return (weights / grid.scales.float()[:, None] + zeros).round().clamp(0, grid.max_code) - zeros


def _norm(weights: Tensor, grid: Grid, p: float) -> Tensor:
    """The sum of |error|^p, (groups, N)."""
    return (weights - _values(weights, grid) * grid.scales.float()[:, None]).abs().pow(p).sum(1)


def _error(weight: Tensor, quantized: Tensor) -> float:
    """The norm of the change relative to the weight's."""
    norm = weight.float().norm().item()
    return (quantized.float() - weight.float()).norm().item() / norm if norm else 0.0
