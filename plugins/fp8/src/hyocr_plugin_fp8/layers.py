"""From layers of the core to codes and scales, their metrics, and back to weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, RunError, Stats
from hyocr_core.formats import CACHE_SCALES, ScaledWeight
from hyocr_core.kit import (
    DAMPING_STEPS,
    Factor,
    check_weights,
    checked_hessian,
    damped_factor,
    is_finite,
    measured,
    one_thread,
    relative_errors,
)
from hyocr_plugin_fp8.fp8 import encode, encode_making_up, scales_of

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_fp8.config import Fp8Config


DAMP_PERCENT = 0.01
NO_FACTOR = (
    f"its Hessian has no Cholesky factor even with damping {DAMP_PERCENT * DAMPING_STEPS[-1]:g}; rounded to nearest"
)


def quantize_layers(layers: Sequence[Layer], stats: Stats | None, config: Fp8Config) -> list[QuantizedLayer]:
    """Quantize layers that share one input; where a scale covers a whole weight, it covers all of theirs.

    metrics: `weight_error`, the Frobenius norm of the weight's change relative to the weight's; `input_scale` and
    `input_error`, the same for the calibration inputs; `k_scale`, `k_error`, `v_scale` and `v_error` for the cache.
    Where codes make up for each other also `output_error`, the change of the outputs relative to them.
    """
    check_weights(layers)
    hessian = checked_hessian(layers, stats) if config.makes_up else None
    factor = None if hessian is None else damped_factor(hessian, damp_percent=DAMP_PERCENT, desc_act=True)
    with one_thread():
        scales = _scales(layers, config)
    results = []
    for layer, own, codes in zip(layers, scales, _codes(layers, scales, factor), strict=True):
        with one_thread():
            result = _stored(layer, codes, own, stats, config)
        results.append(result if hessian is None else _solved(result, layer, hessian, factor))
    return results


def unpack(tensors: dict[str, Tensor]) -> Tensor:
    """Return the dequantized weight, (N, K) in the dtype of its scales."""
    return ScaledWeight.of(tensors).dequantized(tensors["weight_scale"].dtype)


def _largest(weight: Tensor) -> Tensor:
    low, high = torch.aminmax(weight)
    return torch.maximum(-low, high)


def _row_largest(weight: Tensor) -> Tensor:
    low, high = torch.aminmax(weight, dim=1, keepdim=True)
    return torch.maximum(-low, high)


def _scales(layers: Sequence[Layer], config: Fp8Config) -> list[Tensor]:
    if config.weights == "channel":
        largest = [_row_largest(layer.weight) for layer in layers]
    else:
        largest = [torch.stack([_largest(layer.weight) for layer in layers]).amax()] * len(layers)
    return [scales_of(own, layer.weight.dtype) for layer, own in zip(layers, largest, strict=True)]


def _codes(layers: Sequence[Layer], scales: Sequence[Tensor], factor: Factor | None) -> list[Tensor]:
    weights = [layer.weight for layer in layers]
    if factor is not None:
        # Has work for all threads between its steps, which are bound to one.
        return encode_making_up(weights, scales, factor)
    with one_thread():
        return [encode(weight, own) for weight, own in zip(weights, scales, strict=True)]


def _stored(layer: Layer, codes: Tensor, scales: Tensor, stats: Stats | None, config: Fp8Config) -> QuantizedLayer:
    found = _own_stats(layer, stats, config)
    packed = ScaledWeight(codes, scales, found.get("input_scale")).tensors()
    packed |= {name: found[name].reshape(1).clone() for name in CACHE_SCALES.values() if name in found}
    dequantized = unpack(packed)
    if not is_finite(dequantized):
        raise RunError(f"{layer.name}: its largest weights overflow {layer.weight.dtype} once quantized")
    metrics = {"weight_error": _relative_error(layer.weight, dequantized)}
    metrics |= {name: tensor.item() for name, tensor in found.items()}
    return QuantizedLayer(layer.name, packed, dequantized, metrics)


def _solved(result: QuantizedLayer, layer: Layer, hessian: Tensor, factor: Factor | None) -> QuantizedLayer:
    """The same with what the Hessian says of it; factor: None where it has none."""
    picked = measured(len(layer.weight))
    columns, values = layer.weight[picked].T.float(), result.dequantized[picked].T.float()
    [error] = relative_errors(columns, [values], hessian)
    degraded = NO_FACTOR if factor is None else None
    return replace(result, metrics={**result.metrics, "output_error": error}, degraded=degraded)


def _own_stats(layer: Layer, stats: Stats | None, config: Fp8Config) -> Stats:
    """What the group's stats hold for this layer."""
    due = ["input_scale", "input_error"] if config.activation_scheme == "static" else []
    cache = CACHE_SCALES.get(layer.name.rpartition(".")[2], "")
    # A layer of the vision tower may be called k_proj too, but nothing is cached there.
    if stats is not None and cache in stats:
        due += [cache, cache.replace("scale", "error")]
    if due and stats is None:
        raise RunError(f"{layer.name}: static FP8 needs calibration statistics and was given none")
    return {name: stats[name].to(layer.weight.device) for name in due} if stats else {}


def _relative_error(weight: Tensor, dequantized: Tensor) -> float:
    change = torch.linalg.vector_norm(weight.float() - dequantized.float(), dtype=torch.float64)
    whole = torch.linalg.vector_norm(weight, dtype=torch.float64)
    return (change / whole).item() if whole > 0 else 0.0
