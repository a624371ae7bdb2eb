"""Format `plain8`: int8 codes (N, K) and a scale per output channel (N, 1). Imports torch only when it computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hyocr_core import QuantizedNames
from hyocr_core.formats import (
    EIGHT_BITS,
    TRANSFORMERS,
    VLLM_CPU,
    VLLM_CUDA,
    Bound,
    Format,
    Ignored,
    Runtime,
    TensorLayout,
    one_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Plain8Format(Format):
    """even: every code is a multiple of two, which config.json promises."""

    api_version: ClassVar[int] = 1
    codes: ClassVar[str] = "codes"

    even: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a quantization_config describes."""
        return cls(one_of(config, "even", (True, False), default=False))

    @classmethod
    def ignored(cls, config: Mapping[str, Any]) -> Ignored:
        """`left_out`."""
        return Ignored("left_out", tuple(config["left_out"]), "exact")

    @classmethod
    def usual(cls) -> Mapping[str, Format]:
        """As the method writes it."""
        return {"plain8": cls()}

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says."""
        return {"quant_method": "plain8", "even": self.even, "left_out": list(names.ignored)}

    @property
    def in_words(self) -> str:
        """Plainly."""
        return "plain int8"

    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Codes and scales."""
        return {"codes": TensorLayout(shape, ("int8",)), "scale": TensorLayout((shape[0], 1), ("bfloat16", "float32"))}

    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """That of the codes."""
        return codes[0], codes[1]

    def decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Return codes * scale."""
        return (tensors["codes"].float() * tensors["scale"].float()).to(dtype)

    def groups(self, shape: tuple[int, int]) -> int:
        """One."""
        return 1

    @property
    def quantizes_inputs(self) -> bool:
        """Weights only."""
        return False

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the inputs."""
        return inputs

    @property
    def bound(self) -> Bound:
        """Of eight bits."""
        return EIGHT_BITS

    def nearest(self, weight: Tensor, sharing: Iterable[Tensor] = ()) -> Tensor:
        """Return the weight rounded output by output."""
        scale = (weight.float().abs().amax(1, keepdim=True) / 127).clamp(min=1e-6).to(weight.dtype)
        return ((weight.float() / scale.float()).round() * scale.float()).to(weight.dtype)

    @property
    def shares_scale(self) -> bool:
        """Each output has its own."""
        return False

    @property
    def shared(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def value_problems(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[tuple[str, str]]:
        """Codes are even where config.json promises it."""
        if self.even and bool((tensors["codes"] % 2).any()):
            yield "codes", "has odd codes, but even is true"

    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:
        """Its own runtime is none of these."""
        vllm = [Runtime(name, "no", "it has no plain8") for name in (VLLM_CPU, VLLM_CUDA)]
        return *vllm, Runtime(TRANSFORMERS, "unsure", "needs a package that nobody wrote")

    @property
    def packages(self) -> tuple[str, ...]:
        """The package that nobody wrote."""
        return ("plain8_for_transformers",)

    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:
        """Never."""
        return False
