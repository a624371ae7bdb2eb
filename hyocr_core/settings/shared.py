"""What the settings of a run and of an evaluation have in common: names and devices, metrics, the bounds of a gate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, RootModel, create_model, model_validator

from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.contract.config import FrozenModel, parse_config, show
from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import ConfigError
from hyocr_core.plugin.metrics import installed_metrics, load_metric

PAGES = "pages"
"""The unit of metrics that count pages."""

_Fraction = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=0)]

OWN_BOUNDS: Mapping[str, tuple[Any, str]] = {
    "agreement": (_Fraction, "at least this fraction of next tokens on which both agree"),
    "kl": (_Positive, "KL(baseline || model) at most this, mean per token in nats"),
    "cut": (_Count, "at most so many more pages that reach the limit of new tokens"),
    "identical": (_Fraction, "at least this fraction of pages with the very text of the baseline"),
}
"""Bounds on what no metric gives: their type and meaning."""


class Gate(RootModel[dict[str, float]]):
    """What a checkpoint must hold beside the one it was made from, its baseline, to be accepted.

    Name -> bound: one of OWN_BOUNDS, or an installed metric, which may be so much worse than the baseline's, in
    percentage points if it is a fraction. As text `cer=0.5,agreement=0.98,loops=0`.
    """

    model_config = ConfigDict(frozen=True)

    @property
    def bounds(self) -> dict[str, float]:
        """What is asked."""
        return dict(self.root)

    @property
    def metrics(self) -> list[str]:
        """The metrics that are bounded."""
        return [name for name in self.root if name not in OWN_BOUNDS]

    @model_validator(mode="before")
    @classmethod
    def _checked(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = _split_bounds(value)
        if not isinstance(value, Mapping):
            return value
        given = {str(name): bound for name, bound in value.items() if bound is not None}
        asked = {_spelled(name): bound for name, bound in given.items()}
        if len(asked) < len(given):
            raise ValueError(f"{', '.join(given)}: one of them is there twice, with hyphens and with underscores")
        if not asked:
            raise ValueError(f"asks nothing; give bounds, such as cer=0.5; there are {', '.join(_known_bounds())}")
        kinds: dict[str, Any] = {name: (_kind_of(name), ...) for name in asked}
        try:
            return parse_config(create_model("Bounds", __base__=FrozenModel, **kinds), asked, "").model_dump()
        except ConfigError as error:
            raise ValueError(str(error).removeprefix(": ")) from None


def _split_bounds(text: str) -> dict[str, str]:
    bounds: dict[str, str] = {}
    for part in text.split(","):
        metric, equals, bound = (piece.strip() for piece in part.partition("="))
        if not (metric and equals and bound):
            raise ValueError(f"{show(part.strip())}: write METRIC=BOUND, such as cer=0.5,loops=0")
        if metric in bounds:
            raise ValueError(f"{metric} is there twice")
        bounds[metric] = bound
    return bounds


def _spelled(name: str) -> str:
    """A name as its entry point has it, which many would write with underscores, as keys of YAML are."""
    hyphenated = name.replace("_", "-")
    known = _known_bounds()
    return hyphenated if name not in known and hyphenated in known else name


def _kind_of(name: str) -> Any:
    """The type of a bound. Raises ValueError for a name that is none."""
    if name in OWN_BOUNDS:
        return OWN_BOUNDS[name][0]
    known = _known_bounds()
    if name.rpartition(":")[2] not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"valid keys: {', '.join(known)}"
        raise ValueError(f"{name}: unknown key; {hint}")
    return _Count if load_metric(name).cls.unit == PAGES else _Positive


def _known_bounds() -> list[str]:
    return [*dict.fromkeys(entry.name for entry in installed_metrics()), *OWN_BOUNDS]


def bound_meanings(distribution: str) -> Iterator[tuple[str, str]]:
    """Every bound and its meaning: hyocr's own, and those on the metrics of a distribution."""
    for entry in installed_metrics():
        if entry.distribution == distribution:
            metric = load_metric(entry.selector).cls
            worse = "above" if metric.better == "smaller" else "below"
            unit = {"%": "so many percentage points", "": "so much"}.get(metric.unit, f"so many {metric.unit}")
            yield entry.name, f"{metric.title}: at most {unit} {worse} the baseline's"
    yield from ((name, meaning) for name, (_, meaning) in OWN_BOUNDS.items())


