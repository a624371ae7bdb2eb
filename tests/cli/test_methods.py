"""`hyocr methods`: the table, the schema of a method, and the check."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from hyocr_core.cli.main import main

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

SUMMARY = "Round-to-nearest int8 for hyocr, one scale per output channel"

NESTED = """
from typing import Literal
from pydantic import Field
from hyocr_core import MethodConfig, MethodSpec, hookimpl
from hyocr_plugin_toy.plugin import checkpoint_config, pack, quantize_layer, unpack

class Search(MethodConfig):
    steps: int = Field(20, ge=1, lt=99, description="steps to try")

class Config(MethodConfig):
    path: str = Field(description="where")
    mode: Literal["a", "b"] | None = Field(None, description="which [red]mode[/red]")
    search: Search = Field(Search(), description="the search")
    sizes: tuple[int, ...] = Field((1, 2), description="sizes")

@hookimpl
def method_spec():
    return MethodSpec("nested", Config, "n", api_version=1, needs_calibration=False)
"""


def hyocr(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["methods", *arguments])


def rows(result: Result, *names: str) -> dict[str, str]:
    """The lines of a table that begin with one of `names`."""
    return {line.split()[0]: line for line in result.stdout.splitlines() if line.split()[0] in names}


def test_the_table_in_a_pipe_has_one_line_for_each_method(plugins: PluginFolder) -> None:
    plugins.hostile("import_error")
    result = hyocr()
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split() == ["name", "distribution", "version", "status", "summary"]
    found = rows(result, "toy", "import_error")
    assert found["toy"].split(maxsplit=4) == ["toy", "hyocr-plugin-toy", "1.2.3", "installed", SUMMARY]
    assert found["import_error"].split()[1:4] == ["hyocr-plugin-import-error", "0.0.1", "installed"]
    assert "\x1b" not in result.stdout
    assert not any(line.endswith(" ") for line in result.stdout.splitlines())


def test_the_table_fits_a_terminal_of_80_columns(
    plugins: PluginFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins.toy()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    main(["methods"], standalone_mode=False)
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80
    line = next(line for line in lines if line.startswith("toy "))
    assert line.split()[:4] == ["toy", "hyocr-plugin-toy", "1.2.3", "installed"]


def test_the_list_as_json(plugins: PluginFolder) -> None:
    plugins.toy()
    listed = {entry["name"]: entry for entry in json.loads(hyocr("--json").stdout)}
    assert listed["toy"] == {
        "name": "toy",
        "distribution": "hyocr-plugin-toy",
        "version": "1.2.3",
        "summary": SUMMARY,
        "value": "hyocr_plugin_toy.plugin",
        "conflict": False,
    }


def test_a_conflict_is_seen_in_the_table_and_by_check(plugins: PluginFolder) -> None:
    plugins.toy()
    plugins.metadata("other-toys", "3", {"toy": "hyocr_plugin_toy.plugin"}, "")
    assert hyocr().stdout.count("conflict") == 2
    result = hyocr("check")
    assert result.exit_code == 1
    assert "offered by another distribution too; say --method other-toys:toy" in result.stdout


def test_control_characters_of_a_summary_are_not_printed(plugins: PluginFolder) -> None:
    plugins.metadata("red-plugin", "1", {"red": "red"}, "red \x1b[31m[bold]alert[/bold]")
    assert rows(hyocr(), "red")["red"].endswith("red ⟨U+001B⟩[31m[bold]alert[/bold]")


def test_no_method_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyocr_core.plugin.entry_points.distributions", list)
    result = hyocr()
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == (
        "no method is installed; try: pip install hyocr-plugin-gptq, or in a clone of the repository ./plugins/gptq\n"
    )
    assert json.loads(hyocr("--json").stdout) == []
    assert hyocr("check").exit_code == 0


def test_show_lists_each_option(plugins: PluginFolder) -> None:
    plugins.toy()
    result = hyocr("show", "toy")
    assert result.exit_code == 0
    found = rows(result, "format", "ignore", "clip")
    assert found["format"].split() == ["format", *["compressed-tensors"] * 2, "checkpoint", "format", "to", "write"]
    assert "list of string" in found["ignore"]
    assert "[]" in found["ignore"]
    assert "number > 0, <= 1" in found["clip"]
    assert found["clip"].split()[6:9] == ["1.0", "share", "of"]


def test_show_explains_nested_required_and_optional_options(plugins: PluginFolder) -> None:
    plugins.toy()
    plugins.module("nested", NESTED)
    found = rows(hyocr("show", "nested"), "path", "mode", "search.steps", "sizes", "search")
    assert found["path"].split() == ["path", "string", "required", "where"]
    assert "a | b | null" in found["mode"]
    assert found["mode"].endswith("which [red]mode[/red]")
    assert "integer >= 1, < 99" in found["search.steps"]
    assert "list of integer" in found["sizes"]
    assert "[1, 2]" in found["sizes"]
    assert "search" not in found


def test_show_as_json_is_the_schema(plugins: PluginFolder) -> None:
    plugins.toy()
    schema = json.loads(hyocr("show", "hyocr-plugin-toy:toy", "--json").stdout)
    assert schema["additionalProperties"] is False
    assert schema["properties"]["clip"]["exclusiveMinimum"] == 0


def test_show_of_an_unknown_method(plugins: PluginFolder) -> None:
    plugins.toy()
    result = hyocr("show", "toi")
    assert result.exit_code == 2
    assert result.stderr.startswith("hyocr: error: no method 'toi' (installed: ")
    assert result.stderr.count("\n") == 1


def test_json_before_a_subcommand_says_where_it_belongs(plugins: PluginFolder) -> None:
    result = hyocr("--json", "check")
    assert result.exit_code == 2
    assert "put --json behind check" in result.stderr


def test_check_says_what_is_broken_and_why(plugins: PluginFolder) -> None:
    plugins.hostile("import_error")
    plugins.hostile("misspelt_hook")
    result = hyocr("check")
    assert result.exit_code == 1
    found = rows(result, "toy", "import_error", "misspelt_hook")
    assert found["toy"].endswith(" ok")
    assert found["import_error"].endswith("ModuleNotFoundError: No module named 'a_package_nobody_has'")
    assert found["misspelt_hook"].endswith("there is no hook quantise_layer; did you mean quantize_layer?")


def test_check_as_json(plugins: PluginFolder) -> None:
    plugins.hostile("missing_hook")
    result = hyocr("check", "--json")
    assert result.exit_code == 1
    problems = {entry["name"]: entry["problem"] for entry in json.loads(result.stdout)}
    assert (problems["toy"], problems["missing_hook"]) == (None, "it has no hook unpack")


def test_check_of_sound_methods_exits_with_0(plugins: PluginFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import distributions

    plugins.toy()
    monkeypatch.setattr(
        "hyocr_core.plugin.entry_points.distributions", lambda: distributions(path=[str(plugins.folder)])
    )
    result = hyocr("check")
    assert result.exit_code == 0
    assert [line.split()[-1] for line in result.stdout.splitlines()] == ["verdict", "ok"]
