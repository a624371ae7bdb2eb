"""What a shell offers behind Tab, through click's own protocol and in a real bash and zsh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from hyocr_core.cli.main import main
from hyocr_core.pages.prompts import TASKS

BIN = Path(sys.executable).parent


def offered(*words: str) -> list[tuple[str, str]]:
    """Type and value of what is offered for the last word."""
    *before, begun = words
    found = ShellComplete(main, {}, "hyocr", "_HYOCR_COMPLETE").get_completions(list(before), begun)
    return [(item.type, item.value) for item in found]


def values(*words: str) -> list[str]:
    return [value for kind, value in offered(*words) if kind == "plain"]


def test_commands_and_options() -> None:
    assert values("re") == ["read", "report"]
    assert "--calib" in values("quant", "--ca")


@pytest.mark.needs_methods
def test_methods_and_their_options() -> None:
    assert {"awq", "fp8", "gptq", "rtn"} <= set(values("quant", "--method", ""))
    assert values("methods", "show", "gp") == ["gptq"]
    assert values("quant", "--method", "gptq", "-o", "group") == ["group_size="]
    assert values("quant", "--method", "fp8", "-o", "group") == []


@pytest.mark.parametrize("words", [("-o",), ("--method", "nothing", "-o")])
def test_options_of_no_method_are_none(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert values("quant", *words, "") == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", [("quant",), ("eval", "x"), ("read", "x", "y")])
def test_tasks_and_their_languages(command: tuple[str, ...]) -> None:
    assert values(*command, "--task", "") == list(TASKS)
    assert values(*command, "--task", "table:") == [f"table:{language}" for language in TASKS["table"]]
    assert values(*command, "--task", "nothing:") == []


@pytest.mark.parametrize(
    "words",
    [
        *(("quant", option) for option in ("--model", "--calib", "--eval", "--output")),
        *(("eval", "x", option) for option in ("--data", "--baseline")),
        *(("read",), ("read", "x"), ("eval",), ("verify",), ("doctor",), ("push",), ("report",), ("sweep",)),
    ],
    ids=" ".join,
)
def test_files_are_offered_for_models_and_pages(words: tuple[str, ...]) -> None:
    assert offered(*words, "pa") == [("file", "pa")]


def test_a_misspelt_command_is_told_what_may_be_meant() -> None:
    result = CliRunner().invoke(main, ["qaunt", "--model", "x"])
    assert result.exit_code == 2
    assert "No such command 'qaunt'. (Did you mean 'quant'?)" in result.stderr
    assert "meant" not in CliRunner().invoke(main, ["nothing-like-it"]).stderr


def run(*command: str, **environment: str) -> str:
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        command, env=os.environ | path | environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.needs_methods
def test_bash_completes_a_method() -> None:
    typed = "COMP_WORDS=(hyocr quant --method gp); COMP_CWORD=3; _hyocr_completion hyocr"
    script = f'eval "$(_HYOCR_COMPLETE=bash_source hyocr)"; {typed}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    assert run("bash", "-c", script).split() == ["gptq"]


@pytest.mark.needs_methods
def test_zsh_is_given_a_method_and_what_it_does() -> None:
    """What click's script for zsh reads; zsh itself is on few machines of CI."""
    assert "#compdef hyocr" in run("hyocr", _HYOCR_COMPLETE="zsh_source")
    typed = {"COMP_WORDS": "hyocr quant --method gp", "COMP_CWORD": "3", "_HYOCR_COMPLETE": "zsh_complete"}
    kind, name, said = run("hyocr", **typed).splitlines()
    assert (kind, name) == ("plain", "gptq")
    assert "GPTQ" in said
