"""The settings of one evaluation, for `hyocr eval`, `hyocr_core.evaluate` and what a run reads before it publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from hyocr_core.contract.config import FrozenModel, parse_config
from hyocr_core.settings.run_file import load_yaml, with_plugins
from hyocr_core.settings.shared import (
    MAX_PIXELS,
    MODEL,
    SYSTEM,
    TASK,
    Device,
    Forwards,
    Gate,
    KeepLoops,
    MaxNewTokens,
    Name,
    Plugins,
    RepetitionPenalty,
    Text,
)


class EvalConfig(FrozenModel):
    """One evaluation."""

    model: Name = Field(description=f"{MODEL}; of an endpoint the name of what it serves")
    revision: str | None = Field(
        None,
        min_length=1,
        description="commit, branch or tag of a model on the hub, the newest by default; that of a baseline stands in "
        "its name, org/name@revision",
    )
    data: Name = Field(description="pages with transcripts: a source as for calib")
    task: str | None = Field(None, description=f"{TASK}; metrics of the parts of its answers follow from it")
    system: Text | None = Field(None, description=SYSTEM)
    keep_duplicates: bool = Field(False, description="read copies of a page too, also scaled or recompressed ones")
    num_samples: int | None = Field(None, ge=1, description="pages to draw from the data; all of them by default")
    max_pixels: int | None = Field(None, ge=1, description=MAX_PIXELS)
    seed: Annotated[int, Field(ge=0, description="seed of draw and bootstrap")] = 0
    baseline: Name | None = Field(
        None,
        description="checkpoint to compare with: the original that the model was made from, or another",
    )
    backend: str = Field(
        "auto",
        min_length=1,
        description="what reads: auto, transformers, dequant, vllm, llama.cpp, another that is installed, or the URL "
        "of an endpoint such as http://127.0.0.1:8000/v1",
    )
    baseline_backend: str | None = Field(
        None, min_length=1, description="what reads the baseline; that of the model by default"
    )
    backend_options: Plugins = Field(default_factory=dict, description="options of backends, by the backend's name")
    cross_runtime: bool = Field(False, description="compare with the baseline even if another runtime reads that")
    python: Path | None = Field(None, description="interpreter that has vLLM, for vllm; this one by default")
    timeout: Annotated[float, Field(gt=0, description="seconds to wait for a page of an endpoint")] = 600
    rounded: bool = Field(
        False,
        description="read, too, the baseline in round to nearest (RTN): merely rounded, in the model's format",
    )
    metrics: Plugins = Field(
        default_factory=dict,
        description="further metrics to measure, name,name, or by name with their options",
    )
    gate: Gate | None = Field(
        None, description="bounds that the model must hold beside the baseline, such as cer=0.5,agreement=0.98,loops=0"
    )
    forward: Forwards = Field(
        ("reference",),
        description="what the model computes: reference, as its authors' code has it; transformers, as the port in "
        "Transformers has it; or both, reference,transformers, the model beside itself",
    )
    repetition_penalty: RepetitionPenalty = None
    max_new_tokens: MaxNewTokens = None
    keep_loops: KeepLoops = False
    batch_size: int | None = Field(
        None,
        ge=1,
        description="pages of one size read together, 32 by default; by vLLM or an endpoint at once, 8 by default "
        "where that changes no text, else 1; by llama.cpp 1 by default",
    )
    device: Device = Field("auto", description="what computes: auto, cpu, cuda or cuda:N")

    @model_validator(mode="after")
    def _compared(self) -> EvalConfig:
        if len(self.forward) > 1:
            for key in ("baseline", "baseline_backend", "gate", "rounded"):
                if getattr(self, key):
                    raise ValueError(f"{key} is for one forward; with both, the model is compared with itself")
        elif self.baseline is None:
            for key in ("baseline_backend", "gate", "rounded"):
                if getattr(self, key):
                    raise ValueError(f"{key} needs a baseline: give the checkpoint that the model was made from")
        return self

    @property
    def rival(self) -> str | None:
        """What the model is compared with: the baseline, or itself by its other forward."""
        return self.model if len(self.forward) > 1 else self.baseline


def merge_eval_config(
    file: Path | None, settings: Mapping[str, Any], plugins: Mapping[str, Sequence[str]] | None = None
) -> EvalConfig:
    """Make the settings of an evaluation from a YAML file with EvalConfig's keys, and from what was given beside it.

    What was given wins over the file, unless it is None. plugins: key -> arguments that add to the file's plugins, each
    `NAME,NAME` or `NAME:KEY=VALUE`. Raises ConfigError.
    """
    where = f"evaluation ({file})" if file else "evaluation"
    data = (load_yaml(file) if file else {}) | {key: value for key, value in settings.items() if value is not None}
    for key, arguments in (plugins or {}).items():
        if arguments:
            data[key] = with_plugins(data.get(key), arguments, f"--{key.replace('_', '-')}")
    return parse_config(EvalConfig, data, where)