def plugins_by_name(value: Any) -> Any:
    """`a,b`, and a list of names, as a mapping of names to options; anything else as it is."""
    if isinstance(value, str):
        value = [name.strip() for name in value.split(",")]
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return {name: {} for name in value}
    return value


Plugins = Annotated[dict[Annotated[str, Field(min_length=1)], dict[str, Any]], BeforeValidator(plugins_by_name)]
"""Plugins by name, each with its options; also `name,name`."""


def _forwards(value: Any) -> Any:
    return tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value


def _one_or_two(value: tuple[Forward, ...]) -> tuple[Forward, ...]:
    if len(value) not in (1, 2) or len(set(value)) < len(value):
        raise ValueError(f"should be {' or '.join(FORWARDS)}, or both: {','.join(FORWARDS)}")
    return value


Forwards = Annotated[tuple[Forward, ...], BeforeValidator(_forwards), AfterValidator(_one_or_two)]
"""What a model computes, or both, to be compared; also `reference,transformers`."""


def _known_device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
        raise ValueError("should be auto, cpu, cuda or cuda:N")
    return value


Device = Annotated[str, AfterValidator(_known_device)]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


MODEL = (
    "checkpoint folder, or a model on the Hugging Face hub: its id, such as tencent/HunyuanOCR, a folder in it, such "
    "as tencent/HunyuanOCR/v1.0, either of them with @revision, or its URL; or on ModelScope, ms:tencent/HunyuanOCR"
)
"""What names a checkpoint."""

MAX_PIXELS = (
    "pixels to which larger pages are scaled down, in calibration and evaluation alike; at most, and by default, what "
    "the model's image processor allows"
)
"""What lowers the pixels of a page."""

Name = Annotated[str, Field(min_length=1), BeforeValidator(_as_text)]
"""A folder, which may be a Path, an id on the hub, or a source."""


def _whole_text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None
    return value


Text = Annotated[str, AfterValidator(_whole_text)]
"""A text for the model, which a command line may have got wrong."""

TASK = (
    "official prompt for pages without a question: doc_parse, the default, table, table:en, extraction=total,date, ..."
)
"""What names a question."""

SYSTEM = (
    "system message of all pages, none of which may then bring its own; by default theirs, or an empty one, as the "
    "official clients send it"
)
"""What a system message is."""
RepetitionPenalty = Annotated[
    float | None,
    Field(
        ge=1,
        description="what the logits of tokens that were there before are divided by, or multiplied if negative; 1 for "
        "none, the checkpoint's own by default, or 1.08 for v1.5, which has none in its files",
    ),
]
MaxNewTokens = Annotated[
    int | None,
    Field(
        ge=1,
        description="most tokens of an answer; the checkpoint's own limit by default, or 32768, and never more than "
        "its context has left",
    ),
]
KeepLoops = Annotated[
    bool, Field(description="let an answer that repeats itself go on to its limit, where the official clients stop it")
]


class WritesAnswers(Protocol):
    """Settings of what lets a model write."""

    @property
    def repetition_penalty(self) -> float | None: ...
    @property
    def max_new_tokens(self) -> int | None: ...
    @property
    def keep_loops(self) -> bool: ...


def as_asked(own: Decoding, settings: WritesAnswers) -> Decoding:
    """The checkpoint's own decoding, but for what the user said."""
    asked = {"repetition_penalty": settings.repetition_penalty, "max_new_tokens": settings.max_new_tokens}
    said = {key: value for key, value in asked.items() if value is not None}
    return own.model_copy(update={**said, "stop_loops": not settings.keep_loops})
