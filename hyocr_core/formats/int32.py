"""Small codes in int32: 32 / bits of them in each, the first in the lowest bits; and groups by index."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.grid import Grid


def pack_rows(codes: Tensor, bits: int) -> Tensor:
    """Pack (R, C) uint8 into (R * bits / 32, C) int32: the first row of an int32 has its lowest bits."""
    factor = 32 // bits
    words = codes.new_zeros((len(codes) // factor, codes.shape[1]), dtype=torch.int32)
    for place in range(factor):
        words |= codes[place::factor].to(torch.int32) << (bits * place)
    return words


def unpack_rows(words: Tensor, bits: int) -> Tensor:
    """Invert `pack_rows`: (R, C) int32 -> (R * 32 / bits, C) uint8."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)[:, None]
    codes: Tensor = (words[:, None] >> shifts) & (2**bits - 1)
    return codes.to(torch.uint8).flatten(0, 1)


def by_channel(grid: Grid, group_index: Tensor) -> Grid:
    """Give every input channel the group that `group_index` (K,) names; the grid as it is when that is trivial.

    Raises CheckpointError when it names a group that there is not.
    """
    count = len(grid.scales)
    trivial = trivial_groups(len(group_index), count, group_index.device)
    if torch.equal(group_index, trivial.to(group_index.dtype)):
        return grid
    if not bool(((group_index >= 0) & (group_index < count)).all()):
        raise CheckpointError(f"g_idx names groups {group_index.min()} to {group_index.max()}, there are {count}")
    index = group_index.long()
    return replace(grid, scales=grid.scales[index], zeros=grid.zeros[index])


def trivial_groups(inputs: int, count: int, device: torch.device | None = None) -> Tensor:
    """The (K,) int32 index that puts neighbouring channels into each of `count` groups."""
    return torch.arange(inputs, dtype=torch.int32, device=device) // -(-inputs // count)
