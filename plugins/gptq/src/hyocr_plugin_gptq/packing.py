"""The tensors of one linear on disk, in both formats, and back. All functions copy.

codes: (K, N) uint8. scales: (K / g, N). zeros: (K / g, N) uint8. See formats.py for `quantization_config`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hyocr_plugin_gptq.grid import Grid

if TYPE_CHECKING:
    from torch import Tensor


def pack_gptq(codes: Tensor, grid: Grid, bits: int) -> dict[str, Tensor]:
    """Return qweight (K / f, N) int32, qzeros (K / g, N / f) int32, scales (K / g, N), g_idx (K,) int32; f = 32 / bits.

    This first version of the format stores zero points less one. g_idx is trivial: channel k is in group k // g.
    """
    group_size = len(codes) // len(grid.scales)
    return {
        "qweight": pack_rows(codes, bits),
        "qzeros": pack_rows((grid.zeros - 1).T & grid.max_code, bits).T.contiguous(),
        "scales": grid.scales.clone(memory_format=torch.contiguous_format),
        "g_idx": torch.arange(len(codes), dtype=torch.int32, device=codes.device) // group_size,
    }


def unpack_gptq(tensors: dict[str, Tensor], bits: int) -> tuple[Tensor, Grid]:
    """Invert `pack_gptq`: return codes and grid."""
    max_code = 2**bits - 1
    zeros = (unpack_rows(tensors["qzeros"].T, bits).T + 1) & max_code
    return unpack_rows(tensors["qweight"], bits), Grid(tensors["scales"], zeros, max_code)


def pack_compressed(codes: Tensor, grid: Grid, bits: int, sym: bool) -> dict[str, Tensor]:
    """Return weight_packed (N, K / f) int32, weight_scale (N, K / g), weight_shape (2,) int64; f = 32 / bits.

    Not sym: and weight_zero_point (N / f, K / g) int32. The format's codes are signed and stored plus 2^(bits-1): ours.
    """
    tensors = {
        "weight_packed": pack_rows(codes, bits).T.contiguous(),
        "weight_scale": grid.scales.T.clone(memory_format=torch.contiguous_format),
        "weight_shape": torch.tensor([codes.shape[1], codes.shape[0]], dtype=torch.int64),
    }
    if not sym:
        tensors["weight_zero_point"] = pack_rows(grid.zeros.T, bits)
    return tensors


def unpack_compressed(tensors: dict[str, Tensor], bits: int) -> tuple[Tensor, Grid]:
    """Invert `pack_compressed`: return codes and grid."""
    scales = tensors["weight_scale"].T
    if "weight_zero_point" in tensors:
        zeros = unpack_rows(tensors["weight_zero_point"], bits).T
    else:
        zeros = torch.full_like(scales, 2 ** (bits - 1), dtype=torch.uint8)
    return unpack_rows(tensors["weight_packed"].T, bits), Grid(scales, zeros, 2**bits - 1)


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
