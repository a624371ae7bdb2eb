"""What a source gave: pages, and what it, or the draw, left out; with the lines that say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hyocr_core.contract.page_source import Record

_NAMED = 10
"""Copies that have a line; `--json` names all."""


@dataclass(frozen=True)
class Found:
    """Pages, and what is not among them, by name -> why. files: that are no pages. copies: pages that are others'."""

    records: list[Record]
    files: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    @property
    def left_out(self) -> dict[str, str]:
        """Both."""
        return self.files | self.copies

    def lines(self) -> Iterator[str]:
        """What to tell the user of both: a line for all files of one reason, and one for each copy."""
        yield from files_lines(self.files)
        if self.copies:
            yield f"left out {_count(len(self.copies), 'duplicate')} (--keep-duplicates keeps them):"
            yield from (f"- {name} {why}" for name, why in list(self.copies.items())[:_NAMED])
        if len(self.copies) > _NAMED:
            yield f"- and {len(self.copies) - _NAMED} more; --json names them"


def files_lines(files: dict[str, str]) -> Iterator[str]:
    """Name files that are no pages, those left out for one reason together."""
    names: dict[str, list[str]] = {}
    for name, why in files.items():
        names.setdefault(why, []).append(name)
    yield from (f"left out {_count(len(alike), 'file')}, {_listed(alike)}: {why}" for why, alike in names.items())


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _listed(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:3])} and {more} more"
