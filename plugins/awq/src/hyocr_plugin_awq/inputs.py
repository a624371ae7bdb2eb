"""What the layers of a block read: one pass over the calibration samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hyocr_core import Batches, Block, RunError, Stats, is_finite, observe_weighted
from hyocr_core.kit.hessian import add_outer, finish

if TYPE_CHECKING:
    from torch import Tensor

    Group = tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """The input that a group of layers shares, over all calibration tokens, each with its weight w.

    hessian: (K, K) fp32, 2 / tokens * sum of w x x^T. magnitudes: (K,) fp32, 1 / tokens * sum of w |x|.
    """

    hessian: Tensor
    magnitudes: Tensor


def collect_inputs(block: Block, batches: Batches) -> dict[Group, Inputs]:
    """Return the inputs of each of `block.groups`; raise RunError naming a layer whose inputs tell nothing."""
    sums: dict[Group, Stats] = {}

    def observe(names: Group, inputs: Tensor, weights: Tensor | None) -> None:
        if names not in sums:
            size, device = inputs.shape[1], inputs.device
            sums[names] = {
                "hessian": torch.zeros(size, size, dtype=torch.float32, device=device),
                "magnitudes": torch.zeros(size, dtype=torch.float32, device=device),
                "tokens": torch.zeros((), dtype=torch.int64),
            }
        add_outer(sums[names]["hessian"], inputs, weights)
        magnitudes = inputs.abs() if weights is None else inputs.abs().float() * weights[:, None]
        sums[names]["magnitudes"] += magnitudes.sum(0, dtype=torch.float32)
        sums[names]["tokens"] += len(inputs)

    observe_weighted(block, batches, observe)
    return {names: _finished(names[0], sums.get(names)) for names in block.groups}


def _finished(name: str, sums: Stats | None) -> Inputs:
    if sums is None or sums["tokens"] == 0:
        raise RunError(f"{name}: no calibration token reached it; give other samples or ignore the layer")
    finish(sums)
    if not is_finite(sums["hessian"]):
        raise RunError(f"{name}: its inputs are so large that their squares overflow float32")
    return Inputs(sums["hessian"], sums["magnitudes"] / sums["tokens"].item())
