"""What differs between two texts, character by character."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from rapidfuzz.distance import Levenshtein

CONTEXT = 80
"""Characters shown on either side of a difference."""


Kind = Literal["equal", "delete", "insert", "replace", "gap"]


@dataclass(frozen=True)
class Piece:
    """A stretch of two texts: `old` is what the first has there, `new` what the second has.

    In a gap both are the same and left out; `new` holds them.
    """

    kind: Kind
    old: str
    new: str


def diff(old: str, new: str) -> list[Piece]:
    """The shortest way from `old` to `new` (Levenshtein), as stretches that follow one another."""
    return [
        Piece(cast(Kind, step.tag), old[step.src_start : step.src_end], new[step.dest_start : step.dest_end])
        for step in Levenshtein.opcodes(old, new)
    ]


def shortened(pieces: list[Piece], context: int = CONTEXT) -> list[Piece]:
    """The same with the middle of every long equal stretch as a gap, so that the differences can be found."""
    return [short for place, piece in enumerate(pieces) for short in _shorten(piece, place, len(pieces), context)]


def _shorten(piece: Piece, place: int, count: int, context: int) -> Iterator[Piece]:
    text = piece.new
    # There is nothing to be near to before the first difference and after the last one, or if there is none.
    head = context if place > 0 or count == 1 else 0
    tail = context if place < count - 1 else 0
    if piece.kind != "equal" or len(text) <= head + tail + context:
        yield piece
        return
    middle = len(text) - tail
    pieces = (("equal", text[:head]), ("gap", text[head:middle]), ("equal", text[middle:]))
    yield from (Piece(cast(Kind, kind), part, part) for kind, part in pieces if part)
