"""Configuration as frozen pydantic models; errors become one line. What the options of methods derive from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from reprlib import Repr
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hyocr_core.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

SHOWN_PROBLEMS = 4


class FrozenModel(BaseModel):
    """Immutable; an unknown key, NaN and infinity are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Fallback:
    """What becomes of a linear that options cannot hold, whatever else its owner may choose.

    options: what holds for it in place of the run's; None: it stays as it is.
    why: follows a colon in what the user is told.
    """

    options: Mapping[str, Any] | None
    why: str


class MethodConfig(FrozenModel):
    """Options every method has; a method's own config derives from this and narrows `format`."""

    format: str = Field("", description="checkpoint format to write")
    ignore: tuple[str, ...] = Field(
        (), description="layers to leave unquantized: names or globs, on-disk or in-memory; each must match something"
    )
    keep_ends: int = Field(
        0, ge=0, description="so many decoder blocks at either end stay as they are: 1 keeps the first and the last"
    )
    quant_vit: bool = Field(False, description="quantize the linears of the vision tower too")

    @property
    def needs_calibration(self) -> bool:
        """Whether these options need calibration data; asked only of a method whose MethodSpec says that it may."""
        return True

    @property
    def needs_reference(self) -> bool:
        """Whether these options need the full-precision path; asked only where MethodSpec says `reference_inputs`."""
        return True

    @property
    def misread(self) -> tuple[str, ...]:
        """In-memory names of linears that a runtime would read wrong in this format, so that they stay as they are."""
        return ()

    def fallback(self, shape: tuple[int, int]) -> Fallback | None:  # noqa: ARG002
        """What becomes of a linear of `shape` (N, K) that these options cannot hold; None: they can, or it is refused.

        Not asked of the linears of an override that names one of the options itself.
        """
        return None


class WeightedConfig(MethodConfig):
    """For a method whose statistics weigh tokens: the core puts `Batch.weights` as `weighting` says."""

    weighting: Literal["uniform", "balanced"] = Field(
        "uniform",
        description="how much calibration tokens count: uniform, all the same; balanced, image, prompt and answer "
        "tokens the same in total",
    )


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
        return (
            f"unknown key; did you mean {near[0]}?"
            if near
            else f"unknown key; valid keys: {', '.join(valid) or 'none'}"
        )
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
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number too long to show"
