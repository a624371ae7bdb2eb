"""Tests of olmOCR-bench are judged by the benchmark's rules; what is looked up near is held to a slow search."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from rapidfuzz.distance import Levenshtein

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.evaluation.parts.html_tables import find_tables, grid
from hyocr_core.evaluation.parts.olmocr_tests import OlmOcrTests, near_starts, passes, plain

TABLE = (
    "<table><tr><th></th><th colspan=2>2020</th></tr><tr><td>tea</td><td>1</td><td>2</td></tr>"
    "<tr><td>rye</td><td>3</td><td>4</td></tr></table>"
)

CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("It is **here** now", {"type": "present", "text": "is here"}, True),
    ("It is hare now", {"type": "present", "text": "is here"}, False),
    ("It is hare now", {"type": "present", "text": "is here", "max_diffs": 1}, True),
    ("IT IS HERE", {"type": "present", "text": "is here", "case_sensitive": False}, True),
    ("IT IS HERE", {"type": "present", "text": "is here"}, False),
    (" ", {"type": "present", "text": "is here"}, False),
    ("head, body", {"type": "present", "text": "body", "first_n": 4}, False),
    ("“a” – b", {"type": "present", "text": '"a" - b'}, True),
    ("page 7", {"type": "absent", "text": "page 7"}, False),
    ("page", {"type": "absent", "text": "page 7"}, True),
    ("page 7 and so on and on", {"type": "absent", "text": "page 7", "last_n": 9}, True),
    ("one then two", {"type": "order", "before": "one", "after": "two"}, True),
    ("two then one", {"type": "order", "before": "one", "after": "two"}, False),
    ("two then one and two", {"type": "order", "before": "one", "after": "two"}, True),
    ("first words, last wards", {"type": "order", "before": "first", "after": "last words", "max_diffs": 1}, True),
    ("first words", {"type": "order", "before": "first", "after": "last words", "max_diffs": 1}, False),
    (TABLE, {"type": "table", "cell": "4", "up": "2", "left": "3"}, True),
    (TABLE, {"type": "table", "cell": "4", "up": "1"}, False),
    (TABLE, {"type": "table", "cell": "4", "top_heading": "2020", "left_heading": "rye"}, True),
    (TABLE, {"type": "table", "cell": "4", "left_heading": "tea"}, False),
    (TABLE, {"type": "table", "cell": "1", "down": "3", "right": "2"}, True),
    (TABLE, {"type": "table", "cell": "5"}, False),
    ("no table", {"type": "table", "cell": "5"}, False),
    (TABLE[:-8], {"type": "table", "cell": "3", "left": "rye"}, True),
    (r"so $\int 3 x^2 \, dx$", {"type": "math", "math": "3x^{2}"}, True),
    (r"so \(x^3\)", {"type": "math", "math": "x^2"}, False),
    ("so 3x^2", {"type": "math", "math": "3x^2"}, False),
]


@pytest.mark.parametrize(("text", "test", "passed"), CASES)
def test_a_test_is_passed_or_not(text: str, test: dict[str, Any], passed: bool) -> None:
    assert passes(text, test) == passed


def test_the_metric_counts_the_tests_of_a_page() -> None:
    metric = OlmOcrTests(MetricConfig())
    checks = "\n".join(json.dumps(test) for _, test, _ in CASES[:4])
    assert metric.size(checks) == 4
    assert metric.page("It is here now", checks) == 4
    assert metric.page("", checks) == 0


def test_what_is_near_is_what_a_slow_search_finds() -> None:
    rng = random.Random(3)  # noqa: S311
    for _ in range(200):
        text, wanted = ("".join(rng.choices("ab ", k=rng.randint(1, length))) for length in (20, 6))
        most = rng.randint(0, 2)
        slow = [
            start
            for start in range(len(text) + 1)
            if any(Levenshtein.distance(wanted, text[start:end]) <= most for end in range(start, len(text) + 1))
        ]
        assert near_starts(wanted, text, most) == slow


def test_marks_and_kinds_of_quotes_are_not_told_apart() -> None:
    assert plain("**a**  _b_\n<b>c</b><br/>’d’") == "a b c 'd'"


def test_an_answer_of_any_length_is_judged() -> None:
    long = "word " * 6000
    assert not passes(long, {"type": "order", "before": "x" * 200, "after": "word", "max_diffs": 20})


def test_a_grid_is_that_of_browsers_and_of_bounded_size() -> None:
    [table] = find_tables("<table><tr><td rowspan=2>a</td><td>b</td></tr><tr><td>c</td></tr></table>")
    assert grid(table) == {(0, 0): (0, 0), (1, 0): (0, 0), (0, 1): (0, 1), (1, 1): (1, 0)}
    [huge] = find_tables("<table>" + "<tr><td rowspan=9999 colspan=9999>a</td></tr>" * 99 + "</table>")
    assert len(grid(huge)) < 99 * 50 * 99
