"""Format `awq` (gemm): 4 bit weights with zero points as AutoAWQ writes them. Imports torch only when it packs."""

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

BITS = 4
COLUMN_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Nibble j of an int32 holds this one of its eight columns."""


@dataclass(frozen=True)
class AwqFormat(IntegerFormat):
    """group_size: -1 is one group per output channel. zero_point: what config.json says of the zero points, which are
    stored either way."""

    codes: ClassVar[str] = "qweight"

    group_size: int
    zero_point: bool

    def pack(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Return qweight (K, N / 8) int32, qzeros (K / g, N / 8) int32, scales (K / g, N), all copies.

        codes: (K, N) uint8.
        """
        import torch

        return {
            "qweight": _pack_columns(codes),
            "qzeros": _pack_columns(grid.zeros),
            "scales": grid.scales.clone(memory_format=torch.contiguous_format),
        }

    def unpack(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Grid]:
        """Invert `pack`: return codes and grid."""
        from hyocr_core.kit.grid import Grid

        grid = Grid(tensors["scales"], _unpack_columns(tensors["qzeros"]), 2**BITS - 1)
        return _unpack_columns(tensors["qweight"]), grid

    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Local name -> layout of every tensor of a linear of `shape` (N, K)."""
        outputs, inputs = shape
        count = self.groups(shape)
        return {
            "qweight": TensorLayout((inputs, words(outputs, BITS)), ("int32",)),
            "qzeros": TensorLayout((count, words(outputs, BITS)), ("int32",)),
            "scales": TensorLayout((count, outputs), SIXTEEN_BIT_FIRST),
        }

    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """The (N, K) of a linear whose qweight has this shape."""
        return codes[1] * 8, codes[0]

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says; it names every unquantized linear."""
        return {
            "quant_method": "awq",
            "bits": BITS,
            "group_size": self.group_size,
            "zero_point": self.zero_point,
            "version": "gemm",
            "modules_to_not_convert": list(names.ignored),
        }

    def _decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        from hyocr_core.kit.grid import decode

        return decode(*self.unpack({**tensors, "scales": tensors["scales"].to(dtype)})).T.contiguous()


def _pack_columns(codes: Tensor) -> Tensor:
    """Pack (R, C) uint8 into (R, C / 8) int32, eight columns each in the order of the format."""
    from hyocr_core.formats.int32 import pack_rows

    ordered = codes.reshape(len(codes), -1, 8)[:, :, list(COLUMN_ORDER)].flatten(1)
    return pack_rows(ordered.T, BITS).T.contiguous()


def _unpack_columns(words: Tensor) -> Tensor:
    from hyocr_core.formats.int32 import unpack_rows

    places = [COLUMN_ORDER.index(column) for column in range(8)]
    return unpack_rows(words.T, BITS).T.reshape(len(words), -1, 8)[:, :, places].flatten(1)
