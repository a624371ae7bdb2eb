"""Format `gptq`: integer weights as AutoGPTQ and GPTQModel write them. Imports torch only when it packs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import CheckpointError
from hyocr_core.formats.base import Format, TensorLayout
from hyocr_core.formats.gptqmodel import NOT_TRIED, GptqmodelFormat
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.integer import BITS, SIXTEEN_BIT_FIRST, words, wrong_zeros
from hyocr_core.formats.rules import PATTERN, Rule
from hyocr_core.formats.runtimes import TRANSFORMERS, Runtime
from hyocr_core.formats.settings_read import check_pattern, group_size, mapping, one_of
from hyocr_core.wording import phrase

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.grid import Grid

LEFT_OUT, OVERRIDDEN = "-:", "+:"
"""How patterns of GPTQModel's `dynamic` begin; one without a prefix overrides too."""


@dataclass(frozen=True)
class GptqFormat(GptqmodelFormat):
    """bits: 4 or 8. group_size: -1 is one group per output channel.

    desc_act: g_idx may put any channel into any group; hyocr reads that and never writes it.
    version: 1 stores zero points less one, 2 (`gptq_v2`) as they are.
    """

    api_version: ClassVar[int] = 1
    group_index: ClassVar[str] = "g_idx"

    bits: int
    group_size: int
    sym: bool
    desc_act: bool = False
    version: Literal[1, 2] = 1

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a quantization_config describes, or one with what `dynamic` says of a layer."""
        one_of(config, "lm_head", (False, None), default=False)
        one_of(config, "pack_dtype", ("int32", None), default=None)
        written = one_of(config, "checkpoint_format", ("gptq", "gptq_v2", None), default=None)
        return cls(
            bits=one_of(config, "bits", BITS),
            group_size=group_size(config, "group_size"),
            sym=one_of(config, "sym", (True, False), default=True),
            desc_act=one_of(config, "desc_act", (True, False), default=False),
            version=2 if written == "gptq_v2" else 1,
        )

    @classmethod
    def exceptions(cls, config: Mapping[str, Any]) -> Iterator[Rule]:
        """Yield GPTQModel's `dynamic`: patterns of layers that are left out (`-:`) or stored with other settings."""
        if not config.get("dynamic"):
            return
        for key, changes in mapping(config, "dynamic").items():
            pattern = key.removeprefix(LEFT_OUT).removeprefix(OVERRIDDEN)
            check_pattern("dynamic", key, pattern)
            if key.startswith(LEFT_OUT):
                yield Rule(f"{PATTERN}{pattern}", None)
                continue
            own = mapping({f"dynamic.{key}": changes}, f"dynamic.{key}")
            try:
                yield Rule(f"{PATTERN}{pattern}", cls.read({**config, **own}))
            except CheckpointError as error:
                raise CheckpointError(f"{error} (in dynamic.{key})") from error

    @classmethod
    def ignored(cls, config: Mapping[str, Any]) -> Ignored:  # noqa: ARG003
        """No list: runtimes see in the shards what is quantized."""
        return Ignored("", None, "exact")

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """With 4 and with 8 bits."""
        return {f"gptq, {bits} bits": cls(bits, 128, sym=True) for bits in BITS}

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

    def value_problems(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[tuple[str, str]]:
        """Groups that a reader would have to permute are announced, and zero points are where `sym` says."""
        import torch

        from hyocr_core.formats.int32 import trivial_groups

        index = tensors["g_idx"]
        if not self.desc_act and not torch.equal(index, trivial_groups(len(index), self.groups(shape))):
            yield "g_idx", "permutes the groups, but desc_act is false: vLLM drops it and reads garbage"
        if self.sym:
            for problem in wrong_zeros(self.unpack(tensors)[1].zeros, self.bits, "sym is true"):
                yield "qzeros", problem

    @property
    def _vllm_refusal(self) -> str | None:
        if not self.sym:
            return phrase("its gptq has no zero points (sym: false)")
        if self.desc_act and self.group_size != -1:
            return phrase("it drops g_idx, and desc_act announces permuted groups")
        return super()._vllm_refusal

    @property
    def _transformers(self) -> Runtime:
        if self.desc_act or not self.sym:
            return Runtime(TRANSFORMERS, "unsure", NOT_TRIED)
        return super()._transformers
