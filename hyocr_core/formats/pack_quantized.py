"""Format `compressed-tensors` with integer weights (`pack-quantized`). Imports torch only when it packs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.formats.base import SIXTEEN_BIT_FIRST, IntegerFormat, TensorLayout, words

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hyocr_core.kit.grid import Grid


@dataclass(frozen=True)
class PackQuantizedFormat(IntegerFormat):
    """bits: 4 or 8. group_size: -1 is one group per output channel. sym: no zero points are stored.

    permuted: weight_g_idx puts any channel into any group (`actorder: group`); hyocr reads that and never writes it.
    """

    codes: ClassVar[str] = "weight_packed"

    bits: int
    group_size: int
    sym: bool
    permuted: bool = False

    def pack(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Return weight_packed (N, K / f) int32, weight_scale (N, K / g), weight_shape (2,) int64; f = 32 / bits.

        codes: (K, N) uint8. Not sym: and weight_zero_point (N / f, K / g) int32. The format's codes are signed and
        stored plus 2^(bits-1): ours. All tensors are copies.
        """
        import torch

        from hyocr_core.formats.int32 import pack_rows

        tensors = {
            "weight_packed": pack_rows(codes, self.bits).T.contiguous(),
            "weight_scale": grid.scales.T.clone(memory_format=torch.contiguous_format),
            "weight_shape": torch.tensor([codes.shape[1], codes.shape[0]], dtype=torch.int64),
        }
        if not self.sym:
            tensors["weight_zero_point"] = pack_rows(grid.zeros.T, self.bits)
        return tensors

    def unpack(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Grid]:
        """Invert `pack`: return codes and grid; with a weight_g_idx the grid has a group per channel.

        Raises CheckpointError when weight_g_idx names a group that there is not.
        """
        import torch

        from hyocr_core.formats.int32 import by_channel, unpack_rows
        from hyocr_core.kit.grid import Grid

        scales = tensors["weight_scale"].T
        if self.sym:
            zeros = torch.full_like(scales, 2 ** (self.bits - 1), dtype=torch.uint8)
        else:
            zeros = unpack_rows(tensors["weight_zero_point"], self.bits).T
        grid = Grid(scales, zeros, 2**self.bits - 1)
        if self.permuted:
            grid = by_channel(grid, tensors["weight_g_idx"])
        return unpack_rows(tensors["weight_packed"].T, self.bits), grid

    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Local name -> layout of every tensor of a linear of `shape` (N, K)."""
        outputs, inputs = shape
        count = self.groups(shape)
        tensors = {
            "weight_packed": TensorLayout((outputs, words(inputs, self.bits)), ("int32",)),
            "weight_scale": TensorLayout((outputs, count), SIXTEEN_BIT_FIRST),
            "weight_shape": TensorLayout((2,), ("int64", "int32")),
        }
        if not self.sym:
            tensors["weight_zero_point"] = TensorLayout((words(outputs, self.bits), count), ("int32",))
        if self.permuted:
            tensors["weight_g_idx"] = TensorLayout((inputs,), ("int32",))
        return tensors

    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """The (N, K) of a linear whose weight_packed has this shape."""
        return codes[0], codes[1] * 32 // self.bits

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says; it names every unquantized linear."""
        per_channel = self.group_size == -1
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.sym,
            "dynamic": False,
            "strategy": "channel" if per_channel else "group",
            "group_size": None if per_channel else self.group_size,
            # Null also when columns were quantized in order of activation: a reader then has no order to undo.
            "actorder": "group" if self.permuted else None,
        }
        group = {"targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": weights}
        return {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "ignore": list(names.ignored),
            "config_groups": {"group_0": group},
        }

    def _decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        from hyocr_core.kit.grid import decode

        rounded = {**tensors, "weight_scale": tensors["weight_scale"].to(dtype)}
        return decode(*self.unpack(rounded)).T.contiguous()
