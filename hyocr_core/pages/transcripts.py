"""The text file beside a page, or beside a file of pages: then a transcript for each, separated by form feeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.spellings import spellings
from hyocr_core.pages.text_file import read_utf8

SUFFIX = ".txt"

_PAGE_BREAK = "\f"


def transcript_beside(path: Path) -> Path | None:
    """`page.txt` beside `page.png`, whichever way Unicode writes the letters of its name."""
    names = [path.with_suffix(suffix).name for suffix in (SUFFIX, SUFFIX.upper())]
    forms = [form for name in names for form in spellings(name)]
    return next((path.with_name(form) for form in forms if path.with_name(form).exists()), None)


def with_transcripts(records: Sequence[Record], path: Path) -> list[Record]:
    """The pages of a file, each with its part of the transcript beside it, if there is one.

    The line break that ends a text file, or stands at a form feed, is not part of a transcript; a form feed after the
    last page is let be.
    Raises CalibrationError naming a transcript that is no text, or has another number of pages.
    """
    beside = transcript_beside(path)
    if beside is None:
        return list(records)
    first, *others = read_utf8(beside, f"{beside}: the transcript").split(_PAGE_BREAK)
    texts = [first, *map(_without_break, others)]
    if len(texts) == len(records) + 1 and not texts[-1].strip():
        texts.pop()
    if len(texts) != len(records):
        raise CalibrationError(
            f"{beside}: holds {len(texts)} transcripts, separated by form feeds, and {path.name} {len(records)} pages; "
            "give each page one, which may be empty"
        )
    return [replace(record, answer=_cut(text)) for record, text in zip(records, texts, strict=True)]


def _without_break(text: str) -> str:
    """Without the line break after a form feed that has a line of its own."""
    return text.removeprefix("\r").removeprefix("\n")


def _cut(text: str) -> str:
    """Without the last line break."""
    return text.removesuffix("\n").removesuffix("\r")
