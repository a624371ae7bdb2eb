"""JSON from outside: strictly what the standard allows, of bounded size and depth, and an object where one is due."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from hyocr_core.errors import BadInputError
from hyocr_core.outside.regular import read_regular

DEEPEST = 64
"""Containers within each other. What copies, compares or prints a value goes as deep as it."""

_WORDS = {
    "recursion limit exceeded": "nested too deeply",
    "number out of range": "a number is too long",
    "invalid unicode code point": "not UTF-8",
    **dict.fromkeys(("unexpected end of", "lone leading surrogate in"), "half a character (a lone surrogate) in a"),
}
"""What the parser says that few would understand -> what that means."""


def read_object(path: Path, error: type[BadInputError]) -> dict[str, Any]:
    """The JSON object in a file. Raises `error` naming the file when it cannot be read, or holds anything else."""
    try:
        value = parse_json(read_regular(path))
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise error(f"{path}: cannot be read as JSON: {reason}") from cause
    if not isinstance(value, dict):
        raise error(f"{path}: must hold a JSON object, not {type(value).__name__}")
    return value


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, which says why in a few words, for what is none.

    Neither are NaN, infinite numbers, halves of characters (lone surrogates) and numbers of thousands of digits.
    """
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(_plain(str(error))) from None
    if any(isinstance(each, float) and not math.isfinite(each) for level in levels(value) for each in level):
        raise ValueError("a number is too large")
    return value


def _plain(reason: str) -> str:
    for theirs, ours in _WORDS.items():
        reason = reason.replace(theirs, ours)
    return reason


def levels(value: Any) -> Iterator[list[Any]]:
    """Yield the value, what it holds, what that holds, and so on, keys too.

    Raises ValueError at the end for one whose containers are nested too deeply, or within themselves.
    """
    level = [value]
    for _ in range(DEEPEST + 1):
        yield level
        # Each container once, however often it occurs.
        level = [child for each in {id(each): each for each in level}.values() for child in _inside(each)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, list | tuple | set) else []
