"""The command line as a user meets it: help, start-up, exit codes, one line for an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from hyocr_core import __version__
from hyocr_core.cli import methods as methods_module
from hyocr_core.cli.main import COMMANDS, main
from hyocr_core.errors import CheckpointError, RunError

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

Fail = Callable[[BaseException], None]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Makes `hyocr methods` raise."""
    monkeypatch.delenv("HYOCR_DEBUG", raising=False)

    def install(error: BaseException) -> None:
        def installed_methods() -> None:
            raise error

        monkeypatch.setattr(methods_module, "installed_methods", installed_methods)

    return install


def hyocr(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_lists_the_commands_and_shows_an_example() -> None:
    result = hyocr("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert "hyocr quant --method gptq --model tencent/HunyuanOCR --output" in result.stdout
    assert hyocr("-h").stdout == result.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_loads_and_explains_itself(name: str) -> None:
    result = hyocr(name, "--help")
    assert result.exit_code == 0, result.output
    assert "--verbose" in result.stdout
    assert f"hyocr {name}" in result.stdout


def test_version() -> None:
    assert hyocr("--version").stdout == f"hyocr, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["quantize"], ["methods", "--nope"], ["methods", "show"], []])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    result = hyocr(*arguments)
    assert result.exit_code == 2
    assert "Usage: hyocr" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("begin", ["methods", "--no", "quant --method"])
def test_what_was_typed_is_repeated_harmlessly(begin: str) -> None:
    result = hyocr(*begin.split(), f"{begin}\x1b[2J{'x' * 1000}")
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr
    assert max(map(len, result.stderr.splitlines())) <= 400


@pytest.mark.parametrize(("error", "code"), [(RunError("layer x: NaN"), 1), (CheckpointError("layer x: NaN"), 2)])
def test_an_error_is_one_line_and_an_exit_code(fail: Fail, error: Exception, code: int) -> None:
    fail(error)
    result = hyocr("methods")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "hyocr: error: layer x: NaN\n")


def test_ctrl_c_is_one_line_and_130(fail: Fail) -> None:
    fail(KeyboardInterrupt())
    result = hyocr("methods")
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "hyocr: interrupted\n")


def test_a_bug_keeps_its_traceback(fail: Fail) -> None:
    fail(ZeroDivisionError("a bug"))
    result = hyocr("methods")
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("arguments", [["-v", "methods"], ["methods", "-v"], ["methods", "--verbose"]])
def test_verbose_shows_the_chain_of_causes(fail: Fail, arguments: list[str]) -> None:
    error = RunError("layer x: NaN")
    error.__cause__ = ValueError("the cause")
    fail(error)
    result = hyocr(*arguments)
    assert result.exit_code == 1
    assert "ValueError: the cause" in result.stderr
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("hyocr: error: layer x: NaN\n")


def test_the_environment_can_ask_for_the_traceback(fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(RunError("layer x: NaN"))
    monkeypatch.setenv("HYOCR_DEBUG", "1")
    assert "Traceback" in hyocr("methods").stderr
    monkeypatch.setenv("HYOCR_DEBUG", "0")
    assert "Traceback" not in hyocr("methods").stderr


# importlib.import_module, which loads commands and plugins, does not show in `-X importtime`.
REPORT_MODULES = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, sep="\\n", file=sys.stderr))
from hyocr_core.cli.main import main
main()
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    return process([str(Path(sys.executable).with_name("hyocr")), *arguments], environment)


def process(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["methods"], ["methods", "--json"], ["methods", "show", "toy"], ["quant", "--help"], ["eval", "-h"]],
    ids=" ".join,
)
def test_start_up_imports_no_torch_and_listing_no_plugin(plugins: PluginFolder, arguments: list[str]) -> None:
    plugins.hostile("import_error")
    result = process([sys.executable, "-c", REPORT_MODULES, *arguments], {})
    assert result.returncode == 0, result.stderr
    roots = {name.partition(".")[0] for name in result.stderr.splitlines()}
    assert "hyocr_core" in roots
    assert not roots & {"torch", "transformers", "safetensors", "PIL", "numpy"}
    assert ("hyocr_plugin_toy" in roots) == (arguments[:2] == ["methods", "show"])
    assert not any(root.startswith("hostile_") for root in roots)


def test_shell_completion_offers_the_commands() -> None:
    result = run(_HYOCR_COMPLETE="bash_complete", COMP_WORDS="hyocr ", COMP_CWORD="1")
    assert [line.partition(",")[2] for line in result.stdout.splitlines()] == list(COMMANDS)


def test_an_error_of_the_installed_command(plugins: PluginFolder) -> None:
    plugins.hostile("wrong_api")
    result = run("methods", "show", "wrong_api", HYOCR_DEBUG="")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "hyocr: error: method wrong_api (hyocr-plugin-wrong-api 0.0.1): it speaks plugin API 2, "
        "this hyocr-core speaks 1; try: pip install --upgrade hyocr-core\n"
    )


def test_the_commands_are_click_commands() -> None:
    context = click.Context(main)
    for name in main.list_commands(context):
        assert isinstance(main.get_command(context, name), click.Command)
