"""YAML whose aliases stand for more than there is memory for."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hyocr_core.cli.main import main
from hyocr_core.errors import ConfigError
from hyocr_core.outside.aliases import check_aliases
from hyocr_core.settings.run_file import load_yaml, parse_override


def bomb(value: str) -> str:
    """Thirty lines that stand for 9 to the power of 30 values."""
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {value.replace('*', f'*a{n - 1}')}" for n in range(1, 31))]
    return "\n".join(lines)


LISTS = bomb("[" + ", ".join("*" * 9) + "]")
MAPPINGS = bomb("{" + ", ".join(f"k{n}: *" for n in range(9)) + "}")
MERGES = bomb("{<<: [" + ", ".join("*" * 9) + "]}")


@pytest.mark.parametrize("text", [LISTS, MAPPINGS, MERGES])
def test_a_bomb_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match=r"run.yaml: is not valid YAML: its aliases \(\*\) stand for more than 100,000"
    ):
        load_yaml(tmp_path / "run.yaml")
    for command in (["quant", "-c"], ["eval", "-c"], ["sweep"]):
        result = CliRunner().invoke(main, [*command, str(tmp_path / "run.yaml")])
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1, result.stderr


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: *a}", "&a [*a, *a]"])
def test_what_holds_itself_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"an alias \(\*\) stands for what it is a part of"):
        load_yaml(tmp_path / "run.yaml")


def test_options_on_the_command_line_too() -> None:
    with pytest.raises(ConfigError, match="stands for what it is a part of"):
        parse_override("ignore=&a [*a]")


def test_aliases_that_repeat_a_little_are_what_they_are_for(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}\nd: 3 * 4\n")
    same = {"x": 1}
    assert load_yaml(tmp_path / "run.yaml") == {"a": same, "b": [same, same], "c": {"x": 1, "y": 2}, "d": "3 * 4"}


def test_many_values_without_aliases_are_no_bomb() -> None:
    check_aliases("\n".join(f"- {n} * 2" for n in range(1000)))
    with pytest.raises(ValueError, match="more than 100,000"):
        check_aliases("a: &a [" + "1, " * 400 + "]\nb: [" + "*a, " * 400 + "]")


def test_a_file_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("a: " + "b" * (1 << 20))
    with pytest.raises(ConfigError, match=r"run.yaml: cannot be read: it has more than 1,048,576 bytes"):
        load_yaml(tmp_path / "run.yaml")
