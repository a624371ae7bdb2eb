"""Run and method configuration as frozen pydantic models; errors become one line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hyocr_core.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

SHOWN_PROBLEMS = 4


class FrozenModel(BaseModel):
    """Immutable; an unknown key, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodConfig(FrozenModel):
    """Options every method has; a method's own config derives from this and narrows `format`."""

    format: str = Field("", description="checkpoint format to write")
    ignore: tuple[str, ...] = Field(
        (), description="layers to leave unquantized: names or globs, on-disk or in-memory; each must match something"
    )
    quant_vit: bool = Field(False, description="quantize the linears of the vision tower too")

    @property
    def needs_calibration(self) -> bool:
        """Whether these options need calibration data; asked only of a method whose MethodSpec says that it may."""
        return True

    @property
    def misread(self) -> tuple[str, ...]:
        """In-memory names of linears that a runtime would read wrong in this format, so that they stay as they are."""
        return ()


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


class WeightedConfig(MethodConfig):
    """For a method whose statistics weigh tokens: the core puts `Batch.weights` as `weighting` says."""

    weighting: Literal["uniform", "balanced"] = Field(
        "uniform",
        description="how much calibration tokens count: uniform, all the same; balanced, image, prompt and answer "
        "tokens the same in total",
    )


class RunConfig(FrozenModel):
    """One `hyocr quant` run."""

    model: str = Field(min_length=1, description="checkpoint folder, or the id of a model on the Hugging Face hub")
    output: Path = Field(description="folder to write; must be new or empty")
    method: str = Field(min_length=1, description="name of the quantization method, or distribution:name")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")
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


def parse_config(cls: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """Validate `data`.

    Raises ConfigError: one line that begins with `where` and names each wrong key, its value and what is allowed.
    """
    try:
        return cls.model_validate(dict(data))
    except ValidationError as error:
        problems = list(_problems(error, cls, data))
        more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        raise ConfigError(f"{where}: {'; '.join(problems[:SHOWN_PROBLEMS])}{more}") from error


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


def _problems(error: ValidationError, cls: type[BaseModel], data: Mapping[str, Any]) -> Iterator[str]:
    """Yield one phrase for each key that is wrong; the branches of a union are joined by `or`."""
    phrases: dict[str, list[str]] = {}
    for item in error.errors(include_url=False):
        path = _real_path(item, data)
        phrase = _phrase(item, _valid_keys(cls, path[:-1]))
        phrases.setdefault(".".join(path) + _shown_value(item), []).append(phrase)
    for subject, found in phrases.items():
        text = " or ".join(dict.fromkeys(found))
        yield f"{subject}: {text}" if subject else text


def _real_path(item: ErrorDetails, data: Any) -> list[str]:
    """The location of an error without the names of union branches, which pydantic mixes into it."""
    path, at_end = [], item["loc"][-1:] if item["type"] == "missing" else ()
    for part in item["loc"][: len(item["loc"]) - len(at_end)]:
        inside = data.get(part, data) if isinstance(data, Mapping) else data
        if isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            inside = data[part]
        if inside is not data:
            path.append(str(part))
        data = inside
    return [*path, *map(str, at_end)]


def _shown_value(item: ErrorDetails) -> str:
    hidden = item["type"] in ("missing", "extra_forbidden") or isinstance(item["input"], Mapping)
    return "" if hidden else f" = {show(item['input'])}"


def _phrase(item: ErrorDetails, valid: Sequence[str]) -> str:
    if item["type"] == "missing":
        return "is missing"
    if item["type"] == "extra_forbidden":
        near = get_close_matches(str(item["loc"][-1]), valid, n=1)
        return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; valid keys: {', '.join(valid)}"
    cause = item.get("ctx", {}).get("error")
    text = str(cause) if cause else item["msg"].removeprefix("Input ")
    # What pydantic calls a tuple and a dictionary is a list and a mapping to a writer of YAML.
    return text.replace("valid tuple", "list").replace("valid dictionary", "mapping")


def _valid_keys(cls: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the model at `path` below `cls`."""
    for part in path:
        field = next((field for name, field in cls.model_fields.items() if part in (field.alias, name)), None)
        cls = next(_models_in(field.annotation), cls) if field else cls
    return [field.alias or name for name, field in cls.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def show(value: Any) -> str:
    """A value as an error shows it, cut short."""
    short = Repr()
    short.maxstring = short.maxother = 60
    return short.repr(value)
