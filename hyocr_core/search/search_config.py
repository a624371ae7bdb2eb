"""What `hyocr search` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from hyocr_core.contract.backend import Forward
from hyocr_core.contract.config import FrozenModel
from hyocr_core.settings.recipe import NONE, RecipeRule
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import MAX_PIXELS, MODEL, SYSTEM, TASK, Device, Text
from hyocr_core.wording import Language

CANDIDATES = (
    "gptq bits=4",
    "gptq bits=4 group_size=32",
    "rtn bits=8 group_size=-1",
    "fp8 activation_scheme=dynamic",
    NONE,
)
BUDGETS = ("size", "kl", "cer")


class SearchConfig(FrozenModel):
    """One search."""

    model: str = Field(min_length=1, description=MODEL)
    revision: str | None = Field(None, min_length=1, description="commit, branch or tag of a model on the hub")
    data: str = Field(min_length=1, description="pages to measure on: a source as for calib")
    output: Path = Field(description="recipe file to write")
    size: int | None = Field(None, ge=1, description="most bytes of the weights")
    kl: float | None = Field(None, ge=0, description="most KL(original || quantized), mean per answer token in nats")
    cer: float | None = Field(None, ge=0, description="most percentage points of CER above the original's")
    candidates: tuple[str, ...] = Field(
        CANDIDATES,
        min_length=1,
        description="what a group of layers may get: a method and its options, such as `gptq bits=8`, or none",
    )
    vision: bool = Field(False, description="choose for the vision tower too, instead of leaving it as it is")
    num_samples: Annotated[int, Field(ge=1, description="pages that methods are calibrated on")] = 128
    scored_samples: Annotated[int, Field(ge=1, description="further pages, on which the change is measured")] = 32
    draws: Annotated[int, Field(ge=1, description="random directions of the logits that are measured, a page")] = 4
    eval: str | None = Field(
        None,
        min_length=1,
        description="pages to try recipes on; those that the change is measured on by default",
    )
    eval_samples: int | None = Field(None, ge=1, description="pages to draw from them; all by default")
    trials: Annotated[
        int, Field(ge=0, description="recipes to quantize with and to evaluate, the choice and its neighbours; 0: none")
    ] = 3
    task: str | None = Field(None, description=TASK)
    system: Text | None = Field(None, description=SYSTEM)
    keep_duplicates: bool = Field(False, description="use copies of a page too")
    max_pixels: int | None = Field(None, ge=1, description=MAX_PIXELS)
    seed: Annotated[int, Field(ge=0, description="seed of every random choice")] = 0
    device: Device = Field("auto", description="auto, cpu, cuda or cuda:N")
    forward: Forward = Field("reference", description="what the model computes, as for quant")
    spill: bool = Field(False, description="keep the activation cache on disk instead of in memory")
    lang: Language = Field("en", description="language of the page: en or zh")

    @model_validator(mode="after")
    def _one_budget(self) -> SearchConfig:
        given = [key for key in BUDGETS if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give one budget: --size, --kl or --cer; there {'is none' if not given else 'are both'}")
        if self.cer is not None and not self.trials:
            raise ValueError("cer is known of recipes that are tried only; give trials, or a budget of size or kl")
        if len(set(self.candidates)) < len(self.candidates):
            raise ValueError("a candidate is there twice")
        return self

    def run(self, rules: Sequence[RecipeRule], *, generate: bool = False) -> RunConfig:
        """The run that quantizes by these rules, calibrated on the search's pages."""
        keys = {"num_samples", "task", "system", "keep_duplicates", "max_pixels", "seed", "device", "forward", "spill"}
        shared = self.model_dump(include={"model", "revision", "output"} | keys)
        how = {"recipe": tuple(rules), "calib": self.data, "answers": "generate" if generate else "data"}
        return RunConfig.model_validate({**shared, **how})
