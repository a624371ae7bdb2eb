"""The options of one `hyocr quant` run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hyocr_core.contract.backend import Forward
from hyocr_core.contract.config import FrozenModel
from hyocr_core.settings.recipe import Recipe
from hyocr_core.settings.shared import (
    MAX_PIXELS,
    MODEL,
    SYSTEM,
    TASK,
    Device,
    Gate,
    KeepLoops,
    MaxNewTokens,
    Plugins,
    RepetitionPenalty,
    Text,
)
from hyocr_core.wording import Language


class RunConfig(FrozenModel):
    """One `hyocr quant` run."""

    model: str = Field(min_length=1, description=MODEL)
    revision: str | None = Field(
        None, min_length=1, description="commit, branch or tag of a model on the hub; the newest by default"
    )
    output: Path = Field(description="folder to write; must be new or empty")
    method: str | None = Field(
        None, min_length=1, description="name of the quantization method, or distribution:name; or recipe says it"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")
    overrides: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="options of single layers: name or glob, on-disk or in-memory -> options of the method; the first "
        "that matches counts",
    )
    vision: str | None = Field(
        None,
        min_length=1,
        description="another method for the vision tower, with its default options; fp8 means fp8_dynamic there",
    )
    recipe: Recipe | None = Field(
        None,
        description="rules, in the place of method: each says which linears (match) which method quantizes, with which "
        "options; the first that matches holds. Also the file or the name of a recipe",
    )
    calib: str = Field(
        "synthetic",
        min_length=1,
        description="calibration source: folder of images and PDFs, JSONL or PDF file, hf:DATASET or synthetic[:N]; "
        "or several, joined by commas",
    )
    task: str | None = Field(None, description=TASK)
    system: Text | None = Field(None, description=SYSTEM)
    answers: Literal["data", "generate", "none"] = Field(
        "data",
        description="answers that pages are calibrated with: data, those of the source; generate, what the "
        "full-precision model itself reads; none",
    )
    keep_duplicates: bool = Field(False, description="use copies of a page too, also scaled or recompressed ones")
    num_samples: Annotated[int, Field(ge=1, description="calibration samples to use")] = 128
    max_pixels: int | None = Field(None, ge=1, description=MAX_PIXELS)
    seed: Annotated[int, Field(ge=0, description="seed of every random choice")] = 0
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N")
    forward: Forward = Field(
        "reference",
        description="what the model computes: reference, as its authors' code has it; transformers, as the port in "
        "Transformers has it",
    )
    spill: bool = Field(False, description="keep the activation cache on disk instead of in memory")
    keep_head: bool = Field(
        False, description="keep a head on disk that is a copy of the embedding to which the config ties it"
    )
    allow_degraded: bool = Field(False, description="exit 0 even if a layer fell back to round to nearest (RTN)")
    observers: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="observers to run beside the hooks, by name, each with its options"
    )
    eval: str | None = Field(
        None,
        min_length=1,
        description="pages that the finished checkpoint and the original read before it is published; as calib",
    )
    eval_samples: int | None = Field(None, ge=1, description="pages to draw from eval; all of them by default")
    metrics: Plugins = Field(
        default_factory=dict,
        description="further metrics to measure on eval's pages, name,name, or by name with their options",
    )
    gate: Gate | None = Field(
        None, description="bounds that the finished checkpoint must hold, such as cer=0.5,agreement=0.98,loops=0"
    )
    repetition_penalty: RepetitionPenalty = None
    max_new_tokens: MaxNewTokens = None
    keep_loops: KeepLoops = False
    lang: Language = Field("en", description="language of the model card and the report page: en or zh")
    keep: bool = Field(False, description="publish a checkpoint that fails its gate under the output's name too")

    @field_validator("output", mode="before")
    @classmethod
    def _output_named(cls, value: object) -> object:
        # Path("") is the current folder, and what a script with an unset variable passes.
        if value == "":
            raise ValueError("is empty; name the folder to write")
        return value

    @model_validator(mode="after")
    def _method_or_recipe(self) -> RunConfig:
        if self.recipe is None:
            if self.method is None:
                raise ValueError("name a method, or a recipe")
            return self
        for key in ("method", "options", "overrides", "vision"):
            if getattr(self, key):
                raise ValueError(f"{key} has no place beside recipe, whose rules say it")
        return self

    @model_validator(mode="after")
    def _evaluated(self) -> RunConfig:
        for key in ("gate", "eval_samples", "metrics"):
            if self.eval is None and getattr(self, key):
                raise ValueError(f"{key} needs eval, the pages to read")
        for key in ("repetition_penalty", "max_new_tokens", "keep_loops"):
            if self.eval is None and self.answers != "generate" and getattr(self, key):
                raise ValueError(f"{key} needs something to write: eval, or answers: generate")
        if self.keep and self.gate is None:
            raise ValueError("keep needs a gate that the checkpoint may fail, such as gate: cer=0.5")
        return self
