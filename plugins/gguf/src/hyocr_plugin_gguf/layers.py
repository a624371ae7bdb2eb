"""From layers of the core to columns, through the solver, to blocks of ggml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, RunError, Stats
from hyocr_core.kit import (
    DAMPING_STEPS,
    Grid,
    check_weights,
    checked_hessian,
    damped_factor,
    fit_grid,
    fit_grid_by_solving,
    full_precision_targets,
    is_finite,
    join_columns,
    output_errors,
    quantize_columns,
    round_to_nearest,
)
from hyocr_plugin_gguf.blocks import BITS, BLOCK, SYMMETRIC, pack_blocks, storable
from hyocr_plugin_gguf.stored import IMPORTANCE, GgufFormat

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_gguf.config import GgufConfig


def quantize_nearest(layer: Layer, config: GgufConfig) -> QuantizedLayer:
    """Round one weight as `llama-quantize` does it; of type f16, to float16."""
    check_weights([layer])
    written = GgufFormat(config.type)
    return _layer(layer, written, written.encode(layer.weight))


def quantize_solved(layers: Sequence[Layer], stats: Stats | None, config: GgufConfig) -> list[QuantizedLayer]:
    """Quantize layers that share one input side by side, by GPTQ on the grid as the blocks store it.

    metrics: those of `hyocr_core.kit.output_errors`, against the targets; `damping`; unless degraded,
    `hessian_condition`, an estimate from below of the damped Hessian's condition number.
    """
    hessian = checked_hessian(layers, stats)
    columns = join_columns(layers)
    factor = damped_factor(hessian, damp_percent=config.damp_percent, desc_act=config.desc_act)
    if factor is None:
        grid = _plain_grid(columns, config.type)
        codes, damping = round_to_nearest(columns, grid), config.damp_percent * DAMPING_STEPS[-1]
        of_hessian = {"damping": damping}
        degraded = f"its Hessian has no Cholesky factor even with damping {damping:g}; rounded to nearest instead"
    else:
        columns = full_precision_targets(columns, stats or {}, factor, config.target_strength)
        grid = _solved_grid(columns, hessian, config)
        codes = quantize_columns(columns, factor, grid, config.block_size)
        of_hessian, degraded = {"damping": factor.damping, "hessian_condition": factor.condition}, None
    written = GgufFormat(config.type, importance=True)
    # The Hessian is twice the mean of the inputs' products.
    importance = (hessian.diagonal() / 2).float().cpu()
    sizes = [len(layer.weight) for layer in layers]
    parts = zip(layers, *(torch.split(matrix, sizes, 1) for matrix in (columns, codes)), grid.split(sizes), strict=True)
    return [
        _layer(
            layer,
            written,
            pack_blocks(own_codes, own_grid, config.type),
            {IMPORTANCE: importance.clone()},
            output_errors(own_columns, own_codes, own_grid, hessian) | of_hessian,
            degraded,
        )
        for layer, own_columns, own_codes, own_grid in parts
    ]


def _layer(
    layer: Layer,
    written: GgufFormat,
    blocks: Tensor,
    beside: Stats | None = None,
    metrics: dict[str, float] | None = None,
    degraded: str | None = None,
) -> QuantizedLayer:
    tensors = {written.codes: blocks, **(beside or {})}
    dequantized = written.decode(tensors, layer.weight.dtype).to(layer.weight.device)
    if not is_finite(dequantized):
        raise RunError(f"{layer.name}: its largest weights overflow float16, in which {written.type} keeps its scales")
    return QuantizedLayer(layer.name, tensors, dequantized, metrics or {}, degraded)


def _plain_grid(columns: Tensor, kind: str) -> Grid:
    grid = fit_grid(columns, torch.float16, bits=BITS[kind], group_size=BLOCK, sym=SYMMETRIC[kind], mse=True)
    return storable(grid, kind)


def _solved_grid(columns: Tensor, hessian: Tensor, config: GgufConfig) -> Grid:
    grid = fit_grid_by_solving(
        columns,
        hessian,
        torch.float16,
        bits=BITS[config.type],
        group_size=BLOCK,
        sym=SYMMETRIC[config.type],
        damp_percent=config.damp_percent,
        desc_act=config.desc_act,
    )
    return storable(grid, config.type)
