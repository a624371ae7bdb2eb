"""Tables that fit a terminal without breaking a word."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

GAP = 2
"""Columns between a title and its value, where a row stands as lines."""


def fitted(table: Table, console: Console, width: int) -> Table:
    """The table with columns as wide as their words; where these do not fit beside each other, a block for each row.

    A table that fits as it is, or that shares the width by ratios, stays.
    """
    if any(column.ratio for column in table.columns):
        return table
    whole = [_width(column, table, console) for column in table.columns]
    room = width - sum(_padding(table))
    if sum(whole) <= room:
        return table
    words = [_longest_word(column, table, console) for column in table.columns]
    if sum(words) > room:
        return _as_blocks(table, console, width)
    for column, size in zip(table.columns, _shared(words, whole, room), strict=True):
        column.width = size
    return table


def _shared(least: Sequence[int], most: Sequence[int], room: int) -> list[int]:
    """Widths between `least` and `most` that use `room`: narrow columns get all that they want first."""
    sizes, left = list(least), room - sum(least)
    for place in sorted(range(len(sizes)), key=lambda place: most[place] - least[place]):
        more = min(left, most[place] - least[place])
        sizes[place] += more
        left -= more
    return sizes


def _as_blocks(table: Table, console: Console, width: int) -> Table:
    """Title and value, a line each, with an empty line between rows."""
    blocks = Table(box=None, pad_edge=False, show_header=False, padding=(0, GAP, 0, 0))
    titles = [_plain(column.header, console) for column in table.columns]
    named = max((cell_len(title.strip()) for title in titles), default=0)
    blocks.add_column(width=named or None, no_wrap=True)
    blocks.add_column(width=max(width - named - GAP, 1), overflow="fold")
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    for number, (row, style) in enumerate(zip(rows, (row.style for row in table.rows), strict=True)):
        if number:
            blocks.add_row()
        for title, cell in zip(titles, row, strict=True):
            if not isinstance(cell, str) or cell.strip():
                blocks.add_row(title.strip(), cell, style=style)
    return blocks


def _texts(column: Column, table: Table, console: Console) -> list[str]:
    headers = [column.header] if table.show_header else []
    return [_plain(cell, console) for cell in (*headers, *column.cells)]


def _plain(cell: object, console: Console) -> str:
    return cell.plain if isinstance(cell, Text) else console.render_str(str(cell)).plain


def _width(column: Column, table: Table, console: Console) -> int:
    return max((cell_len(text) for text in _texts(column, table, console)), default=0)


def _longest_word(column: Column, table: Table, console: Console) -> int:
    """In cells; of what stands before the first word, as an indent does, too."""
    if column.no_wrap:
        return _width(column, table, console)
    texts = _texts(column, table, console)
    return max((_indent(text) + cell_len(word) for text in texts for word in text.split(" ")), default=0)


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _padding(table: Table) -> list[int]:
    """Between columns, as tables without boxes and edges have it."""
    _, right, _, left = table.padding
    between = max(left, right) if table.collapse_padding else left + right
    return [between for _ in pairwise(table.columns)]
