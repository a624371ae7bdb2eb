"""Every command explains itself: within 100 columns, with an example, in the same words as the others."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from hyocr_core.cli.main import main

COLUMNS = 100


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command there is, groups and what is in them."""
    yield path
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def helped(*words: str) -> str:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=COLUMNS, max_content_width=COLUMNS)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_help_fits_and_shows_an_example(words: tuple[str, ...]) -> None:
    text = helped(*words)
    assert [line for line in text.splitlines() if len(line) > COLUMNS] == []
    assert "round-to-nearest" not in text.replace("\n", " ")
    example = " ".join(("  hyocr", *words))
    assert any(line.startswith(f"{example} ") or line == example for line in text.splitlines()), text


@pytest.mark.parametrize(
    ("typo", "meant"), [("--modle", "--model"), ("--outptu", "--output"), ("--freshh", "--fresh"), ("--xyzzy", None)]
)
def test_a_misspelt_option_is_told_what_may_be_meant(typo: str, meant: str | None) -> None:
    result = CliRunner().invoke(main, ["quant", typo, "x"])
    assert result.exit_code == 2
    assert ("Did you mean" in result.stderr) == (meant is not None)
    assert meant is None or f"'{meant}'" in result.stderr


def test_pages_are_data_and_models_are_named_either_way() -> None:
    names = {path: options(path) for path in ("quant", "eval", "read", "verify", "report", "doctor")}
    assert all("--model" in names[path] for path in names)
    assert all({"--data", "--num-samples"} <= names[path] for path in ("quant", "eval", "read"))
    assert all({"--baseline", "--original"} <= names[path] for path in ("eval", "verify"))
    assert all({"--resume", "--fresh"} <= options(path) for path in ("quant", "eval", "sweep"))
    assert {"--calib", "--eval"} <= names["quant"]
    assert "--no-resume" in names["eval"]


def options(name: str) -> set[str]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("eval", "one", "--model", "two"), "Got unexpected extra argument (one); an option says two already"),
        (("read", "one", "two", "--data", "three"), "Got unexpected extra argument (two)"),
        (("read", "--data", "three"), "Missing argument 'MODEL'"),
        (("read", "one"), "Missing argument 'PAGES'"),
        (("verify",), "Missing argument 'CHECKPOINT'"),
        (("quant", "one", "--model", "two"), "Got unexpected extra argument (one)"),
    ],
    ids=str,
)
def test_what_is_named_twice_or_not_at_all_is_said(typed: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(main, typed)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    "typed",
    [("./no-model", "no.jsonl"), ("--model", "./no-model", "no.jsonl"), ("./no-model", "--data", "no.jsonl")],
    ids=" ".join,
)
def test_read_takes_its_two_names_in_any_way(typed: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, ["read", *typed])
    assert result.exit_code == 2
    assert "no.jsonl" in result.stderr
