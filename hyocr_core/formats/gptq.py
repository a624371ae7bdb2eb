"""Format `gptq`: integer weights as AutoGPTQ and GPTQModel write them. Imports torch only when it packs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.formats.base import SIXTEEN_BIT_FIRST, IntegerFormat, TensorLayout, words

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hyocr_core.kit.grid import Grid


@dataclass(frozen=True)
class GptqFormat(IntegerFormat):
    """bits: 4 or 8. group_size: -1 is one group per output channel.

    desc_act: g_idx may put any channel into any group; hyocr reads that and never writes it.
    version: 1 stores zero points less one, 2 (`gptq_v2`) as they are.
    """

    codes: ClassVar[str] = "qweight"

    bits: int
    group_size: int
    sym: bool
    desc_act: bool = False
    version: Literal[1, 2] = 1

    def pack(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Return qweight (K / f, N) int32, qzeros (K / g, N / f) int32, scales (K / g, N), g_idx (K,) int32.

        codes: (K, N) uint8; f = 32 / bits. g_idx is trivial: channel k is in group k // g. All tensors are copies.
        """
        import torch

        from hyocr_core.formats.int32 import pack_rows

        group_size = len(codes) // len(grid.scales)
        stored_zeros = (grid.zeros - self._zero_offset).T & grid.max_code
        return {
            "qweight": pack_rows(codes, self.bits),
            "qzeros": pack_rows(stored_zeros, self.bits).T.contiguous(),
            "scales": grid.scales.clone(memory_format=torch.contiguous_format),
            "g_idx": torch.arange(len(codes), dtype=torch.int32, device=codes.device) // group_size,
        }

    def unpack(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Grid]:
        """Invert `pack`: return codes and grid; with a g_idx that is not trivial the grid has a group per channel.

        Raises CheckpointError when g_idx names a group that there is not.
        """
        from hyocr_core.formats.int32 import by_channel, unpack_rows
        from hyocr_core.kit.grid import Grid

        max_code = 2**self.bits - 1
        zeros = (unpack_rows(tensors["qzeros"].T, self.bits).T + self._zero_offset) & max_code
        codes = unpack_rows(tensors["qweight"], self.bits)
        return codes, by_channel(Grid(tensors["scales"], zeros, max_code), tensors["g_idx"])

    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Local name -> layout of every tensor of a linear of `shape` (N, K)."""
        outputs, inputs = shape
        count = self.groups(shape)
        return {
            "qweight": TensorLayout((words(inputs, self.bits), outputs), ("int32",)),
            "qzeros": TensorLayout((count, words(outputs, self.bits)), ("int32",)),
            "scales": TensorLayout((count, outputs), SIXTEEN_BIT_FIRST),
            "g_idx": TensorLayout((inputs,), ("int32",)),
        }

    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """The (N, K) of a linear whose qweight has this shape."""
        return codes[1], codes[0] * 32 // self.bits

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:  # noqa: ARG002
        """Return what config.json says.

        It needs no list of layers: the runtimes see in the shards which are quantized. `desc_act` is false even when
        columns were quantized in order of activation: true would announce permuted groups, and here each channel
        stays in its own.
        """
        return {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "desc_act": self.desc_act,
            "sym": self.sym,
            "lm_head": False,
            "checkpoint_format": "gptq" if self.version == 1 else "gptq_v2",
            "pack_dtype": "int32",
        }

    @property
    def _zero_offset(self) -> int:
        return 2 - self.version

    def _decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        from hyocr_core.kit.grid import decode

        return decode(*self.unpack({**tensors, "scales": tensors["scales"].to(dtype)})).T.contiguous()
