"""The options of the methods `gptq` and `rtn`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hyocr_core import Fallback, MethodConfig, WeightedConfig
from hyocr_core.formats import MISREAD, GptqFormat, PackQuantizedFormat, group_fallback


class RtnConfig(MethodConfig):
    """How a weight is stored, and how its scales are chosen."""

    format: Literal["gptq", "compressed-tensors"] = Field(
        "gptq", description="checkpoint format to write: gptq, or compressed-tensors (pack-quantized)"
    )
    bits: Literal[4, 8] = Field(4, description="bits per weight; vLLM has no CPU kernel for 8")
    group_size: Literal[32, 64, 128, -1] = Field(
        128, description="input channels that share a scale; -1 is one scale per output channel"
    )
    sym: bool = Field(True, description="no zero points; false (4 bits, compressed-tensors only) stores one per group")
    mse: bool = Field(
        True,
        description="search each group's clipping range for the least squared error instead of taking the full range",
    )

    @model_validator(mode="after")
    def _readable(self) -> Self:
        """Refuse what no runtime reads."""
        if not self.sym and self.bits == 8:
            raise ValueError("sym: false with bits: 8 is read by no runtime; use sym: true, or bits: 4")
        if not self.sym and self.format == "gptq":
            raise ValueError(
                "sym: false in format: gptq is refused by vLLM; use format: compressed-tensors, or sym: true"
            )
        return self

    @property
    def misread(self) -> tuple[str, ...]:
        """The linear that integer kernels misread."""
        return MISREAD

    def fallback(self, shape: tuple[int, int]) -> Fallback | None:
        """Of a linear that no group divides."""
        return group_fallback(shape, self.group_size, per_layer=self.format == "compressed-tensors")

    @property
    def on_disk(self) -> GptqFormat | PackQuantizedFormat:
        """The format, with what it depends on."""
        written = GptqFormat if self.format == "gptq" else PackQuantizedFormat
        return written(self.bits, self.group_size, self.sym)


class GptqConfig(RtnConfig, WeightedConfig):
    """The storage options of round-to-nearest, and those of the GPTQ solver."""

    desc_act: bool = Field(
        True,
        description="quantize input channels in falling order of their activations; groups stay as they are (static), "
        "so the checkpoint is read like any other",
    )
    damp_percent: Annotated[
        float, Field(gt=0, lt=1, description="share of the Hessian's mean diagonal added to its diagonal")
    ] = 0.01
    mse: bool = Field(
        True,
        description="search each group's clipping range for the least error that GPTQ itself makes inside the group",
    )
    target_strength: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="how far weights first move to where quantized inputs give the full-precision model's outputs "
            "(GPTAQ); 0: plain GPTQ, which takes one pass less",
        ),
    ] = 0.75
    refine: Annotated[
        int, Field(ge=0, description="rounds of scales refitted to the codes and codes to the scales, after GPTQ")
    ] = 0
    block_size: Annotated[
        int, Field(ge=1, description="columns between two updates of the whole weight; changes speed, not the result")
    ] = 128

    @property
    def needs_reference(self) -> bool:
        """Whether weights move at all."""
        return self.target_strength > 0
