"""Format `compressed-tensors` with weights and inputs of int8 (`int-quantized`). Imports torch only when it computes.

Inputs are quantized as vLLM does it: with the static scale, or one per token that makes its largest absolute value 127.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hyocr_core.formats.base import Format
from hyocr_core.formats.bounds import EIGHT_BITS, ONE_STEP, Bound
from hyocr_core.formats.compressed import NEEDED, UNPACKED, CompressedFormat
from hyocr_core.formats.runtimes import MERGER, TRANSFORMERS, VLLM_CPU, VLLM_CUDA, Runtime, answer, in_vision
from hyocr_core.formats.scaled import Activations, ScaledFormat, Weights, read_activations, write_activations
from hyocr_core.wording import phrase

if TYPE_CHECKING:
    from torch import Tensor

LOWEST, HIGHEST = -128, 127


@dataclass(frozen=True)
class IntQuantizedFormat(ScaledFormat, CompressedFormat):
    """weights: one scale per weight (`tensor`) or per output channel. activations: static, or dynamic per token."""

    api_version: ClassVar[int] = 1
    group_format: ClassVar[str] = "int-quantized"
    kind: ClassVar[str] = "int8"
    codes_dtype: ClassVar[str] = "int8"
    largest_code: ClassVar[float] = HIGHEST

    weights: Weights
    activations: Activations

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a config group describes."""
        return cls(*read_activations(config, "int", ("token",)))

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """With dynamic activations."""
        return {"compressed-tensors, INT8, dynamic activations": cls("channel", "dynamic")}

    @property
    def per_channel(self) -> bool:
        """By `weights`."""
        return self.weights == "channel"

    def spacing(self, codes: Tensor) -> Tensor:
        """One."""
        import torch

        return torch.ones_like(codes)

    def encode(self, values: Tensor) -> Tensor:
        """Return the nearest codes; the largest values are cut off."""
        import torch

        return values.round_().clamp_(LOWEST, HIGHEST).to(torch.int8)

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return inputs (..., K) rounded to 8-bit integers, in their dtype, computed in fp32."""
        if self.activations == "static":
            scale = tensors["input_scale"].float()
        else:
            scale = inputs.float().abs().amax(-1, keepdim=True) / HIGHEST
            # A token of zeros stays one.
            scale = scale.masked_fill(scale == 0, 1)
        return (inputs.float() / scale).round_().clamp_(LOWEST, HIGHEST).mul_(scale).to(inputs.dtype)

    @property
    def bound(self) -> Bound:
        """By what shares a scale."""
        return EIGHT_BITS if self.per_channel else ONE_STEP

    @property
    def shares_scale(self) -> bool:
        """vLLM keeps the scale of each weight that it fuses."""
        return False

    def config_group(self) -> dict[str, Any]:
        """Return what config.json says of weights and activations."""
        return write_activations("int", self.weights, self.activations)

    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:
        """Say of each runtime whether it loads it."""
        why = UNPACKED if self.must_unpack(shapes) else NEEDED
        merges = not set(MERGER).isdisjoint(shapes)
        refusal = phrase("its matmul refuses the strided input of the patch merger") if merges else None
        return answer(VLLM_CPU, refusal), Runtime(VLLM_CUDA, "yes"), Runtime(TRANSFORMERS, "yes", why)

    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:
        """compressed-tensors leaves the weights of the vision tower as bytes, and torch refuses to multiply them."""
        return in_vision(shapes)
