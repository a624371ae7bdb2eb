"""Two texts of one page beside each other, with what differs marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.table import Table
from rich.text import Text

from hyocr_core.report.diff import Piece
from hyocr_core.report.text import marked

OTHER, OWN = "underline red", "underline green"
"""How each side's own stretches look; the line is there without colours too."""


def beside_table(other: str, own: str, pieces: Iterable[Piece]) -> Table:
    """The text of `other` at the left, that of `own` at the right."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column(other, ratio=1, overflow="fold")
    table.add_column(own, ratio=1, overflow="fold")
    left, right = Text(), Text()
    for piece in pieces:
        same = piece.kind == "equal"
        left.append(piece.old if same else marked(piece.old), None if same else OTHER)
        right.append(piece.new if same else marked(piece.new), None if same else OWN)
    table.add_row(left, right)
    return table


def in_one_text(pieces: Iterable[Piece]) -> str:
    """Both in one, as wdiff writes it: `[-only there-]{+only here+}`."""
    return "".join(part for piece in pieces for part in _parts(piece))


def _parts(piece: Piece) -> Iterator[str]:
    if piece.kind == "equal":
        yield piece.new
        return
    if piece.old:
        yield f"[-{piece.old}-]"
    if piece.new:
        yield f"{{+{piece.new}+}}"
