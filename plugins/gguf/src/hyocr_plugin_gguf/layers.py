"""From layers of the core to columns, through the solver, to blocks of ggml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, RunError, Stats
from hyocr_core.kit import (
    DAMPING_STEPS,
    check_weights,
    checked_hessian,
    damped_factor,
    full_precision_targets,
    is_finite,
    join_columns,
    measured,
    relative_errors,
)
from hyocr_plugin_gguf.solved import solve_blocks
from hyocr_plugin_gguf.stored import IMPORTANCE, GgufFormat

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_gguf.config import GgufConfig


def quantize_nearest(layer: Layer, config: GgufConfig) -> QuantizedLayer:
    """Round one weight as `llama-quantize` does it without an importance matrix; of type f16, to float16."""
    check_weights([layer])
    written = GgufFormat(config.stored_type(layer.name))
    return _layer(layer, written, {written.codes: written.encode(layer.weight)})


def quantize_solved(layers: Sequence[Layer], stats: Stats | None, config: GgufConfig) -> list[QuantizedLayer]:
    """Quantize layers that share one input side by side, by GPTQ on the grid as the blocks store it.

    metrics: `output_error` and `output_error_rtn`, see `hyocr_core.kit.output_errors`, against the targets; `damping`;
    unless degraded, `hessian_condition`, an estimate from below of the damped Hessian's condition number.
    """
    hessian = checked_hessian(layers, stats)
    columns = join_columns(layers)
    factor = damped_factor(hessian, damp_percent=config.damp_percent, desc_act=config.desc_act)
    if factor is None:
        of_hessian = {"damping": config.damp_percent * DAMPING_STEPS[-1]}
        degraded = f"its Hessian has no Cholesky factor even with damping {of_hessian['damping']:g}; rounded to nearest"
    else:
        columns = full_precision_targets(columns, stats or {}, factor, config.target_strength)
        of_hessian, degraded = {"damping": factor.damping, "hessian_condition": factor.condition}, None
    targets = dict(
        zip(
            (layer.name for layer in layers),
            torch.split(columns, [len(layer.weight) for layer in layers], 1),
            strict=True,
        )
    )
    found = {}
    for kind, own in _by_type(layers, config).items():
        taken = [targets[layer.name] for layer in own]
        solved = solve_blocks(torch.cat(taken, 1), hessian, factor, kind, config)
        sizes = [len(layer.weight) for layer in own]
        blocks = torch.split(solved.blocks, sizes)
        values, nearest = torch.split(solved.values, sizes, 1), torch.split(solved.nearest, sizes, 1)
        for layer, *of_layer in zip(own, taken, blocks, values, nearest, strict=True):
            found[layer.name] = _solved(layer, kind, hessian, *of_layer)
    return [
        replace(found[layer.name], metrics={**found[layer.name].metrics, **of_hessian}, degraded=degraded)
        for layer in layers
    ]


def _by_type(layers: Sequence[Layer], config: GgufConfig) -> dict[str, list[Layer]]:
    """Layers that are stored alike are solved side by side."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        found.setdefault(config.stored_type(layer.name), []).append(layer)
    return found


def _solved(
    layer: Layer, kind: str, hessian: Tensor, target: Tensor, blocks: Tensor, values: Tensor, nearest: Tensor
) -> QuantizedLayer:
    written = GgufFormat(kind, importance=True)
    # The Hessian is twice the mean of the inputs' products.
    importance = (hessian.diagonal() / 2).float().cpu()
    made = _layer(layer, written, {written.codes: blocks.clone(), IMPORTANCE: importance})
    return replace(made, metrics=_errors(target, values, nearest, hessian))


def _errors(target: Tensor, values: Tensor, nearest: Tensor, hessian: Tensor) -> dict[str, float]:
    picked = measured(target.shape[1])
    errors = relative_errors(target[:, picked].contiguous(), (values[:, picked], nearest[:, picked]), hessian)
    return dict(zip(("output_error", "output_error_rtn"), errors, strict=True))


def _layer(layer: Layer, written: GgufFormat, tensors: Stats) -> QuantizedLayer:
    dequantized = written.decode(tensors, layer.weight.dtype).to(layer.weight.device)
    if not is_finite(dequantized):
        raise RunError(f"{layer.name}: its largest weights overflow float16, in which {written.type} keeps its scales")
    return QuantizedLayer(layer.name, tensors, dequantized)
