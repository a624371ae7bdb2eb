"""Fields of JSON: F1 against a plain count, answers that are broken, and what is valid."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.errors import MetricError
from hyocr_core.evaluation.parts.extraction import FieldF1, ValidJson

FIELDS, VALID = FieldF1(MetricConfig()), ValidJson(MetricConfig())
RECEIPT = (
    '{"total": "3.50", "date": "2026-11-27", "items": [{"name": "tea", "price": 2}, {"name": "bun", "price": 1.5}]}'
)


@pytest.mark.parametrize(
    ("answer", "score", "valid"),
    [
        (RECEIPT, 1, True),
        (f"```json\n{RECEIPT}\n```", 1, True),
        (f"Here it is: {RECEIPT} Good?", 1, False),
        (RECEIPT[:-1], 1, False),
        (RECEIPT[: RECEIPT.index(', {"name"')], 2 * 4 / (6 + 4), False),
        (RECEIPT.replace("3.50", "3.60"), 10 / 12, True),
        (RECEIPT.replace('"total": "3.50", ', ""), 10 / 11, True),
        (RECEIPT.replace("}]}", '}], "more": null}'), 12 / 13, True),
        (RECEIPT.replace('"total"', "total"), 0, False),
        (RECEIPT.replace(": 2}", ": NaN}"), 0, False),
        (RECEIPT.replace('", "', "\" '"), 2 / (6 + 1), False),
        ("[" * 5000, 0, False),
        ('{"a": ' * 50, 0, False),
        ('{"total": "3.50\ud800"}', 0, True),
        ("{'total': '3.50'}", 0, False),
        ('"3.50"', 0, False),
        ("", 0, False),
    ],
)
def test_whole_and_broken_answers(answer: str, score: float, valid: bool) -> None:
    assert FIELDS.page(answer, RECEIPT) == pytest.approx(score)
    assert VALID.page(answer, RECEIPT) == VALID.page(answer, "") == valid


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        ({"a": 1}, {"a": "1"}, 1),
        ({"a": "x  y\n"}, {"a": "x y"}, 1),
        ({"a": "e\u0301"}, {"a": "é"}, 1),
        ({"a": [1, 2]}, {"a": [2, 1]}, 1),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 1),
        ({"a": [1, 1]}, {"a": [1]}, 2 / 3),
        ({"a": {"b": 1}}, {"b": 1}, 0),
        ({"a": None}, {"a": "None"}, 1),
        ({}, {}, 1),
        ({"a": 1}, {}, 0),
    ],
)
def test_what_is_the_same(one: Any, other: Any, score: float) -> None:
    assert FIELDS.page(json.dumps(one), json.dumps(other)) == pytest.approx(score)


def leaves(value: Any, keys: str = "") -> list[str]:
    if isinstance(value, dict):
        return [leaf for key, inside in value.items() for leaf in leaves(inside, f"{keys}/{key}")]
    if isinstance(value, list):
        return [leaf for inside in value for leaf in leaves(inside, keys)]
    return [f"{keys}={value}"]


def random_value(draw: random.Random, depth: int = 3) -> Any:
    match draw.randrange(3) if depth else 2:
        case 0:
            return {key: random_value(draw, depth - 1) for key in draw.sample("abc", draw.randrange(1, 4))}
        case 1:
            return [random_value(draw, depth - 1) for _ in range(draw.randrange(1, 3))]
        case _:
            return draw.choice(["x", "y", 7, True, None])


@pytest.mark.parametrize("seed", range(200))
def test_it_is_that_of_a_plain_count(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    expected, found = ({"a": random_value(draw), "b": random_value(draw)} for _ in range(2))
    left, right = leaves(expected), 0
    for leaf in leaves(found):
        if leaf in left:
            left.remove(leaf)
            right += 1
    score = 2 * right / (len(leaves(expected)) + len(leaves(found)))
    assert FIELDS.page(json.dumps(found), json.dumps(expected)) == pytest.approx(score)


def test_a_page_without_json_does_not_count() -> None:
    for reference in ("# A title", "[1] a footnote", "{\\bf x}"):
        assert (FIELDS.size(reference), FIELDS.page(RECEIPT, reference)) == (0, 0)
        assert (VALID.size(reference), VALID.page(RECEIPT, reference)) == (0, 0)
    assert VALID.size("") == 1
    assert not VALID.needs_reference


@pytest.mark.parametrize("reference", [RECEIPT[:-1], "{'a': 1}", '{"a": NaN}', f"{RECEIPT} words", "[[1], 2"])
def test_a_transcript_that_is_broken_json_is_refused(reference: str) -> None:
    for metric in (FIELDS, VALID):
        with pytest.raises(MetricError, match="its transcript begins as JSON and is none: "):
            metric.size(reference)
