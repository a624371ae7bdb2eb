"""YAML, flags and overrides become a RunConfig, or one line that says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from hyocr_core.config import FrozenModel, MethodConfig, load_yaml, merge_run_config, parse_config, parse_override
from hyocr_core.errors import ConfigError

FLAGS = {"model": "m", "output": "o", "method": "gptq"}


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


def problem(data: dict[str, Any], cls: type[FrozenModel] = Options) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(cls, data, "here")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("here: ")
    return message.removeprefix("here: ")


def yaml_problem(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_yaml(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"bits": 5}, "bits = 5: should be 4 or 8"),
        ({"group_sise": 64}, "group_sise: unknown key; did you mean group_size?"),
        (
            {"zzz": 1},
            "zzz: unknown key; valid keys: format, ignore, quant_vit, bits, group_size, damp_percent, search, stages",
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


def test_many_problems_are_cut_short() -> None:
    assert problem({f"key{n}": n for n in range(9)}).endswith("; and 5 more")


def test_a_long_value_is_cut_short() -> None:
    assert len(problem({"bits": "x" * 10_000})) < 200


def test_the_result_is_frozen() -> None:
    options = parse_config(Options, {"bits": 8}, "here")
    with pytest.raises(ValidationError):
        options.bits = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", 'line 3: found duplicate key "a" with value "3" (original value: "1")'),
        ("a: 1\nb: !!python/object:os.system x\n", "line 2: could not determine a constructor for the tag"),
        ("a: 1\nb: !secret x\n", "line 2: could not determine a constructor for the tag '!secret'"),
        ("- a\n- b\n", "line 1: must be a mapping of keys to values, not ['a', 'b']"),
        ("", "line 1: must be a mapping of keys to values, not None"),
        ("a: [1, 2\nb: 3\n", "line 2: "),
        ("a: 1\n--- \nb: 2\n", "line 2: but found another document"),
        ("ignore:\n  - *.q_proj\n", "line 2: found undefined alias '.q_proj'; quote a value that begins with *"),
        (b"a: \xff\xfe", "cannot be read: it is not UTF-8 text"),
        ("a: \x07\n", "is not valid YAML: "),
        ("[" * 600, "is not valid YAML: nested too deeply"),
        ("a: 2026-13-45\n", "is not valid YAML: month must be in 1..12"),
    ],
)
def test_a_bad_file_is_one_line_with_its_number(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert yaml_problem(tmp_path, text).startswith(expected)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file or directory$"):
        load_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read: Is a directory$"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("group_size=64", ("group_size", 64)),
        ("sym=false", ("sym", False)),
        ("damp_percent=1e-2", ("damp_percent", 0.01)),
        ("ignore=[lm_head, 're:.*q_proj']", ("ignore", ["lm_head", "re:.*q_proj"])),
        ("ignore=*.q_proj", ("ignore", "*.q_proj")),
        ("name=a=b", ("name", "a=b")),
        ("search.steps=3", ("search.steps", 3)),
        ("format=gptq", ("format", "gptq")),
    ],
)
def test_an_override_is_yaml_on_its_right(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["group_size", "=64", "a..b=1", ".a=1", ""])
def test_an_override_without_key_or_value(text: str) -> None:
    with pytest.raises(ConfigError, match="write key=value, such as -o group_size=64"):
        parse_override(text)


@pytest.mark.parametrize("text", ["a=[1", "a=!x 1", "a=b: c: d", "a=[*.q_proj]"])
def test_an_override_that_is_no_yaml(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert str(caught.value).startswith(f"-o {text}: ")


@given(st.text(max_size=40))
def test_no_override_escapes_as_another_error(text: str) -> None:
    try:
        key, _ = parse_override(text)
    except ConfigError:
        return
    assert text.lstrip().startswith(key)


def test_flags_win_over_the_file_and_overrides_over_its_options(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: a\noutput: out\nmethod: gptq\nseed: 3\nspill: true\noptions: {bits: 8, sym: true}\n")
    flags = {"model": "b", "seed": None, "spill": None, "num_samples": 7}
    run = merge_run_config(file, flags, ["bits=4", "search.steps=3", "search.depth=1"])
    assert (run.model, run.output, run.seed, run.spill, run.num_samples) == ("b", Path("out"), 3, True, 7)
    assert run.options == {"bits": 4, "sym": True, "search": {"steps": 3, "depth": 1}}


def test_a_run_needs_no_file_and_has_defaults() -> None:
    run = merge_run_config(None, FLAGS, [])
    assert (run.calib, run.num_samples, run.seed, run.device, run.options) == ("synthetic", 128, 0, "auto", {})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(device: str) -> None:
    assert merge_run_config(None, {**FLAGS, "device": device}, []).device == device


def test_empty_options_in_the_file_are_none(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("options:\n  # bits: 8\n")
    assert merge_run_config(file, FLAGS, ["bits=4"]).options == {"bits": 4}


@pytest.mark.parametrize(
    ("flags", "overrides", "expected"),
    [
        ({}, [], "run configuration: model: is missing; output: is missing; method: is missing"),
        ({**FLAGS, "num_samples": 0}, [], "num_samples = 0: should be greater than or equal to 1"),
        ({**FLAGS, "seed": -1}, [], "seed = -1: should be greater than or equal to 0"),
        ({**FLAGS, "device": "cuda:x"}, [], "device = 'cuda:x': should be auto, cpu, cuda or cuda:N"),
        ({**FLAGS, "output": ""}, [], "output = '': is empty; name the folder to write"),
        ({**FLAGS, "model": ""}, [], "model = '': "),
        ({**FLAGS, "options": [1]}, ["bits=4"], "-o bits=4: options is not a mapping"),
        ({**FLAGS, "options": {"bits": 4}}, ["bits.x=4"], "-o bits.x=4: options.bits is not a mapping"),
        ({**FLAGS, "options": 3}, [], "options = 3: should be a mapping"),
        ({**FLAGS, "group_size": 3}, [], "group_size: unknown key; valid keys: model, output, method, options, "),
    ],
)
def test_a_run_that_cannot_be(flags: dict[str, Any], overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        merge_run_config(None, flags, overrides)
    assert expected in str(caught.value)


def test_an_error_of_a_run_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("modell: a\n")
    with pytest.raises(ConfigError) as caught:
        merge_run_config(file, FLAGS, [])
    assert str(caught.value) == f"run configuration ({file}): modell: unknown key; did you mean model?"


def test_merging_leaves_its_arguments_alone(tmp_path: Path) -> None:
    options = {"search": {"steps": 1}}
    merge_run_config(None, {**FLAGS, "options": options}, ["search.steps=2"])
    assert options == {"search": {"steps": 1}}
