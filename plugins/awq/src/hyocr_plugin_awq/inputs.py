"""What the layers of a block read: one pass over the calibration samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hyocr_core import Batches, Block, Collected, Stats
from hyocr_core.kit import add_moments, by_layer, no_moments, observe_weighted, summed

if TYPE_CHECKING:
    from torch import Tensor

    Group = tuple[str, ...]


def collect_inputs(block: Block, batches: Batches) -> dict[str, Collected]:
    """Return sums over the input of each layer; layers with one input share one object.

    hessian: (K, K) fp32, see `hyocr_core.kit.collect_hessians`. magnitudes: (K,) fp32, of w |x|, w a token's weight.
    tokens: () int64.
    """
    sums: dict[Group, Stats] = {}

    def observe(names: Group, inputs: Tensor, weights: Tensor | None) -> None:
        if names not in sums:
            size, device = inputs.shape[1], inputs.device
            sums[names] = no_moments(size, device)
            sums[names]["magnitudes"] = torch.zeros(size, dtype=torch.float32, device=device)
        add_moments(sums[names], inputs, weights)
        magnitudes = inputs.abs() if weights is None else inputs.abs().float() * weights[:, None]
        sums[names]["magnitudes"] += magnitudes.sum(0, dtype=torch.float32)

    observe_weighted(block, batches, observe)
    return by_layer(block.groups, {names: summed(own) for names, own in sums.items()})
