"""The options of one `hyocr quant` run, and the bounds of its gate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hyocr_core.contract.config import FrozenModel, parse_config, show
from hyocr_core.errors import ConfigError


class Gate(FrozenModel):
    """What a checkpoint must hold beside the one it was made from, its baseline, to be accepted; None asks nothing."""

    cer: float | None = Field(
        None, ge=0, description="character error rate at most so many percentage points above the baseline's"
    )
    wer: float | None = Field(None, ge=0, description="word error rate at most so many percentage points above")
    agreement: float | None = Field(
        None, ge=0, le=1, description="at least this fraction of next tokens on which both agree"
    )
    kl: float | None = Field(None, ge=0, description="KL(baseline || model) at most this, mean per token in nats")
    loops: int | None = Field(
        None, ge=0, description="at most so many more pages than the baseline's that end in a repetition loop"
    )
    cut: int | None = Field(None, ge=0, description="at most so many more pages that reach the limit of new tokens")
    identical: float | None = Field(
        None, ge=0, le=1, description="at least this fraction of pages with the very text of the baseline"
    )

    @property
    def bounds(self) -> dict[str, float]:
        """What is asked."""
        return self.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _asks_something(self) -> Gate:
        if not self.bounds:
            raise ValueError(f"asks nothing; give bounds, such as cer=0.5; there are {', '.join(Gate.model_fields)}")
        return self


class RunConfig(FrozenModel):
    """One `hyocr quant` run."""

    model: str = Field(min_length=1, description="checkpoint folder, or the id of a model on the Hugging Face hub")
    output: Path = Field(description="folder to write; must be new or empty")
    method: str = Field(min_length=1, description="name of the quantization method, or distribution:name")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="options of single layers: name or glob, on-disk or in-memory -> options of the method; the first "
        "that matches counts",
    )
    calib: str = Field(
        "synthetic",
        min_length=1,
        description="calibration source: folder of images and PDFs, JSONL or PDF file, hf:DATASET or synthetic[:N]; "
        "or several, joined by commas",
    )
    task: str | None = Field(
        None, description="official prompt for pages without a question: parsing, spotting, parsing:zh, ..."
    )
    answers: Literal["data", "generate", "none"] = Field(
        "data",
        description="answers that pages are calibrated with: data, those of the source; generate, what the "
        "full-precision model itself reads; none",
    )
    keep_duplicates: bool = Field(False, description="use pages that are the same as another, or nearly, too")
    num_samples: Annotated[int, Field(ge=1, description="calibration samples to use")] = 128
    seed: Annotated[int, Field(ge=0, description="seed of every random choice")] = 0
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    spill: bool = Field(False, description="keep the activation cache on disk instead of in memory")
    allow_degraded: bool = Field(False, description="exit 0 even if a layer fell back to round-to-nearest")
    observers: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="observers to run beside the hooks, by name, each with its options"
    )
    eval: str | None = Field(
        None,
        min_length=1,
        description="pages that the finished checkpoint and the original read before it is published; as calib",
    )
    eval_samples: int | None = Field(None, ge=1, description="pages to draw from eval; all of them by default")
    gate: Gate | None = Field(
        None, description="bounds that the finished checkpoint must hold, such as cer=0.5,agreement=0.98,loops=0"
    )
    keep: bool = Field(False, description="publish a checkpoint that fails its gate under the output's name too")

    @field_validator("output", mode="before")
    @classmethod
    def _output_named(cls, value: object) -> object:
        # Path("") is the current folder, and what a script with an unset variable passes.
        if value == "":
            raise ValueError("is empty; name the folder to write")
        return value

    @field_validator("gate", mode="before")
    @classmethod
    def _gate_from_text(cls, value: object) -> object:
        return parse_gate(value, "bounds") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _evaluated(self) -> RunConfig:
        if self.eval is None and (self.gate is not None or self.eval_samples is not None):
            raise ValueError(f"{'eval_samples' if self.gate is None else 'gate'} needs eval, the pages to read")
        if self.keep and self.gate is None:
            raise ValueError("keep needs a gate that the checkpoint may fail, such as gate: cer=0.5")
        return self

    @field_validator("device")
    @classmethod
    def _device_known(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
            raise ValueError("should be auto, cpu, cuda or cuda:N")
        return value


def parse_gate(text: str, where: str) -> Gate:
    """Read `cer=0.5,agreement=0.98,loops=0`. Raises ConfigError of one line that begins with `where`."""
    bounds: dict[str, str] = {}
    for part in text.split(","):
        metric, equals, bound = (piece.strip() for piece in part.partition("="))
        if not (metric and equals and bound):
            raise ConfigError(f"{where}: {show(part.strip())}: write METRIC=BOUND, such as cer=0.5,loops=0")
        if metric in bounds:
            raise ConfigError(f"{where}: {metric} is there twice")
        bounds[metric] = bound
    return parse_config(Gate, bounds, where)
