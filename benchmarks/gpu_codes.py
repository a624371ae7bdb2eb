"""Fixed problems, solved on the CPU and on a device: how many codes are equal, and what they leave of the error."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hyocr_core.formats import AwqFormat, GptqFormat
from hyocr_core.kit import (
    Factor,
    Grid,
    damped_factor,
    fit_grid,
    fit_grid_by_solving,
    quantize_columns,
    round_to_e4m3_,
    round_to_nearest,
)

Problem: TypeAlias = Callable[..., dict[str, Any]]

BLOCK = 128


def _given(small: bool) -> tuple[Tensor, Tensor]:
    """Weights (K, N) fp32 of bf16 values, and the Hessian (K, K) fp32 of correlated inputs."""
    inputs, outputs = (256, 64) if small else (1024, 1024)
    random = torch.Generator().manual_seed(0)
    columns = torch.randn(inputs, outputs, generator=random).mul_(inputs**-0.5).bfloat16().float()
    tokens = torch.randn(4 * inputs, 32, generator=random) @ torch.randn(32, inputs, generator=random)
    tokens += torch.randn(4 * inputs, inputs, generator=random)
    return columns, tokens.T @ tokens * (2 / len(tokens))


def _solved_grid(columns: Tensor, hessian: Tensor) -> Grid:
    return fit_grid_by_solving(
        columns, hessian, torch.bfloat16, bits=4, group_size=128, sym=True, damp_percent=0.01, desc_act=True
    )


def _factor(hessian: Tensor) -> Factor:
    factor = damped_factor(hessian, damp_percent=0.01, desc_act=True)
    if factor is None:
        raise RuntimeError("the Hessian has no Cholesky factor")
    return factor


def _lost(columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> float:
    """tr(E^T H E), in fp64 on the CPU."""
    codes, scales, zeros = (tensor.cpu().double() for tensor in (codes, grid.scales, grid.zeros))
    size = len(codes) // len(scales)
    values = (codes - zeros.repeat_interleave(size, 0)) * scales.repeat_interleave(size, 0)
    errors = columns.double() - values
    return float(((hessian.double() @ errors) * errors).sum())


def _equal(left: Tensor, right: Tensor) -> float:
    return (left.cpu() == right.cpu()).double().mean().item()


def gptq(device: str, *, small: bool) -> dict[str, Any]:
    """Grid and codes, the Hessian the same: sums in another order change a few codes, and not what is lost."""
    columns, hessian = _given(small)
    moved = columns.to(device), hessian.to(device)
    grids = [_solved_grid(columns, hessian), _solved_grid(*moved)]
    codes = [
        quantize_columns(columns, _factor(hessian), grids[0], BLOCK),
        quantize_columns(moved[0], _factor(moved[1]), grids[1], BLOCK),
    ]
    lost = [_lost(columns, own, grid, hessian) for own, grid in zip(codes, grids, strict=True)]
    return {
        "equal": _equal(*codes),
        "equal_scales": _equal(grids[0].scales, grids[1].scales),
        "error_ratio": lost[1] / lost[0],
        "seconds": _seconds(device, lambda: quantize_columns(moved[0], _factor(moved[1]), grids[1], BLOCK)),
    }


def nearest(device: str, *, small: bool) -> dict[str, Any]:
    """Rounding to nearest, where every operation is exact or rounded once: all codes are equal."""
    columns, _ = _given(small)
    found = []
    for own in (columns, columns.to(device)):
        grid = fit_grid(own, torch.bfloat16, bits=4, group_size=128, sym=False, mse=False)
        found.append(round_to_nearest(own, grid))
    return {"equal": _equal(*found)}


def float8(device: str, *, small: bool) -> dict[str, Any]:
    """Rounding to E4M3."""
    columns, _ = _given(small)
    scale = torch.tensor(0.01)
    found = [round_to_e4m3_(own.clone(), scale.to(own.device)) for own in (columns, columns.to(device))]
    return {"equal": _equal(*found)}


def packed(device: str, *, small: bool) -> dict[str, Any]:
    """Packing and unpacking in both layouts."""
    columns, _ = _given(small)
    grid = fit_grid(columns, torch.bfloat16, bits=4, group_size=128, sym=True, mse=False)
    codes = round_to_nearest(columns, grid)
    there = Grid(grid.scales.to(device), grid.zeros.to(device), grid.max_code)
    equal = []
    for storage in (GptqFormat(4, 128, True), AwqFormat(128, False)):
        ours, theirs = storage.pack(codes, grid), storage.pack(codes.to(device), there)
        equal += [_equal(ours[name], theirs[name]) for name in ours]
        equal.append(_equal(codes, storage.unpack(theirs)[0]))
    return {"equal": min(equal)}


def _seconds(device: str, work: Callable[[], object]) -> float:
    """Of the second time, when kernels are there."""
    work()
    for last in (False, True):
        if device == "cuda":
            torch.cuda.synchronize()
        if not last:
            started = time.perf_counter()
            work()
    return time.perf_counter() - started


PROBLEMS: Mapping[str, Problem] = {"gptq": gptq, "nearest": nearest, "float8": float8, "packed": packed}
