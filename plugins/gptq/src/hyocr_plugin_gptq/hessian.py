"""What GPTQ needs to know of a layer's inputs: H = 2 / n * sum of x x^T over the n calibration tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from hyocr_core import Batches, Block, RunError, Stats, observe_inputs

if TYPE_CHECKING:
    from torch import Tensor

STRIPE = 256
"""Rows of the symmetric sum computed at once; only those left of the diagonal's end are."""


def collect(block: Block, batches: Batches) -> dict[str, Stats]:
    """Return {"hessian": (K, K) fp32, "tokens": ()} for each layer; layers with one input share one object."""
    sums: dict[tuple[str, ...], Stats] = {}

    def observe(names: tuple[str, ...], inputs: Tensor) -> None:
        if names not in sums:
            size = inputs.shape[1]
            hessian = torch.zeros(size, size, dtype=torch.float32, device=inputs.device)
            sums[names] = {"hessian": hessian, "tokens": torch.zeros((), dtype=torch.int64)}
        add_outer(sums[names]["hessian"], inputs)
        sums[names]["tokens"] += len(inputs)

    observe_inputs(block, batches, observe)
    for names in block.groups:
        if names not in sums or sums[names]["tokens"] == 0:
            raise RunError(f"{names[0]}: no calibration token reached it; give other samples or ignore the layer")
        finish(sums[names])
    return {name: sums[names] for names in block.groups for name in names}


def add_outer(total: Tensor, inputs: Tensor) -> None:
    """Add inputs^T inputs, (K, K), to the lower half (whole stripes) of `total` fp32; inputs: (tokens, K)."""
    values = inputs.float()
    with exact_matmul(inputs.dtype):
        for start in range(0, len(total), STRIPE):
            stop = start + STRIPE
            total[start:stop, :stop].addmm_(values[:, start:stop].T, values[:, :stop])


def finish(stats: Stats) -> None:
    """Turn the lower half of the sum into the Hessian, in place."""
    hessian = stats["hessian"]
    for start in range(0, len(hessian), STRIPE):
        stop = start + STRIPE
        hessian[start:stop, stop:] = hessian[stop:, start:stop].T
    hessian.mul_(2 / stats["tokens"].item())


@contextmanager
def exact_matmul(dtype: torch.dtype) -> Iterator[None]:
    """Multiply fp32 matrices that hold values of `dtype` on the fastest units that lose nothing.

    "medium" feeds bf16 units (TF32 on CUDA) and accumulates in fp32: exact to 1e-7 for bf16 values, and for them only.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if dtype == torch.bfloat16 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
