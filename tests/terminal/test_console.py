"""What reaches a terminal: text, whatever it looks like."""

from __future__ import annotations

import io
import re

import pytest
from rich.table import Table
from rich.text import Text

from hyocr_core.terminal.console import PlainConsole
from hyocr_core.terminal.progress_bar import TerminalProgress

HOSTILE = "\x1b[2Ja[/b0].png[bold]\x9b31m:train:"
SHOWN = "⟨U+001B⟩[2Ja[/b0].png[bold]⟨U+009B⟩31m:train:"


def console(*, terminal: bool) -> tuple[PlainConsole, io.StringIO]:
    file, colours = io.StringIO(), "standard" if terminal else None
    return PlainConsole(file=file, width=200, force_terminal=terminal, color_system=colours), file


def plain(text: str) -> str:
    """Without what rich says to the terminal: colours, cursor, lines."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("terminal", [False, True])
def test_text_in_every_form_is_text(terminal: bool) -> None:
    printer, file = console(terminal=terminal)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    for printed in (HOSTILE, Text(HOSTILE), table):
        printer.print(printed)
    text = file.getvalue()
    assert plain(text).count(SHOWN) == 6
    assert "\x1b[2J" not in text
    assert "\x9b" not in text


def test_a_cell_forges_no_row() -> None:
    printer, file = console(terminal=False)
    table = Table("a", box=None)
    table.add_row("one\ntwo")
    printer.print(table)
    assert [line.strip() for line in file.getvalue().splitlines()] == ["a", "one two"]


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_names_as_they_are(terminal: bool) -> None:
    printer, file = console(terminal=terminal)
    with TerminalProgress(printer) as progress:
        progress.start(HOSTILE, 2)
        progress.step(HOSTILE)
        progress.detail(f"more {HOSTILE}")
        progress.say(f"said {HOSTILE}")
        progress.say("x" * 1000)
    text = file.getvalue()
    assert f"said {SHOWN}" in plain(text)
    assert plain(text).count("x") < 500
    assert "\x1b[2J" not in text
    assert "\x9b" not in text
    if terminal:
        assert f"more {SHOWN}" in plain(text)
