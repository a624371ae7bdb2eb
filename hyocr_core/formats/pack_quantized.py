"""Format `compressed-tensors` with integer weights (`pack-quantized`). Imports torch only when it packs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hyocr_core.formats.base import Format, TensorLayout
from hyocr_core.formats.compressed import NEEDED, UNPACKED, CompressedFormat
from hyocr_core.formats.integer import BITS, SIXTEEN_BIT_FIRST, IntegerFormat, words
from hyocr_core.formats.runtimes import TRANSFORMERS, Runtime, in_vision
from hyocr_core.formats.settings_read import group_size, mapping, one_of
from hyocr_core.wording import phrase

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.grid import Grid


@dataclass(frozen=True)
class PackQuantizedFormat(IntegerFormat, CompressedFormat):
    """bits: 4 or 8. group_size: -1 is one group per output channel. sym: no zero points are stored.

    permuted: weight_g_idx puts any channel into any group (`actorder: group`); hyocr reads that and never writes it.
    """

    api_version: ClassVar[int] = 1
    group_format: ClassVar[str] = "pack-quantized"
    codes: ClassVar[str] = "weight_packed"
    scales: ClassVar[str] = "weight_scale"
    group_index: ClassVar[str] = "weight_g_idx"

    bits: int
    group_size: int
    sym: bool
    permuted: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a config group describes."""
        weights = mapping(config, "weights")
        one_of(config, "input_activations", (None,), default=None)
        one_of(weights, "type", ("int",))
        per_channel = one_of(weights, "strategy", ("group", "channel")) == "channel"
        order = one_of(weights, "actorder", (None, False, "static", "weight", "group", "dynamic", True), default=None)
        return cls(
            bits=one_of(weights, "num_bits", BITS),
            group_size=-1 if per_channel else group_size(weights, "group_size"),
            sym=one_of(weights, "symmetric", (True, False), default=True),
            permuted=order in ("group", "dynamic", True),
        )

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """With 4 bits, also with zero points, and with 8."""
        return {
            "compressed-tensors, 4 bits": cls(4, 128, sym=True),
            "compressed-tensors, 4 bits, zero points": cls(4, 128, sym=False),
            "compressed-tensors, 8 bits": cls(8, 128, sym=True),
        }

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

    def config_group(self) -> dict[str, Any]:
        """Return what config.json says of weights and activations."""
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
        return {"input_activations": None, "output_activations": None, "weights": weights}

    def value_problems(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[tuple[str, str]]:
        """The shape that is stored is the linear's."""
        stored = tensors["weight_shape"].tolist()
        if stored != list(shape):
            yield "weight_shape", f"says {stored}, the linear is {list(shape)}"

    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:
        """Say of each runtime whether it loads it, and of Transformers how."""
        *vllm, transformers = super().runtimes(shapes)
        unpacked = transformers.loads == "yes" and self.must_unpack(shapes)
        return *vllm, Runtime(TRANSFORMERS, "yes", UNPACKED) if unpacked else transformers

    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:
        """compressed-tensors lays models out with unpacked zero points and refuses packed ones. What else it
        takes packed, it unpacks when the whole model is called; the vision tower is called before that."""
        return not self.sym or in_vision(shapes)

    @property
    def _vllm_refusal(self) -> str | None:
        if self.permuted:
            return phrase("it takes no permuted groups (actorder: group)")
        if self.bits == 8 and not self.sym:
            return phrase("it has no zero points with 8 bits")
        return None

    @property
    def _transformers(self) -> Runtime:
        if self.permuted or (self.bits == 8 and not self.sym):
            return Runtime(TRANSFORMERS, "unsure", phrase("not tried; needs the package compressed-tensors"))
        return Runtime(TRANSFORMERS, "yes", NEEDED)
