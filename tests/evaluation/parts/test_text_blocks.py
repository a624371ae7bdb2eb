"""Blocks of text and their order, against brute force."""

from __future__ import annotations

import random

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.evaluation.parts.text_blocks import ReadingOrder, TextBlocks, text_blocks
from tests.evaluation.parts.oracles import levenshtein, matchings, normalized

pytest.importorskip("scipy")

TEXT, ORDER = TextBlocks(MetricConfig()), ReadingOrder(MetricConfig())


def test_what_a_block_is() -> None:
    page = (
        "# A title\n\nA paragraph\nof  two lines.\n \n- one\n- two\n  more\n1. first\n"
        "<table><tr><td>x</td></tr></table>\nAfter $a$ it.\n\n$$\ny\n$$\n\n\\[z\\] last # no-mark"
    )
    blocks = ["A title", "A paragraph of two lines.", "one", "two more", "first", "After $a$ it.", "last # no-mark"]
    assert text_blocks(page) == blocks
    assert text_blocks("words\n<table><tr><td>open\n\nmore") == ["words"]
    assert text_blocks("  \n\n ") == []
    assert text_blocks("\n\n".join(map(str, range(1500))))[998:] == ["998", " ".join(map(str, range(999, 1500)))]


def best(expected: list[str], found: list[str]) -> tuple[int, list[dict[int, int]]]:
    """The fewest edits that any pairs leave, and all pairs that do and cross least."""

    def edits(pairs: dict[int, int]) -> tuple[int, int]:
        alone = [block for i, block in enumerate(expected) if i not in pairs]
        alone += [block for j, block in enumerate(found) if j not in pairs.values()]
        paired = sum(levenshtein(expected[i], found[j]) for i, j in pairs.items())
        return paired + sum(map(len, alone)), sum((i - j) ** 2 for i, j in pairs.items())

    least = min(len(expected), len(found))
    scored = [(edits(pairs), pairs) for pairs in matchings(len(expected), len(found))]
    fewest = min(score[0] for score, _ in scored)
    complete = [(score, pairs) for score, pairs in scored if len(pairs) == least and score[0] == fewest]
    smallest = min(score for score, _ in complete)
    return fewest, [pairs for score, pairs in complete if score == smallest]


def out_of_order(expected: list[str], found: list[str], pairs: dict[int, int]) -> float:
    alike = {j: i for i, j in pairs.items() if normalized(expected[i], found[j]) <= 0.5}
    return levenshtein(range(len(expected)), [alike[j] for j in sorted(alike)]) / len(expected)


@pytest.mark.parametrize("seed", range(200))
def test_it_is_the_least_over_all_pairs(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    expected = ["".join(draw.choices("abc", k=draw.randrange(1, 6))) for _ in range(draw.randrange(2, 6))]
    found = [block + draw.choice(["", "", "c", "bb"]) for block in expected]
    draw.shuffle(found)
    found = found[draw.randrange(2) :] + draw.choice([[], ["abab"]])
    reference, text = "\n\n".join(expected), "\n\n".join(found)
    fewest, pairs = best(expected, found)
    assert TEXT.page(text, reference) == fewest
    assert TEXT.size(reference) == sum(map(len, expected))
    assert ORDER.page(text, reference) in {out_of_order(expected, found, each) for each in pairs}


ONE, TWO, THREE = "A first paragraph.", "The second one says more.", "Third and last"


@pytest.mark.parametrize(
    ("read", "errors", "order"),
    [
        ([ONE, TWO, THREE], 0, 0),
        ([THREE, ONE, TWO], 0, 2 / 3),  # taken out and put in elsewhere
        ([TWO, ONE, THREE], 0, 2 / 3),
        ([ONE, THREE], len(TWO), 1 / 3),
        ([ONE, "No part of the page", TWO, THREE], len("No part of the page"), 0),
        ([ONE, TWO, "Thirdd and last"], 1, 0),
        ([], len(ONE + TWO + THREE), 1),
    ],
)
def test_text_forgives_the_order_and_the_order_the_text(read: list[str], errors: int, order: float) -> None:
    reference = "\n\n".join([ONE, TWO, THREE])
    assert TEXT.page("\n\n".join(read), reference) == errors
    assert ORDER.page("\n\n".join(read), reference) == pytest.approx(order)


def test_equal_blocks_are_in_order() -> None:
    page = "\n\n".join(["same"] * 6)
    assert ORDER.page(page, page) == 0


def test_what_does_not_count() -> None:
    table = "<table><tr><td>x</td></tr></table>"
    assert (TEXT.page("words", table), TEXT.size(table)) == (0, 0)
    assert (ORDER.page("a\n\nb", "one"), ORDER.size("one")) == (0, 0)
    assert ORDER.size("one\n\ntwo") == 1
