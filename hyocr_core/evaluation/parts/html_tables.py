"""HTML tables, whole or broken, as trees of a table, its rows and their cells."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hyocr_core.evaluation.parts.pairing import library

_CELLS = ("td", "th")
_WIDEST = 50
"""Of a span in a grid."""
_SPAN = re.compile(r"\s*(\d{1,4})")


@dataclass(frozen=True)
class Cell:
    """A cell, header or not. content: its characters and, as one token each, the tags within."""

    columns: int = 1
    rows: int = 1
    content: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Its characters alone."""
        return "".join(token for token in self.content if len(token) == 1)


@dataclass(frozen=True)
class Table:
    """The rows of a table, each its cells, from left to right."""

    rows: Sequence[tuple[Cell, ...]] = ()

    @property
    def nodes(self) -> int:
        """Rows and cells."""
        return len(self.rows) + sum(map(len, self.rows))

    @property
    def text(self) -> str:
        """What stands in its cells."""
        return " ".join("".join(cell.content) for row in self.rows for cell in row)


def grid(table: Table) -> dict[tuple[int, int], tuple[int, int]]:
    """Row and column of each field of a table -> row and place of the cell that covers it, as browsers lay them out.

    A span is 50 at most, so that no answer takes all memory.
    """
    fields: dict[tuple[int, int], tuple[int, int]] = {}
    for row, cells in enumerate(table.rows):
        column = 0
        for place, cell in enumerate(cells):
            while (row, column) in fields:
                column += 1
            rows, columns = (min(span or 1, _WIDEST) for span in (cell.rows, cell.columns))
            for down in range(min(rows, len(table.rows) - row)):
                for right in range(columns):
                    fields.setdefault((row + down, column + right), (row, place))
            column += columns
    return fields


def find_tables(text: str) -> list[Table]:
    """The tables of a text, in their order. Never raises for what is broken: libxml2 repairs it as a browser would.

    What is left open ends where the next of its kind begins or the text ends, cells outside of a row are a row, spans
    that are no number are 1, a table in a cell is a part of that, and `<tr>` without any `<table>` is no table.
    `thead`, `tbody` and `th` are taken for their rows and for `td`, as benchmarks do.
    """
    start = re.search(r"<table\b", text, re.IGNORECASE)
    if start is None:
        return []
    source = unicodedata.normalize("NFC", text[start.start() :]).replace("\0", "")
    html = library("lxml.html")
    parser = html.HTMLParser(remove_comments=True, remove_pis=True, encoding="utf-8")
    tree = html.document_fromstring(f"<html><body>{source}".encode(errors="replace"), parser=parser)
    return [_table(found) for found in tree.iter("table") if next(found.iterancestors(*_CELLS), None) is None]


def _table(table: Any) -> Table:
    rows: list[list[Cell]] = []
    row = None
    for node in table.iter("tr", *_CELLS):
        if next(node.iterancestors("table", *_CELLS)) is not table:
            continue
        mine = node if node.tag == "tr" else next(node.iterancestors("tr", "table"))
        if mine is not row:
            rows.append([])
            row = mine
        if node.tag != "tr":
            rows[-1].append(_cell(node))
    return Table([tuple(cells) for cells in rows])


def _cell(cell: Any) -> Cell:
    tokens: list[str] = []
    for event, node in library("lxml.etree").iterwalk(cell, events=("start", "end")):
        text = node.text if event == "start" else node.tail
        if node is not cell:
            tokens.append(f"<{'/' if event == 'end' else ''}{node.tag}>")
        if event == "start" or node is not cell:
            tokens += re.sub(r"\s+", " ", text or "")
    while tokens and tokens[0] == " ":
        tokens.pop(0)
    while tokens and tokens[-1] == " ":
        tokens.pop()
    return Cell(_span(cell, "colspan"), _span(cell, "rowspan"), tuple(tokens))


def _span(cell: Any, name: str) -> int:
    number = _SPAN.match(cell.get(name) or "")
    return int(number[1]) if number else 1
