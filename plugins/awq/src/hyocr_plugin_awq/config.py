"""The options of the method `awq`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hyocr_core import Fallback, WeightedConfig
from hyocr_core.formats import MISREAD, AwqFormat, PackQuantizedFormat, group_fallback


class AwqConfig(WeightedConfig):
    """How a weight is stored, and how its scales are searched.

    `format`, `zero_point` and `mse_range` that are not given are filled in, so that a config always says what it does.
    """

    format: Literal["", "awq", "compressed-tensors"] = Field(
        "",
        description="checkpoint format to write: awq, or compressed-tensors (pack-quantized); "
        "not given: awq for 4 bits with zero points, compressed-tensors for the rest",
    )
    bits: Literal[4, 8] = Field(4, description="bits per weight; vLLM has no CPU kernel for 8")
    group_size: Literal[32, 64, 128, -1] = Field(
        128, description="input channels that share a scale; -1 is one scale per output channel"
    )
    zero_point: bool | None = Field(
        None, description="store a zero point per group; not given: true for 4 bits, false for 8, which have none"
    )
    search: Literal["linear", "module"] = Field(
        "linear",
        description="what the scales keep: the outputs of the linears, or that of the attention or MLP they are in, "
        "run over all samples for each candidate",
    )
    n_grid: Annotated[
        int, Field(ge=1, description="steps between scales by the weights (or none) and by the activations alone")
    ] = 20
    duo_scaling: bool = Field(False, description="scale by the weights' magnitudes too, not by the activations' alone")
    mse_range: bool | None = Field(
        None,
        description="clip each group of weights where its outputs' error is least (not of q and k), or take its full "
        "range; not given: clip with rounding: nearest only, codes of gptq gain nothing by it",
    )
    rounding: Literal["gptq", "nearest"] = Field(
        "gptq",
        description="gptq: codes make up for the errors of those before them; nearest: each for itself, as AWQ has it",
    )

    @model_validator(mode="after")
    def _filled_in(self) -> Self:
        """Choose what was not given by what was."""
        four = self.bits == 4
        zero_point = four if self.zero_point is None else self.zero_point
        clips = self.rounding == "nearest" if self.mse_range is None else self.mse_range
        # The model is frozen for its users; these fields are only complete from here on.
        object.__setattr__(self, "mse_range", clips)
        object.__setattr__(self, "zero_point", zero_point)
        object.__setattr__(self, "format", self.format or ("awq" if four and zero_point else "compressed-tensors"))
        return self

    @model_validator(mode="after")
    def _readable(self) -> Self:
        """Refuse what no runtime reads, or none reads fast."""
        if self.bits == 8 and self.zero_point:
            raise ValueError("zero_point: true with bits: 8 is read by no runtime; use zero_point: false, or bits: 4")
        if self.bits == 8 and self.format == "awq":
            raise ValueError("format: awq holds 4 bits only; use format: compressed-tensors, or bits: 4")
        if not self.zero_point and self.format == "awq":
            raise ValueError(
                "zero_point: false in format: awq runs on vLLM's slow kernels; "
                "use format: compressed-tensors, or zero_point: true"
            )
        return self

    @property
    def sym(self) -> bool:
        """Whether every zero point is the middle code."""
        return not self.zero_point

    @property
    def misread(self) -> tuple[str, ...]:
        """The linear that integer kernels misread."""
        return MISREAD

    def fallback(self, shape: tuple[int, int]) -> Fallback | None:
        """Of a linear that no group divides."""
        return group_fallback(shape, self.group_size, per_layer=self.format == "compressed-tensors")

    @property
    def on_disk(self) -> AwqFormat | PackQuantizedFormat:
        """The format, with what it depends on."""
        if self.format == "awq":
            return AwqFormat(self.group_size, zero_point=True)
        return PackQuantizedFormat(self.bits, self.group_size, self.sym)
