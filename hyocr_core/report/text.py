"""How values and foreign text are written on the page."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from hyocr_core.evaluation.scores.result import Interval, ModelScore

NONE = "–"
_NBSP = "\u00a0"
"""Keeps a number and its unit on one line."""
READABLE = 1e7
"""From here on a number has an exponent."""
_KEPT = "\n\t"
# A folder needs a name behind its slash, so that fractions and "and/or" stay as they are.
# In quotes a path may hold spaces.
_QUOTED = re.compile(r"""(?<=['"])[~.]{0,2}/[^'"]*/(?=[^/'"]+['"])""")
_FOLDERS = re.compile(r"(?<![\w./~])(?:~|\.{1,2})?/(?:[^\s/'\"]+/)+(?=[^\s/'\"])")


def visible(text: str) -> str:
    """`text` with every character that would not be seen written out, such as U+202E, which turns a line around.

    Newlines, tabs and what joins the letters of a script stay.
    """
    return "".join(character if _is_seen(character) else f"⟨U+{ord(character):04X}⟩" for character in text)


def _is_seen(character: str) -> bool:
    if character in _KEPT or character in "\u200c\u200d\u00ad":
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs")


def without_folders(text: str) -> str:
    """`text` with every path in it cut to its last part: where something lies on this machine is nobody's business."""
    return _FOLDERS.sub("", _QUOTED.sub("", text))


def checkpoint_name(score: ModelScore) -> str:
    """The id of a model of the hub, or the name of a folder without where it lies."""
    return score.model if score.revision is not None else Path(score.model).name


def percent(rate: float | None, digits: int = 2) -> str:
    return NONE if rate is None else f"{100 * rate:.{digits}f}{_NBSP}%"


def relative(error: float | None) -> str:
    """A relative error in percent, to three digits."""
    return NONE if error is None else f"{100 * error:.3g}{_NBSP}%"


def times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}×"


def points(difference: float | None) -> str:
    """The difference of two rates in percentage points, with its sign."""
    return NONE if difference is None else f"{100 * difference:+.2f}".replace("-", "−")


def span(interval: Interval | None) -> str:
    """An interval of rates, in percent."""
    return NONE if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def signed_span(interval: Interval | None) -> str:
    """An interval of a difference of rates, in points."""
    return NONE if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def size(count: float | None) -> str:
    """Bytes, in decimal units."""
    if count is None:
        return NONE
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.{2 if unit == 'GB' else 1}f}{_NBSP}{unit}"
    return f"{count:.0f}{_NBSP}bytes"


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits, without an exponent where that is readable."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < READABLE else f"{value:.{digits}g}"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value >= 120:
        return f"{value / 60:.1f}{_NBSP}min"
    return f"{value:.0f}{_NBSP}s" if value >= 10 else f"{value:.2f}{_NBSP}s"


def count(number: int, noun: str) -> str:
    """`1 page`, `2 pages`."""
    return f"{number:,}{_NBSP}{noun}" + ("" if number == 1 else "s")


def marked(text: str) -> str:
    """`text` of which something is to be seen even where it is white."""
    shown = text.replace("\n", "↵\n").replace("\t", "⇥")
    return shown if shown.strip(" ") else "␣" * len(shown)
