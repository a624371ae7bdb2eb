"""What is broken in the HTML tables of a text, for a note: they have a score all the same."""

from __future__ import annotations

import re
from collections.abc import Iterator

_NAMES = "table|thead|tbody|tfoot|tr|td|th"
_TAG = re.compile(
    rf"<(?P<close>/?)(?P<name>{_NAMES})\b(?P<attributes>(?:\"[^\"]*\"|'[^']*'|[^<>\"'])*)(?P<end>>?)", re.IGNORECASE
)
_SPAN = re.compile(r"\b(colspan|rowspan)\s*=\s*(?![\"']?\s*\d{1,4}\s*[\"']?(?:\s|/|\Z))", re.IGNORECASE)

_ROWS = ("table", "thead", "tbody", "tfoot")
_PARENTS = {
    "thead": ("table",),
    "tbody": ("table",),
    "tfoot": ("table",),
    "tr": _ROWS,
    "td": ("tr",),
    "th": ("tr",),
}
"""Where a tag may stand; a table anywhere."""


def table_faults(text: str) -> Iterator[str]:
    """What whoever reads the tables has to mend, a few words each, in the order of the text.

    The model closes every tag that it opens; HTML would let it leave out some.
    """
    opened: list[str] = []
    filled = True
    for tag in _TAG.finditer(text):
        name = tag["name"].lower()
        if not tag["end"]:
            yield f"a tag <{tag['close']}{name} breaks off"
        if tag["close"]:
            if name == "table" and not filled:
                yield "a <table> has no row"
            yield from _close(name, opened)
            filled = True
        else:
            yield from (f"a {span[1].lower()} is no number" for span in _SPAN.finditer(tag["attributes"]))
            yield from _open(name, opened)
            filled = name != "table"
    yield from (f"a <{name}> is not closed" for name in reversed(opened))


def _open(name: str, opened: list[str]) -> Iterator[str]:
    """Put a tag on those that are open, after those that end where it begins."""
    parents = _PARENTS.get(name)
    if parents is None:
        opened.append(name)
        return
    inner = opened[_table_at(opened) :]
    if any(parent in inner for parent in parents):
        while opened[-1] not in parents:
            yield f"a <{opened.pop()}> is not closed"
    else:
        yield f"a <{name}> stands outside of a <{parents[0]}>"
    opened.append(name)


def _close(name: str, opened: list[str]) -> Iterator[str]:
    if name not in (opened if name == "table" else opened[_table_at(opened) :]):
        yield f"a </{name}> closes nothing"
        return
    while (last := opened.pop()) != name:
        yield f"a <{last}> is not closed"


def _table_at(opened: list[str]) -> int:
    """The place of the innermost table that is open, 0 without one."""
    return len(opened) - 1 - opened[::-1].index("table") if "table" in opened else 0
