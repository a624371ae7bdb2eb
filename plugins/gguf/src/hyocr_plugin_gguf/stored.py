"""Format `gguf`: linears as the blocks of ggml, byte for byte what the .gguf files beside them hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hyocr_core import CheckpointError, QuantizedNames
from hyocr_core.formats import (
    EIGHT_BITS,
    FOUR_BITS,
    LLAMA_CPP,
    TRANSFORMERS,
    VLLM_CPU,
    VLLM_CUDA,
    Bound,
    Format,
    Ignored,
    Rule,
    Runtime,
    TensorLayout,
    one_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TYPES = ("q4_0", "q4_1", "q8_0", "q4_k", "q6_k", "f16")
BLOCKS = {"q4_0": (32, 18), "q4_1": (32, 20), "q8_0": (32, 34), "q4_k": (256, 144), "q6_k": (256, 210), "f16": (1, 2)}
"""Weights in a block, and its bytes."""
IN_WORDS = {
    "q4_0": "ggml q4_0, 4 bits, groups of 32",
    "q4_1": "ggml q4_1, 4 bits with a minimum, groups of 32",
    "q8_0": "ggml q8_0, 8 bits, groups of 32",
    "q4_k": "ggml q4_k, 4 bits with a minimum, groups of 32 in super-blocks of 256",
    "q6_k": "ggml q6_k, 6 bits, groups of 16 in super-blocks of 256",
    "f16": "float16",
}
IMPORTANCE = "weight_importance"
SIX_BITS = Bound(18.0, 0.8, 1.25, 0.95, 1.05)


@dataclass(frozen=True)
class GgufFormat(Format):
    """type: of the blocks. importance: whether the mean square of every input channel is kept beside them."""

    api_version: ClassVar[int] = 1
    codes: ClassVar[str] = "weight_blocks"

    type: str
    importance: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a quantization_config describes."""
        return cls(one_of(config, "type", TYPES), one_of(config, "importance", (True, False), default=False))

    @classmethod
    def ignored(cls, config: Mapping[str, Any]) -> Ignored:
        """`ignored_layers`."""
        return Ignored("ignored_layers", tuple(config.get("ignored_layers") or ()), "exact")

    @classmethod
    def exceptions(cls, config: Mapping[str, Any]) -> Iterable[Rule]:
        """`layers`, with settings of their own."""
        layers = config.get("layers", {})
        if not isinstance(layers, dict) or not all(isinstance(own, dict) for own in layers.values()):
            raise CheckpointError("layers in quantization_config must be an object of settings by layer")
        for name, own in layers.items():
            yield Rule(name, cls.read(own))

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """As the method writes it."""
        return {f"gguf {kind}": cls(kind) for kind in ("q4_0", "q8_0")}

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says."""
        return {"quant_method": "gguf", **self.settings, "ignored_layers": list(names.ignored)}

    @property
    def settings(self) -> dict[str, Any]:
        """What config.json says of one layer."""
        return {"type": self.type, "importance": self.importance}

    @property
    def in_words(self) -> str:
        """As llama.cpp calls it."""
        return IN_WORDS[self.type]

    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Rows of blocks."""
        outputs, inputs = shape
        weights, size = BLOCKS[self.type]
        if inputs % weights:
            raise CheckpointError(f"blocks of {weights} weights do not divide its {inputs} input channels")
        found = {self.codes: TensorLayout((outputs, inputs // weights * size), ("uint8",))}
        if self.importance:
            found[IMPORTANCE] = TensorLayout((inputs,), ("float32",))
        return found

    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """Of the blocks' bytes."""
        weights, size = BLOCKS[self.type]
        return codes[0], codes[1] // size * weights

    def decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Return the weight, rounded once to `dtype`, of what the package `gguf` makes of the blocks."""
        import torch
        from gguf.quants import dequantize

        blocks = tensors[self.codes]
        return torch.from_numpy(dequantize(blocks.cpu().numpy(), self.ggml)).to(blocks.device, dtype)

    def encode(self, weight: Tensor) -> Tensor:
        """Return the blocks (N, bytes) uint8 of `weight` (N, K), rounded as `llama-quantize` does it."""
        import torch
        from gguf.quants import quantize

        from hyocr_plugin_gguf.k_quants import GROUP, fit_steps, pack_steps

        if self.type in GROUP:
            values = weight.detach().float()
            steps = fit_steps(values, values.new_ones(values.shape[1]), self.type)
            return pack_steps(steps.codes(values), steps, self.type)
        return torch.from_numpy(quantize(weight.detach().cpu().float().numpy(), self.ggml)).view(torch.uint8)

    @property
    def ggml(self) -> Any:
        """The type as the package `gguf` names it."""
        from gguf import GGMLQuantizationType

        return GGMLQuantizationType[self.type.upper()]

    def groups(self, shape: tuple[int, int]) -> int:
        """A scale for each block."""
        return max(1, shape[1] // {"f16": shape[1], "q4_k": 32, "q6_k": 16}.get(self.type, 32))

    @property
    def quantizes_inputs(self) -> bool:
        """llama.cpp rounds inputs to 8 bits in blocks, finer than is emulated here."""
        return False

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """Return the inputs."""
        return inputs

    @property
    def bound(self) -> Bound:
        """Of as many bits."""
        if self.type in ("q4_0", "q4_1", "q4_k"):
            return FOUR_BITS
        return SIX_BITS if self.type == "q6_k" else EIGHT_BITS

    def nearest(self, weight: Tensor, sharing: Iterable[Tensor] = ()) -> Tensor:  # noqa: ARG002
        """Return `weight` rounded as `llama-quantize` does it."""
        return self.decode({self.codes: self.encode(weight)}, weight.dtype).to(weight.device)

    @property
    def shares_scale(self) -> bool:
        """Each block has its own."""
        return False

    @property
    def fused(self) -> bool:
        """llama.cpp multiplies by each linear alone."""
        return False

    @property
    def shared(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def value_problems(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Every weight is a number."""
        import torch

        if not bool(self.decode(tensors, torch.float32).isfinite().all()):
            yield self.codes, "has blocks whose scale is infinite or no number"

    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:  # noqa: ARG002
        """llama.cpp reads the files beside it, the others nothing of it."""
        why = "it reads no blocks of ggml from safetensors; the .gguf files are for llama.cpp"
        others = [Runtime(name, "no", why) for name in (VLLM_CPU, VLLM_CUDA, TRANSFORMERS)]
        return [Runtime(LLAMA_CPP, "yes", "from the .gguf files beside it"), *others]

    def beside(self, folder: Path) -> Iterator[tuple[str, str]]:
        """The two GGUF files, held against the checkpoint."""
        from hyocr_plugin_gguf.check import file_problems

        return file_problems(folder)

    @property
    def packages(self) -> tuple[str, ...]:
        """Transformers does not load it."""
        return ()

    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:  # noqa: ARG002
        """Never."""
        return False


def checkpoint_config(layers: Mapping[str, GgufFormat], names: QuantizedNames) -> dict[str, Any]:
    """Return what config.json says of layers in these formats, by name: settings of most, and those of the others."""
    most = Counter(layers.values()).most_common(1)[0][0]
    others = {name: written.settings for name, written in layers.items() if written != most}
    return most.quantization_config(names) | ({"layers": others} if others else {})
