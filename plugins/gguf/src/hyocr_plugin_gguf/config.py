"""The options of the method `gguf`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hyocr_core import Fallback, WeightedConfig

BLOCKS = {"q4_0": 32, "q4_1": 32, "q8_0": 32, "q4_k_m": 256, "q6_k": 256, "f16": 1}
"""Weights in a block, which a row has to be filled with."""
IMPORTANT = (".v_proj", ".down_proj")
"""The linears to which llama.cpp's mixtures give more bits in some blocks."""


class GgufConfig(WeightedConfig):
    """How weights are stored, and how their codes are found."""

    format: Literal["gguf"] = Field("gguf", description="checkpoint format to write")
    type: Literal["q4_0", "q4_1", "q8_0", "q4_k_m", "q6_k", "f16"] = Field(
        "q4_0",
        description="how the decoder's linears are stored: q4_0, 4 bits and a scale for every 32 weights; q4_1, with a "
        "minimum too; q8_0, 8 bits; q4_k_m, 4 bits in super-blocks of 256, and 6 where llama.cpp takes them; q6_k, "
        "6 bits; f16, not quantized",
    )
    more_bits: bool = Field(
        False,
        description="q4_k_m: store v_proj and down_proj in 6 bits; the method sets it for the blocks that llama.cpp "
        "gives them in",
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
    def block(self) -> int:
        """Weights in a block."""
        return BLOCKS[self.type]

    def stored_type(self, name: str) -> str:
        """What ggml calls the type of the linear with this name, on disk or in memory, and these options."""
        if self.type != "q4_k_m":
            return self.type
        return "q6_k" if self.more_bits and name.endswith(IMPORTANT) else "q4_k"

    @property
    def embedding_type(self) -> str:
        """The type of the token embedding."""
        if self.embedding != "auto":
            return self.embedding
        return "f16" if self.type == "f16" else "q8_0"

    def fallback(self, shape: tuple[int, int]) -> Fallback | None:
        """Of a linear whose rows are no whole blocks, such as the vision tower's 1152 x 4304."""
        if shape[1] % self.block == 0:
            return None
        taken = next(kind for kind in ("q8_0", "f16") if shape[1] % BLOCKS[kind] == 0)
        why = f"blocks of {self.block} do not divide its {shape[1]} input channels, so that it is stored as {taken}"
        return Fallback({"type": taken}, why)
