"""The second moments of layers' inputs, H = 2 / n * sum of w x x^T over the n calibration tokens, w a token's weight.

The output error of a linear over all those tokens is tr(dW H dW^T) (Frantar et al. 2022, arXiv 2210.17323).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hyocr_core.contract.types import Batches, Block, Stats
from hyocr_core.errors import RunError
from hyocr_core.kit.inputs import observe_weighted
from hyocr_core.kit.threads import exact_matmul

if TYPE_CHECKING:
    from torch import Tensor

STRIPE = 256
"""Rows of the symmetric sum computed at once; only those left of the diagonal's end are."""


def collect_hessians(block: Block, batches: Batches) -> dict[str, Stats]:
    """Return {"hessian": (K, K) fp32, "tokens": ()} for each layer; layers with one input share one object."""
    sums: dict[tuple[str, ...], Stats] = {}

    def observe(names: tuple[str, ...], inputs: Tensor, weights: Tensor | None) -> None:
        if names not in sums:
            size = inputs.shape[1]
            hessian = torch.zeros(size, size, dtype=torch.float32, device=inputs.device)
            sums[names] = {"hessian": hessian, "tokens": torch.zeros((), dtype=torch.int64)}
        add_outer(sums[names]["hessian"], inputs, weights)
        sums[names]["tokens"] += len(inputs)

    observe_weighted(block, batches, observe)
    for names in block.groups:
        if names not in sums or sums[names]["tokens"] == 0:
            raise RunError(f"{names[0]}: no calibration token reached it; give other samples or ignore the layer")
        finish(sums[names])
    return {name: sums[names] for names in block.groups for name in names}


def add_outer(total: Tensor, inputs: Tensor, weights: Tensor | None = None) -> None:
    """Add the sum of w x x^T, (K, K), over the rows x of `inputs` to the lower half (whole stripes) of `total` fp32.

    inputs: (tokens, K). weights: (tokens,), not negative and of few different values; None: all 1.
    """
    if weights is None:
        _add_outer(total, inputs, 1)
        return
    # Rows of one weight together: scaled, they would be no values of their dtype, which is what makes the sum fast.
    for weight in torch.unique(weights).tolist():
        _add_outer(total, inputs[weights == weight], weight)


def _add_outer(total: Tensor, inputs: Tensor, weight: float) -> None:
    values = inputs.float()
    with exact_matmul(inputs.dtype):
        for start in range(0, len(total), STRIPE):
            stop = start + STRIPE
            total[start:stop, :stop].addmm_(values[:, start:stop].T, values[:, :stop], alpha=weight)


def finish(stats: Stats) -> None:
    """Turn the lower half of the sum into the Hessian, in place."""
    hessian = stats["hessian"]
    for start in range(0, len(hessian), STRIPE):
        stop = start + STRIPE
        hessian[start:stop, stop:] = hessian[stop:, start:stop].T
    hessian.mul_(2 / stats["tokens"].item())
