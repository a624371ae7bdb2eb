"""The metric of olmOCR-bench: tests of what stands on a page, or must not (Poznanski et al. 2025)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from rapidfuzz import fuzz

from hyocr_core.contract.metric import Metric
from hyocr_core.evaluation.parts.html_tables import Table, find_tables, grid
from hyocr_core.evaluation.parts.latex import find_formulas, latex_tokens
from hyocr_core.evaluation.parts.pairing import library
from hyocr_core.outside.json_text import parse_json

_ALIKE = str.maketrans({
    "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "＿": "_", "–": "-", "—": "-", "‑": "-", "‒": "-",
    "−": "-", "µ": "μ",
})  # fmt: skip
"""Characters that are not told apart -> one of them."""
_MARKS = re.compile(r"(\*\*|__|\*|_)(.*?)\1")
_NEIGHBOURS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_HEADINGS = {"top_heading": (-1, 0), "left_heading": (0, -1)}

Test = Mapping[str, Any]


class OlmOcrTests(Metric):
    """Tests of olmOCR-bench that the answers pass: text that is there or is not, order, cells of tables, formulas.

    Its `present`, `absent` and `order` are the benchmark's own rules. Its `table` and `math` are near them: a table
    is one in HTML, a heading the first cell of a row or column, and a formula is found where its LaTeX tokens follow
    each other in one that was read, while the benchmark compares what KaTeX draws. Broken output passes what it passes.
    """

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = "tests of olmOCR-bench"
    better: ClassVar[Literal["smaller", "larger"]] = "larger"
    unit: ClassVar[str] = "%"
    compares: ClassVar[Literal["transcript", "checks"]] = "checks"
    tasks: ClassVar[tuple[str, ...]] = ("doc_parse", "layout_parse")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        library("lxml.html")

    def page(self, text: str, reference: str) -> float:
        """How many tests it passes."""
        return float(sum(passes(text, test) for test in _tests(reference)))

    def size(self, reference: str) -> float:
        return float(len(_tests(reference)))


def _tests(checks: str) -> list[Test]:
    """The tests of a page, each a line of JSON, of kinds that are known."""
    found = [parse_json(line) for line in checks.splitlines() if line.strip()]
    return [test for test in found if test["type"] in _KINDS]


def passes(text: str, test: Test) -> bool:
    """Whether an answer passes a test."""
    return _KINDS[test["type"]](text, test)


def plain(text: str) -> str:
    """Text as it is compared: without marks of bold and italics, with one kind of white space, quotes and dashes."""
    text = re.sub(r"</?[bi]>", "", re.sub(r"<br\s*/?>", " ", text))
    text = _MARKS.sub(r"\2", _MARKS.sub(r"\2", text))
    text = unicodedata.normalize("NFC", re.sub(r"\s+", " ", text))
    return text.translate(_ALIKE)


def _present(text: str, test: Test) -> bool:
    wanted, found, most = plain(test["text"]), plain(text), _most(test)
    if not test.get("case_sensitive", True):
        wanted, found = wanted.lower(), found.lower()
    first, last = test.get("first_n"), test.get("last_n")
    if first or last:
        found = (found[:first] if first else "") + (found[-last:] if last else "")
    if len(found) < len(wanted) - most:
        return False
    return fuzz.partial_ratio(wanted, found) / 100 >= 1 - most / len(wanted)


def _absent(text: str, test: Test) -> bool:
    return not _present(text, test)


def _order(text: str, test: Test) -> bool:
    found, most = plain(text), _most(test)
    before, after = (near_starts(plain(test[key]), found, most) for key in ("before", "after"))
    return bool(before and after) and before[0] < after[-1]


def near_starts(wanted: str, text: str, most: int) -> list[int]:
    """Where something begins in a text that `most` edits make what is wanted (Sellers 1980)."""
    back, rows = wanted[::-1], text[::-1]
    characters = np.frombuffer(rows.encode("utf-32-le"), dtype=np.uint32)
    places = np.arange(len(rows) + 1)
    distances = np.zeros(len(rows) + 1, dtype=np.int64)
    for done, character in enumerate(back, start=1):
        changed = distances[:-1] + (characters != ord(character))
        candidates = np.concatenate([[done], np.minimum(changed, distances[1:] + 1)])
        distances = np.minimum.accumulate(candidates - places) + places
    ends = np.flatnonzero(distances <= most)
    return sorted(len(rows) - int(end) for end in ends)


def _table(text: str, test: Test) -> bool:
    return any(_in_table(table, test) for table in find_tables(text))


def _in_table(table: Table, test: Test) -> bool:
    fields = {field: plain(table.rows[row][place].text) for field, (row, place) in grid(table).items()}
    return any(
        _is_near(test["cell"], cell, test) and all(_relations(fields, field, test)) for field, cell in fields.items()
    )


def _relations(fields: Mapping[tuple[int, int], str], field: tuple[int, int], test: Test) -> Iterator[bool]:
    """Whether each neighbour and heading that a test names is what it should be."""
    for key, step in _NEIGHBOURS.items():
        if test.get(key):
            yield _is_near(test[key], _beside(fields, field, step)[:1], test)
    for key, step in _HEADINGS.items():
        if test.get(key):
            yield _is_near(test[key], _beside(fields, field, step)[-1:], test)


def _beside(fields: Mapping[tuple[int, int], str], field: tuple[int, int], step: tuple[int, int]) -> list[str]:
    """The cells on the way to the edge of the table that are not empty; the next one, empty or not, comes first."""
    found: list[str] = []
    row, column = field[0] + step[0], field[1] + step[1]
    while (row, column) in fields:
        if not found or fields[row, column]:
            found.append(fields[row, column])
        row, column = row + step[0], column + step[1]
    return found


def _is_near(wanted: str, found: str | Sequence[str], test: Test) -> bool:
    texts = [found] if isinstance(found, str) else found
    wanted = plain(wanted)
    least = max(0.5, 1 - _most(test) / max(len(wanted), 1))
    return any(fuzz.ratio(wanted, text.strip()) / 100 >= least for text in texts)


def _math(text: str, test: Test) -> bool:
    wanted = latex_tokens(test["math"])
    return any(_holds(latex_tokens(formula), wanted) for formula in find_formulas(text))


def _holds(words: Sequence[str], wanted: Sequence[str]) -> bool:
    size = len(wanted)
    return any(words[start : start + size] == wanted for start in range(len(words) - size + 1))


def _most(test: Test) -> int:
    return int(test.get("max_diffs") or 0)


_KINDS: Mapping[str, Callable[[str, Test], bool]] = {
    "present": _present,
    "absent": _absent,
    "order": _order,
    "table": _table,
    "math": _math,
}
"""How each kind of test is judged."""
