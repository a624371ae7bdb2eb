"""Spotted lines: both forms of an answer, and F1 against brute force."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.evaluation.parts.spotting import Line, SpottingF1, overlaps, spotted_lines
from tests.evaluation.parts.oracles import matchings

pytest.importorskip("scipy")

METRIC = SpottingF1(MetricConfig())
LINES = [Line("Total", (10, 20, 110, 40)), Line("3,50 (net)", (200, 20, 300, 40)), Line("第3页", (0, 900, 50, 950))]
ROWS = [{"box": list(line.box), "text": line.text} for line in LINES]
AS_JSON = json.dumps(ROWS, ensure_ascii=False)
IN_WORDS = "Total(10,20),(110,40)3,50 (net)(200,20),(300,40)第3页(0,900),(50,950)"


@pytest.mark.parametrize("answer", [AS_JSON, IN_WORDS, IN_WORDS.replace(")3", ")\n3"), f"```json\n{AS_JSON}\n```"])
def test_both_forms_are_read(answer: str) -> None:
    assert spotted_lines(answer) == LINES
    assert METRIC.page(answer, AS_JSON) == METRIC.page(AS_JSON, answer) == METRIC.size(answer) == 1


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (AS_JSON[:-3], 2),
        (AS_JSON[: AS_JSON.index('"3,50')], 1),
        (json.dumps([*ROWS[:2], {"text": "no box"}, {"box": [1, 2, 3, 4]}, 7, None]), 2),
        (json.dumps([ROWS[0], {"box": [1, 2, 3], "text": "a"}, {"box": ["1", 2, 3, 4], "text": "a"}]), 1),
        (
            json.dumps([ROWS[0], {"box": [1, 2, True, 4], "text": "a"}, {"box": [10**400, 2, 3, 4], "text": "a"}])[:-1],
            1,
        ),
        (json.dumps([ROWS[0], {"box": [1e300, 2, 3, 4], "text": "a"}, {"box": 5, "text": "a"}]), 1),
        (AS_JSON.replace("}, {", "} {"), 1),
        (json.dumps({"lines": ROWS}), 0),
        (IN_WORDS.replace("(110,40)", "(110,"), 2),
        (IN_WORDS.replace("Total(10", "Total10"), 2),
        ("(1,2),(3,4)" * 2, 2),
        ("\ud800 (1,2),(3", 0),
        ("", 0),
    ],
)
def test_broken_answers_have_the_lines_that_are_whole(answer: str, lines: int) -> None:
    assert len(spotted_lines(answer)) == lines
    assert 0 <= METRIC.page(answer, AS_JSON) < 1


def test_corners_come_in_any_order() -> None:
    assert spotted_lines("a(30,2),(1,40)") == [Line("a", (1, 2, 30, 40))]


@pytest.mark.parametrize(
    ("box", "right"),
    [
        ((0, 0, 100, 50), True),  # half of it: IoU is 0.5
        ((0, 0, 100, 49), False),
        ((0, 0, 200, 100), True),
        ((0, 0, 201, 100), False),
        ((200, 0, 300, 100), False),
    ],
)
def test_boxes_overlap_by_half(box: tuple[int, int, int, int], right: bool) -> None:
    left, top, bottom_right = box[0], box[1], box[2:]
    assert METRIC.page(f"a({left},{top}),({bottom_right[0]},{bottom_right[1]})", "a(0,0),(100,100)") == right


def test_text_must_be_the_same() -> None:
    assert METRIC.page("A(0,0),(9,9)", "a(0,0),(9,9)") == 0
    assert METRIC.page("e\u0301 (0,0),(9,9)", "é(0,0),(9,9)") == 1
    assert METRIC.page("a(0,0),(9,9)" * 2, "a(0,0),(9,9)") == pytest.approx(2 / 3), "one box is one line"
    assert METRIC.page("a(5,5),(5,5)", "a(5,5),(5,5)") == 0, "what covers nothing overlaps nothing"
    assert (METRIC.page("a(0,0),(9,9)", "no line"), METRIC.size("no line")) == (0, 0)


def pixels(line: Line) -> set[tuple[int, int]]:
    left, top, right, bottom = map(int, line.box)
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


@pytest.mark.parametrize("seed", range(200))
def test_it_is_that_of_the_most_pairs(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311

    def line() -> Line:
        left, top = draw.randrange(4), draw.randrange(4)
        return Line(draw.choice("aab"), (left, top, left + draw.randrange(1, 6), top + draw.randrange(1, 6)))

    expected, found = ([line() for _ in range(draw.randrange(1, 5))] for _ in range(2))
    shared = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in found] for a in expected]
    np.testing.assert_allclose(overlaps(expected, found), shared)
    most = max(
        len(pairs)
        for pairs in matchings(len(expected), len(found))
        if all(shared[i][j] >= 0.5 and expected[i].text == found[j].text for i, j in pairs.items())
    )
    reference = json.dumps([{"box": each.box, "text": each.text} for each in expected])
    text = "".join("{}({},{}),({},{})".format(each.text, *each.box) for each in found)
    precision, recall = most / len(found), most / len(expected)
    score = 2 * precision * recall / (precision + recall) if most else 0
    assert METRIC.page(text, reference) == pytest.approx(score)
