"""From layers of the core to columns, through the solver, and back to quantized layers with their metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core import Layer, QuantizedLayer, RunError, Stats
from hyocr_plugin_gptq.gptq import DAMPING_STEPS, output_energy, solve
from hyocr_plugin_gptq.grid import Grid, decode, fit_grid, round_to_nearest
from hyocr_plugin_gptq.packing import pack_compressed, pack_gptq, unpack_compressed, unpack_gptq

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_gptq.config import GptqConfig, RtnConfig

SCALE_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def quantize_rtn(layer: Layer, config: RtnConfig) -> QuantizedLayer:
    """Round one weight to the nearest values of its grid."""
    columns = join_columns([layer])
    grid = _fit(columns, layer, config, None)
    return _finish(layer, round_to_nearest(columns, grid), grid)


def quantize_gptq(layers: Sequence[Layer], stats: Stats | None, config: GptqConfig) -> list[QuantizedLayer]:
    """Quantize layers that share one input side by side.

    metrics: `output_error`, the Frobenius norm of the change in the outputs on the calibration inputs relative to the
    outputs'; `output_error_rtn`, the same for rounding to nearest on the same grid; `damping`.
    """
    hessian = _checked_hessian(layers, stats)
    columns = join_columns(layers)
    grid = _fit(columns, layers[0], config, hessian.diagonal())
    nearest = round_to_nearest(columns, grid)
    solution = solve(
        columns, hessian, grid, damp_percent=config.damp_percent, block_size=config.block_size, desc_act=config.desc_act
    )
    codes = nearest if solution is None else solution.codes
    damping = config.damp_percent * DAMPING_STEPS[-1] if solution is None else solution.damping
    outputs = [len(layer.weight) for layer in layers]
    errors = relative_errors(columns, [codes, nearest], grid, hessian, outputs)
    degraded = None
    if solution is None:
        degraded = f"its Hessian has no Cholesky factor even with damping {damping:g}; rounded to nearest instead"
    parts = zip(layers, torch.split(codes, outputs, 1), grid.split(outputs), *errors, strict=True)
    return [
        replace(
            _finish(layer, part, own),
            metrics={"output_error": error, "output_error_rtn": error_rtn, "damping": damping},
            degraded=degraded,
        )
        for layer, part, own, error, error_rtn in parts
    ]


def join_columns(layers: Sequence[Layer]) -> Tensor:
    """Return the weights side by side as columns, (K, sum of N) fp32; raise RunError naming one that is unusable."""
    for layer in layers:
        dtype = layer.weight.dtype
        if dtype not in SCALE_DTYPES or dtype != layers[0].weight.dtype:
            raise RunError(
                f"{layer.name}: its weight is {dtype}; bfloat16, float16 or float32 throughout a group is needed"
            )
        if not torch.isfinite(layer.weight).all():
            raise RunError(f"{layer.name}: its weight holds NaN or infinite values")
    return torch.cat([layer.weight.detach().T.float() for layer in layers], 1)


def relative_errors(
    columns: Tensor, candidates: Sequence[Tensor], grid: Grid, hessian: Tensor, outputs: list[int]
) -> list[list[float]]:
    """Return, per candidate codes (K, N) and per layer, sqrt(tr(dW H dW^T) / tr(W H W^T))."""
    differences = [columns - decode(codes, grid) for codes in candidates]
    energies = output_energy(torch.cat([columns, *differences], 1), hessian).chunk(1 + len(candidates))
    whole, *lost = ([part.sum().item() for part in torch.split(energy, outputs)] for energy in energies)
    return [[(part / all_) ** 0.5 if all_ else 0.0 for part, all_ in zip(own, whole, strict=True)] for own in lost]


def pack(layer: QuantizedLayer, config: RtnConfig) -> dict[str, Tensor]:
    """Return the layer's tensors in the format of `config`, under local names."""
    codes, grid = layer.tensors["codes"], _grid(layer.tensors, config)
    if config.format == "gptq":
        return pack_gptq(codes, grid, config.bits)
    return pack_compressed(codes, grid, config.bits, config.sym)


def unpack(tensors: dict[str, Tensor], config: RtnConfig) -> Tensor:
    """Return the dequantized weight, (N, K), of the tensors that `pack` made."""
    read = unpack_gptq if config.format == "gptq" else unpack_compressed
    return decode(*read(tensors, config.bits)).T.contiguous()


def _checked_hessian(layers: Sequence[Layer], stats: Stats | None) -> Tensor:
    name = layers[0].name
    if stats is None:
        raise RunError(f"{name}: GPTQ needs calibration statistics and was given none")
    hessian = stats["hessian"].to(layers[0].weight.device)
    if not torch.isfinite(hessian).all():
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
    if not torch.isfinite(dequantized).all():
        raise RunError(f"{layer.name}: its largest weights overflow {layer.weight.dtype} once quantized")
    return QuantizedLayer(layer.name, {"codes": codes, "scales": grid.scales, "zeros": grid.zeros}, dequantized)
