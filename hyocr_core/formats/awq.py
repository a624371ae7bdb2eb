"""Format `awq` (gemm): 4 bit weights with zero points as AutoAWQ writes them. Imports torch only when it packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.formats.base import Format, TensorLayout
from hyocr_core.formats.gptqmodel import GptqmodelFormat
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.integer import SIXTEEN_BIT_FIRST, groups_in_words, words, wrong_zeros
from hyocr_core.formats.settings_read import group_size, name_list, one_of
from hyocr_core.wording import listed, tr

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.grid import Grid

BITS = 4


@dataclass(frozen=True)
class AwqFormat(GptqmodelFormat):
    """group_size: -1 is one group per output channel. zero_point: what config.json says of the zero points, which are
    stored either way."""

    api_version: ClassVar[int] = 1
    bits: ClassVar[int] = BITS  # type: ignore[misc]

    group_size: int
    zero_point: bool

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a quantization_config describes, with AutoAWQ's old keys too."""
        one_of(config, "w_bit" if "w_bit" in config else "bits", (BITS,))
        one_of({"version": str(config.get("version", "gemm")).lower()}, "version", ("gemm",))
        size = group_size(config, "q_group_size" if "q_group_size" in config else "group_size")
        return cls(size, one_of(config, "zero_point", (True, False), default=True))

    @classmethod
    def ignored(cls, config: Mapping[str, Any]) -> Ignored:
        """`modules_to_not_convert`."""
        return Ignored("modules_to_not_convert", name_list(config, "modules_to_not_convert"), "substring")

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """With zero points."""
        return {"awq, 4 bits": cls(128, zero_point=True)}

    @property
    def sym(self) -> bool:  # type: ignore[override]
        """Whether config.json says that every zero point is the middle code."""
        return not self.zero_point

    @property
    def in_words(self) -> str:
        """Zero points are stored either way."""
        return listed([f"int{BITS}", groups_in_words(self.group_size), tr("zero points")])

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

    def value_problems(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Zero points are where `zero_point` says."""
        if not self.zero_point:
            for problem in wrong_zeros(self.unpack(tensors)[1].zeros, BITS, "zero_point is false"):
                yield "qzeros", problem


def _pack_columns(codes: Tensor) -> Tensor:
    """Pack (R, C) uint8 into (R, C / 8) int32, of each eight columns 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up."""
    from hyocr_core.formats.int32 import pack_rows

    # A view; a list as the index would have to go to the device first.
    ordered = codes.reshape(len(codes), -1, 4, 2).transpose(2, 3).flatten(1)
    return pack_rows(ordered.T, BITS).T.contiguous()


def _unpack_columns(words: Tensor) -> Tensor:
    from hyocr_core.formats.int32 import unpack_rows

    return unpack_rows(words.T, BITS).T.reshape(len(words), -1, 2, 4).transpose(2, 3).flatten(1)
