"""A wrong configuration is one line that says what to change."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from hyocr_core.contract.config import FrozenModel, MethodConfig, parse_config
from hyocr_core.errors import ConfigError


class Search(FrozenModel):
    steps: int = Field(20, ge=1)


class Options(MethodConfig):
    bits: Literal[4, 8] = 4
    group_size: int | Literal["auto"] = 128
    damp_percent: float = Field(0.01, gt=0, lt=1)
    search: Search | None = None
    stages: tuple[Search, ...] = ()

    @model_validator(mode="after")
    def _together(self) -> Options:
        if self.bits == 8 and self.group_size == "auto":
            raise ValueError("group_size auto needs bits 4; set bits: 4 or a number")
        return self


class Needs(FrozenModel):
    path: str


class Aliased(FrozenModel):
    global_: Search = Field(alias="global")


def problem(data: dict[str, Any], cls: type[FrozenModel] = Options) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(cls, data, "here")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("here: ")
    return message.removeprefix("here: ")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"bits": 5}, "bits = 5: should be 4 or 8"),
        ({"group_sise": 64}, "group_sise: unknown key; did you mean group_size?"),
        (
            {"zzz": 1},
            "zzz: unknown key; "
            "valid keys: format, ignore, keep_ends, quant_vit, bits, group_size, damp_percent, search, stages",
        ),
        ({"search": {"step": 3}}, "search.step: unknown key; did you mean steps?"),
        ({"search": {"steps": 0}}, "search.steps = 0: should be greater than or equal to 1"),
        ({"stages": [{}, {"stepps": 1}]}, "stages.1.stepps: unknown key; did you mean steps?"),
        ({"damp_percent": float("nan")}, "damp_percent = nan: should be a finite number"),
        ({"ignore": "lm_head"}, "ignore = 'lm_head': should be a list"),
        ({"search": 3}, "search = 3: should be a mapping or instance of Search"),
        (
            {"group_size": "big"},
            "group_size = 'big': should be a valid integer, unable to parse string as an integer or should be 'auto'",
        ),
        ({"bits": 8, "group_size": "auto"}, "group_size auto needs bits 4; set bits: 4 or a number"),
        (
            {"bits": 5, "damp_percent": 1},
            "bits = 5: should be 4 or 8; damp_percent = 1: should be less than 1",
        ),
    ],
)
def test_a_wrong_option_is_one_line(data: dict[str, Any], expected: str) -> None:
    assert problem(data) == expected


def test_a_missing_key_is_named() -> None:
    assert problem({}, Needs) == "path: is missing"


def test_a_key_inside_a_renamed_one_is_found() -> None:
    assert problem({"global": {"stepps": 1}}, Aliased) == "global.stepps: unknown key; did you mean steps?"
    assert problem({"globl": {}}, Aliased).endswith("globl: unknown key; did you mean global?")


def test_many_problems_are_cut_short() -> None:
    assert problem({f"key{n}": n for n in range(9)}).endswith("; and 5 more")


def test_a_long_value_is_cut_short() -> None:
    assert len(problem({"bits": "x" * 10_000})) < 200


def test_the_result_is_frozen() -> None:
    options = parse_config(Options, {"bits": 8}, "here")
    with pytest.raises(ValidationError):
        options.bits = 4  # type: ignore[misc]
