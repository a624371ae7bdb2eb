"""The options of the method `fp8`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hyocr_core import WeightedConfig
from hyocr_core.formats import CompressedFp8Format, Fp8Format

DEFAULT_PERCENTILE = 99.99


class Fp8Config(WeightedConfig):
    """What is rounded to E4M3, with which scales, and how they are stored."""

    format: Literal["compressed-tensors", "fp8"] = Field(
        "compressed-tensors",
        description="checkpoint format to write: compressed-tensors (float-quantized), or fp8, "
        "which holds one scale per weight and which Transformers does not read",
    )
    activation_scheme: Literal["static", "dynamic"] = Field(
        "static",
        description="static: one scale per layer input, from calibration; dynamic: one per token, found at run time",
    )
    weight_strategy: Literal["tensor", "channel"] | None = Field(
        None,
        description="one scale per weight (tensor), or per output channel (channel); left out: channel where "
        "activations are dynamic and the format holds it, tensor otherwise",
    )
    observer: Literal["absmax", "percentile", "mse"] = Field(
        "absmax",
        description="range of a static scale: the largest absolute value seen, a percentile of all of them, "
        "or the range with the least squared error",
    )
    percentile: Annotated[
        float | None,
        Field(
            gt=0,
            le=100,
            description=f"percentage of values that observer percentile keeps; left out: {DEFAULT_PERCENTILE}",
        ),
    ] = None
    rounding: Literal["gptq", "nearest"] | None = Field(
        None,
        description="gptq: codes of a weight make up for the errors of those before them, which needs calibration; "
        "nearest: each for itself; left out: gptq where activations are static, nearest otherwise",
    )
    kv_cache: bool = Field(
        False,
        description="add static scales for an FP8 cache of keys and values; needs calibration, and "
        "in format fp8 vLLM's --kv-cache-dtype fp8",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Refuse what the format cannot hold and options that would do nothing."""
        if self.format == "fp8" and self.weight_strategy == "channel":
            raise ValueError(
                "format: fp8 holds one scale per weight; use weight_strategy: tensor, or format: compressed-tensors"
            )
        if self.observer != "absmax" and not self.has_scales:
            raise ValueError(
                f"observer: {self.observer} has no static scale to choose; use activation_scheme: static, "
                "or kv_cache: true, or leave observer out"
            )
        if self.weighting == "balanced" and self.observer == "absmax" and not self.makes_up:
            raise ValueError(
                "weighting: balanced changes nothing for observer: absmax, the largest value of all tokens, and "
                "rounding: nearest; use observer: percentile or mse, or rounding: gptq, or leave weighting out"
            )
        if self.percentile is not None and self.observer != "percentile":
            raise ValueError("percentile is read by observer: percentile only; set that, or leave percentile out")
        return self

    @property
    def has_scales(self) -> bool:
        """Whether there is a static scale to calibrate."""
        return self.activation_scheme == "static" or self.kv_cache

    @property
    def makes_up(self) -> bool:
        """Whether codes make up for the errors of those before them."""
        return self.rounding == "gptq" or (self.rounding is None and self.activation_scheme == "static")

    @property
    def needs_calibration(self) -> bool:
        """Whether the inputs of layers have something to say."""
        return self.has_scales or self.makes_up

    @property
    def weights(self) -> Literal["tensor", "channel"]:
        """What one weight scale covers."""
        if self.weight_strategy is not None:
            return self.weight_strategy
        return "channel" if self.activation_scheme == "dynamic" and self.format == "compressed-tensors" else "tensor"

    @property
    def on_disk(self) -> Fp8Format | CompressedFp8Format:
        """The format, with what it depends on."""
        if self.format == "fp8":
            return Fp8Format(self.activation_scheme)
        return CompressedFp8Format(self.weights, self.activation_scheme, self.kv_cache)
