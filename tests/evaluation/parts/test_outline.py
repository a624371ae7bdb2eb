"""Headings and lists of Markdown, F1 against brute force."""

from __future__ import annotations

import random
import sys

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.errors import MetricError
from hyocr_core.evaluation.parts.outline import OutlineF1, outline
from tests.evaluation.parts.oracles import matchings, normalized

pytest.importorskip("markdown_it")
pytest.importorskip("scipy")

PAGE = (
    "# Title\n\nWords.\n\n## Part one\n\n1. first\n   - inner\n   - other\n2. second\n\n"
    "Under\n-----\n\n- a\n\n  more of a\n"
)
ENTRIES = [
    ("h1", "Title"),
    ("h2", "Part one"),
    ("ordered 1", "first"),
    ("bullet 2", "inner"),
    ("bullet 2", "other"),
    ("ordered 1", "second"),
    ("h2", "Under"),
    ("bullet 1", "a"),
]


@pytest.fixture
def metric() -> OutlineF1:
    return OutlineF1(MetricConfig())


def test_what_an_outline_is(metric: OutlineF1) -> None:
    assert outline(PAGE) == ENTRIES
    assert metric.page(PAGE, PAGE) == metric.size(PAGE) == 1
    assert outline("words, <table><tr><td># a</td></tr></table> and $x$") == []
    assert metric.size("words") == 0


@pytest.mark.parametrize(
    ("old", "new", "hits", "found"),
    [
        ("## Part", "### Part", 7, 8),  # another level
        ("## Part", "##Part", 7, 7),  # no heading any more
        ("Part one", "Port one", 8, 8),
        ("Part one", "Another word", 7, 8),
        ("   - other\n", "", 7, 7),
        ("   - other", "- other", 7, 8),  # another depth
        ("-----", "", 7, 7),
        ("Words.", "# Words.", 8, 9),
        ("Words.", "```\nWords.", 1, 1),  # a fence that is not closed takes all that follows
        ("2. second", "2second", 6, 7),  # goes on with the item before
    ],
)
def test_damage_and_broken_markdown(metric: OutlineF1, old: str, new: str, hits: int, found: int) -> None:
    assert old in PAGE
    damaged = PAGE.replace(old, new, 1)
    assert len(outline(damaged)) == found
    assert metric.page(damaged, PAGE) == pytest.approx(2 * hits / (len(ENTRIES) + found))


@pytest.mark.parametrize("text", ["> " * 5000, "- " * 5000, "#" * 5000, "\ud800\0# a", "```", "-\n" * 100, ""])
def test_hostile_markdown_scores(metric: OutlineF1, text: str) -> None:
    assert 0 <= metric.page(text, PAGE) < 1


@pytest.mark.parametrize("seed", range(200))
def test_it_is_that_of_the_most_pairs(metric: OutlineF1, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    expected, found = (
        [
            (draw.choice([1, 1, 2]), "".join(draw.choices("ab", k=draw.randrange(1, 5))))
            for _ in range(draw.randrange(1, 5))
        ]
        for _ in range(2)
    )
    most = max(
        len(pairs)
        for pairs in matchings(len(expected), len(found))
        if all(
            expected[i][0] == found[j][0] and normalized(expected[i][1], found[j][1]) <= 0.5 for i, j in pairs.items()
        )
    )
    reference, text = ("\n\n".join(f"{'#' * level} {words}" for level, words in page) for page in (expected, found))
    assert metric.page(text, reference) == pytest.approx(2 * most / (len(expected) + len(found)))


def test_without_its_parser_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "markdown_it", None)
    with pytest.raises(MetricError, match=r"needs markdown_it: pip install 'hyocr-core\[documents\]'"):
        OutlineF1(MetricConfig())
