"""The metric of spotted lines: their text and where it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hyocr_core.evaluation.parts.json_answer import find_json
from hyocr_core.evaluation.parts.pairing import MOST, PairingMetric, f1, most_pairs
from hyocr_core.evaluation.scores.rates import normalize
from hyocr_core.wording import phrase

_POINT = r"\(\s?(\d{1,6}(?:\.\d{1,6})?)\s?,\s?(\d{1,6}(?:\.\d{1,6})?)\s?\)"
_CORNERS = re.compile(rf"{_POINT}\s?,\s?{_POINT}")
_FARTHEST = 1e6
_OVERLAP = 0.5


@dataclass(frozen=True)
class Line:
    """A spotted line. box: left, top, right and bottom, in the answer's own units."""

    text: str
    box: tuple[float, float, float, float]


def spotted_lines(text: str) -> list[Line]:
    """The lines of an answer, in both forms that the model writes: JSON, and `text(x1,y1),(x2,y2)` one after another.

    Never raises: of an array that is cut off or lacks a comma, the lines before count; an element
    without a text and four numbers is none, nor is a text without both corners. Corners may come in any order.
    """
    found = find_json(text)
    if isinstance(found, list):
        return [line for line in map(_from_json, found) if line is not None]
    lines, end = [], 0
    for corners in _CORNERS.finditer(text):
        lines.append(_line(text[end : corners.start()], [float(number) for number in corners.groups()]))
        end = corners.end()
    return lines


class SpottingF1(PairingMetric):
    """F1 of spotted lines, a mean over the pages: boxes that overlap by half (IoU from 0.5 on), with the same text.

    The pairs are as many as there can be at once. Text is compared after `normalize`, without white space at its ends.
    Both must be in the same units, as the model's are: 0 to 1000. A page without a spotted line does not count. Broken
    answers score by the lines that `spotted_lines` finds. The cost is bounded: of more than 1000 lines of an answer
    the others are wrong.
    """

    title: ClassVar[str] = phrase("spotted lines (F1)")
    better: ClassVar[Literal["smaller", "larger"]] = "larger"
    tasks: ClassVar[tuple[str, ...]] = ("spotting_json", "spotting_hunyuan")

    def page(self, text: str, reference: str) -> float:
        expected, found = spotted_lines(reference), spotted_lines(text)
        if not expected:
            return 0.0
        some, others = expected[:MOST], found[:MOST]
        names: dict[str, int] = {}
        same = np.equal.outer(
            *([names.setdefault(line.text, len(names)) for line in lines] for lines in (some, others))
        )
        return f1(most_pairs(same & (overlaps(some, others) >= _OVERLAP)), len(expected), len(found))

    def size(self, reference: str) -> float:
        return float(bool(spotted_lines(reference)))


def overlaps(some: Sequence[Line], others: Sequence[Line]) -> NDArray[np.float64]:
    """(some, others): the intersection of two boxes over their union; 0 where both are empty."""
    one = np.array([line.box for line in some], dtype=np.float64).reshape(-1, 1, 4)
    other = np.array([line.box for line in others], dtype=np.float64).reshape(1, -1, 4)
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    both = sides.clip(min=0).prod(axis=-1)
    union = (one[..., 2:] - one[..., :2]).prod(axis=-1) + (other[..., 2:] - other[..., :2]).prod(axis=-1) - both
    shares: NDArray[np.float64] = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return shares


def _from_json(value: object) -> Line | None:
    if not isinstance(value, dict):
        return None
    text, box = value.get("text"), value.get("box")
    if not isinstance(text, str) or not isinstance(box, list) or len(box) != 4 or not all(map(_is_place, box)):
        return None
    return _line(text, [float(number) for number in box])


def _is_place(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _FARTHEST


def _line(text: str, corners: Sequence[float]) -> Line:
    (left, right), (top, bottom) = sorted(corners[::2]), sorted(corners[1::2])
    return Line(normalize(text).strip(), (left, top, right, bottom))
