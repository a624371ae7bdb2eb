from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.table import Table

from hyocr_core.terminal.console import PlainConsole
from hyocr_core.terminal.fitting_tables import fitted

ROWS = [("gptq", "hyocr-plugin-gptq", "a long sentence that says what is the matter with it"), ("awq", "x", "ok")]


def printed(width: int, rows: Sequence[tuple[str, ...]] = ROWS) -> list[str]:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "distribution", "verdict"):
        table.add_column(title)
    for row in rows:
        table.add_row(*row)
    console = PlainConsole(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(fitted(table, console, width))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def test_a_table_with_room_has_a_line_for_each_row() -> None:
    assert len(printed(120)) == 3


@pytest.mark.parametrize("width", [60, 50, 40])
def test_a_narrow_one_is_broken_between_words(width: int) -> None:
    lines = printed(width)
    assert len(lines) > 3
    assert set(" ".join(lines).split()) == set(" ".join(printed(120)).split())


def test_where_the_words_do_not_fit_each_row_is_a_block() -> None:
    lines = printed(32)
    assert lines[:2] == ["name          gptq", "distribution  hyocr-plugin-gptq"]
    assert lines[-3:] == ["name          awq", "distribution  x", "verdict       ok"]


def test_a_word_longer_than_the_terminal_is_the_only_one_that_is_broken() -> None:
    lines = printed(32, [("x" * 50, "y", "z")])
    assert "".join(line.split()[-1] for line in lines[:-2]) == "x" * 50
