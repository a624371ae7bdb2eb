"""The options of the method `gguf`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hyocr_core import Fallback, WeightedConfig

BLOCK = 32
"""Weights that share a scale, in every quantized type that is offered here."""


class GgufConfig(WeightedConfig):
    """How weights are stored, and how their codes are found."""

    format: Literal["gguf"] = Field("gguf", description="checkpoint format to write")
    type: Literal["q4_0", "q4_1", "q8_0", "f16"] = Field(
        "q4_0",
        description="how the decoder's linears are stored: q4_0, 4 bits and a scale for every 32 weights; q4_1, with a "
        "minimum too; q8_0, 8 bits; f16, not quantized",
    )
    embedding: Literal["auto", "q8_0", "f16"] = Field(
        "auto",
        description="how the token embedding, which is the head too, is stored; auto: q8_0, or f16 with type: f16",
    )
    mmproj: Literal["f16", "q8_0"] = Field(
        "f16", description="how the linears of the vision part are stored that are not quantized (quant_vit)"
    )
    codes: Literal["gptq", "nearest"] = Field(
        "gptq",
        description="gptq: calibrated on pages, errors corrected by second-order information; nearest: as "
        "`llama-quantize` rounds them, without pages",
    )
    desc_act: bool = Field(True, description="quantize input channels in falling order of their activations")
    damp_percent: Annotated[
        float, Field(gt=0, lt=1, description="share of the Hessian's mean diagonal added to its diagonal")
    ] = 0.01
    target_strength: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="how far weights first move to where quantized inputs give the full-precision model's outputs "
            "(GPTAQ); 0: plain GPTQ, which takes one pass less",
        ),
    ] = 0.75
    block_size: Annotated[
        int, Field(ge=1, description="columns between two updates of the whole weight; changes speed, not the result")
    ] = 128

    @property
    def needs_calibration(self) -> bool:
        """Whether codes are searched for at all."""
        return self.solves

    @property
    def needs_reference(self) -> bool:
        """Whether weights move."""
        return self.target_strength > 0

    @property
    def solves(self) -> bool:
        """Whether codes come from the solver."""
        return self.codes == "gptq" and self.type != "f16"

    @property
    def embedding_type(self) -> str:
        """The type of the token embedding."""
        if self.embedding != "auto":
            return self.embedding
        return "f16" if self.type == "f16" else "q8_0"

    def fallback(self, shape: tuple[int, int]) -> Fallback | None:
        """Of a linear whose rows are no whole blocks, such as the vision tower's 1152 x 4304."""
        if self.type == "f16" or shape[1] % BLOCK == 0:
            return None
        why = f"blocks of {BLOCK} do not divide its {shape[1]} input channels, so that it is stored as f16"
        return Fallback({"type": "f16"}, why)
