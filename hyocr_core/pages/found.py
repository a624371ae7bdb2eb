"""What a source gave: pages, and what it, or the draw, left out; with the lines that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from hyocr_core.contract.page_source import Record

_NAMED = 10
"""Pages or files of a line that are named; `--json` names all."""


class Found(NamedTuple):
    """left_out: pages and files that are not among the records, by name -> why."""

    records: list[Record]
    left_out: dict[str, str]


def copies_line(left_out: Mapping[str, str]) -> str:
    """Name pages that are copies, and of which others."""
    shown = [f"{name} {why}" for name, why in list(left_out.items())[:_NAMED]]
    more = [f"and {len(left_out) - _NAMED} more"] if len(left_out) > _NAMED else []
    return f"left out {_count(left_out, 'duplicate')}: {'; '.join([*shown, *more])} (--keep-duplicates keeps them)"


def files_line(left_out: Mapping[str, str]) -> str:
    """Name files that are no pages; those left out for one reason together."""
    names: dict[str, list[str]] = {}
    for name, why in left_out.items():
        names.setdefault(why, []).append(name)
    told = [f"{_listed(together)} ({why})" for why, together in names.items()]
    return f"left out {_count(left_out, 'file')}: {'; '.join(told)}"


def _count(things: Mapping[str, str], word: str) -> str:
    return f"{len(things)} {word}" if len(things) == 1 else f"{len(things)} {word}s"


def _listed(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:3])} and {more} more"
