"""Codes on a grid as the blocks of ggml: 32 weights of one row, their scale and their codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hyocr_core.kit import Grid

if TYPE_CHECKING:
    from torch import Tensor

BITS = {"q4_0": 4, "q4_1": 4, "q8_0": 8}
SYMMETRIC = {"q4_0": True, "q4_1": False, "q8_0": True}
BLOCK = 32
MANTISSA = 7
"""Bits of a scale of q4_1: so many, and its product with a zero point of 4 bits is a float16 too."""


def storable(grid: Grid, kind: str) -> Grid:
    """Return the grid with what blocks of this type can hold exactly; its scales are float16."""
    if SYMMETRIC[kind]:
        return grid
    mantissa, exponent = torch.frexp(grid.scales.float())
    steps = 2**MANTISSA
    scales = torch.ldexp((mantissa * steps).round_() / steps, exponent).to(torch.float16)
    # A scale below float16's normal numbers has fewer bits anyway, and its product with a zero point is exact.
    return Grid(scales, grid.zeros, grid.max_code)


def pack_blocks(codes: Tensor, grid: Grid, kind: str) -> Tensor:
    """Return the blocks (N, bytes) uint8 of `codes` (K, N) uint8 on a grid of groups of 32."""
    outputs = codes.shape[1]
    scales = grid.scales.T
    packed = codes.T.reshape(outputs, -1, BLOCK)
    if kind == "q8_0":
        parts = [_bytes(scales), (packed.short() - 128).to(torch.int8).view(torch.uint8)]
    else:
        nibbles = packed[..., : BLOCK // 2] | packed[..., BLOCK // 2 :] << 4
        minima = [] if kind == "q4_0" else [_bytes((-scales.float() * grid.zeros.T).to(torch.float16))]
        parts = [_bytes(scales), *minima, nibbles]
    return torch.cat(parts, 2).flatten(1)


def _bytes(values: Tensor) -> Tensor:
    """The bytes (N, G, 2) of (N, G) float16."""
    return values.flatten().view(torch.uint8).view(*values.shape, 2)
