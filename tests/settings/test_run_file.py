"""YAML, flags and overrides become a RunConfig, or one line that says what to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyocr_core.errors import ConfigError
from hyocr_core.settings.run_file import load_yaml, merge_run_config, parse_override

FLAGS = {"model": "m", "output": "o", "method": "gptq"}


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
    run = merge_run_config(file, flags, ["bits=4", "search.steps=3", "search.depth=1"]).run
    assert (run.model, run.output, run.seed, run.spill, run.num_samples) == ("b", Path("out"), 3, True, 7)
    assert run.options == {"bits": 4, "sym": True, "search": {"steps": 3, "depth": 1}}


def test_a_run_needs_no_file_and_has_defaults() -> None:
    run = merge_run_config(None, FLAGS, []).run
    assert (run.calib, run.num_samples, run.seed, run.device, run.options) == ("synthetic", 128, 0, "auto", {})


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1"])
def test_devices(device: str) -> None:
    assert merge_run_config(None, {**FLAGS, "device": device}, []).run.device == device


def test_empty_options_in_the_file_are_none(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("options:\n  # bits: 8\n")
    assert merge_run_config(file, FLAGS, ["bits=4"]).run.options == {"bits": 4}


@pytest.mark.parametrize(
    ("flags", "overrides", "expected"),
    [
        ({}, [], "run configuration: model: is missing; output: is missing"),
        ({**FLAGS, "num_samples": 0}, [], "num_samples = 0: should be greater than or equal to 1"),
        ({**FLAGS, "seed": -1}, [], "seed = -1: should be greater than or equal to 0"),
        ({**FLAGS, "device": "cuda:x"}, [], "device = 'cuda:x': should be auto, cpu, cuda or cuda:N"),
        ({**FLAGS, "output": ""}, [], "output = '': is empty; name the folder to write"),
        ({**FLAGS, "model": ""}, [], "model = '': "),
        ({**FLAGS, "options": [1]}, ["bits=4"], "-o bits=4: options is not a mapping"),
        ({**FLAGS, "options": {"bits": 4}}, ["bits.x=4"], "-o bits.x=4: options.bits is not a mapping"),
        ({**FLAGS, "options": 3}, [], "options = 3: should be a mapping"),
        (
            {**FLAGS, "group_size": 3},
            [],
            "group_size: unknown key; valid keys: model, revision, output, method, options, ",
        ),
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


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("fp8_static", "fp8", {"activation_scheme": "static"}),
        ("fp8_dynamic", "fp8", {"activation_scheme": "dynamic"}),
        ("int4_gptq", "gptq", {}),
        ("int4_awq", "awq", {}),
        ("gptq", "gptq", {}),
        ("hyocr-plugin-gptq:gptq", "hyocr-plugin-gptq:gptq", {}),
        ("int4_gptk", "int4_gptk", {}),
    ],
)
def test_the_references_names_of_methods_are_understood(name: str, method: str, options: dict[str, str]) -> None:
    run = merge_run_config(None, {**FLAGS, "method": name}, []).run
    assert (run.method, run.options) == (method, options)


def test_a_plugin_of_the_very_name_goes_first(plugins: Any) -> None:
    plugins.metadata("hyocr-plugin-other", "1.0", {"int4_gptq": "other"}, "another")
    assert merge_run_config(None, {**FLAGS, "method": "int4_gptq"}, []).run.method == "int4_gptq"
    assert merge_run_config(None, {**FLAGS, "method": "int4_awq"}, []).run.method == "awq"


def test_a_method_name_and_an_option_that_contradict_are_refused(tmp_path: Path) -> None:
    message = r"options.activation_scheme = 'dynamic' contradicts the method's name, which says static"
    with pytest.raises(ConfigError, match=message):
        merge_run_config(None, {**FLAGS, "method": "fp8_static"}, ["activation_scheme=dynamic"])
    file = tmp_path / "run.yaml"
    file.write_text("method: fp8_static\nmodel: m\noutput: o\noptions: {activation_scheme: dynamic}\n")
    with pytest.raises(ConfigError, match=message):
        merge_run_config(file, {}, [])
    run = merge_run_config(file, {"method": "fp8_dynamic"}, []).run
    assert run.options == {"activation_scheme": "dynamic"}


def test_options_that_are_no_mapping_are_refused_under_any_method_name() -> None:
    with pytest.raises(ConfigError, match="options = 3: should be a mapping"):
        merge_run_config(None, {**FLAGS, "method": "fp8_static", "options": 3}, [])
