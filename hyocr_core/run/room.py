"""Where samples wait between blocks: on the device while they fit there, else in the memory of the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WAITING = 12
"""What is kept of samples at most, both streams together, in multiples of their hidden states at the input of a block:
those, and inside a block the input of its widest linear and what the attention gave."""

SHARE = 0.5
"""Of the device's free memory, that samples may take; the rest is for a block, its statistics and its forward pass."""


@dataclass(frozen=True)
class Room:
    """device: that computes. stays: whether what is kept stays there. spills: whether the host reads it at once."""

    device: torch.device
    stays: bool
    spills: bool

    @classmethod
    def of(cls, device: torch.device, size: int, *, spill: bool) -> Room:
        """The room for samples whose hidden states have `size` bytes; spill: they go to the disk, through the host."""
        fits = device.type != "cuda" or WAITING * size <= SHARE * _free(device)
        return cls(device, fits and not spill, spill)

    def keep(self, tensor: Tensor) -> Tensor:
        """Put away what a block made; the host waits for it only where it goes to memory that is not pinned."""
        if self.stays or tensor.device.type == "cpu":
            return tensor
        if self.device.type != "cuda" or self.spills:
            return tensor.cpu()
        # The copy back is queued behind this one, so that nobody has to wait; only other readers on the host would.
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor, non_blocking=True)

    def take(self, tensor: Tensor) -> Tensor:
        """The tensor on the device that computes."""
        return tensor.to(self.device, non_blocking=True)


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0]
