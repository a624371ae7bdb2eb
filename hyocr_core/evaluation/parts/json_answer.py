"""The JSON of an answer: alone, in a code fence, among words or cut off."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from hyocr_core.errors import MetricError
from hyocr_core.outside.json_text import parse_json

_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL | re.IGNORECASE)
_BEGIN = re.compile(r"""\{\s{0,9}["'}]|\[\s{0,9}[\[{"\]]""")
_PATHS = 10_000
"""Values of an answer that are looked at."""


def whole_json(text: str) -> Any:
    """The object or list that a text is, but for a code fence around it; None if it is neither."""
    try:
        value = parse_json(_bytes(_unfenced(text)))
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def find_json(text: str) -> Any:
    """The first object or list in a text; None if there is none.

    Of one that is cut off, or lacks a comma, it is what stands before. One with a value or a key that is none is none.
    """
    begin = _BEGIN.search(text)
    if begin is None:
        return None
    body = text[begin.start() :]
    last = max(body.rfind("}"), body.rfind("]")) + 1
    for part, cut in ((body[:last], False), (body, True)):
        try:
            return from_json(_bytes(part), allow_inf_nan=False, allow_partial=cut)
        except ValueError:
            continue
    return None


def transcript_json(reference: str) -> Any:
    """The JSON that a transcript is; None for one that does not begin as such.

    Raises MetricError for one that does, and is none.
    """
    body = _unfenced(reference).strip()
    if not _BEGIN.match(body):
        return None
    try:
        return parse_json(_bytes(body))
    except ValueError as error:
        raise MetricError(f"its transcript begins as JSON and is none: {error}") from error


def fields(value: Any) -> Iterator[tuple[str, ...]]:
    """The keys on the way to each value that holds no other, then the value as text; at most 10,000.

    Places in a list are no keys, so that the order of its items is forgiven. White space is one space, and 1 is "1".
    """
    left: list[tuple[tuple[str, ...], Any]] = [((), value)]
    count = 0
    while left and count < _PATHS:
        keys, value = left.pop()
        if isinstance(value, dict):
            left += [((*keys, key), inside) for key, inside in value.items()]
        elif isinstance(value, list):
            left += [(keys, inside) for inside in value]
        else:
            count += 1
            yield (*keys, _text(value))


def _unfenced(text: str) -> str:
    """What a code fence around all of a text holds; without one, the text."""
    fenced = _FENCE.fullmatch(text.strip())
    return fenced[1] if fenced else text


def _bytes(text: str) -> bytes:
    """Halves of characters, which the parser has no error for, as question marks."""
    return text.encode(errors="replace")


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value)
    return " ".join(unicodedata.normalize("NFC", str(value)).split())
