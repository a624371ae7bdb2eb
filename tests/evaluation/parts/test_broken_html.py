"""Broken tables of ten kinds have a score and a note; whole ones have no note."""

from __future__ import annotations

import math

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.evaluation.parts.broken_html import table_faults
from hyocr_core.evaluation.parts.tables import Teds, TedsStructure

WHOLE = '<table><thead><tr><th colspan="2">a</th></tr></thead><tr><td>b</td><td rowspan=1>c</td></tr></table>'
NESTED = "<table><tr><td>b<table><tr><td>c</td></tr></table></td></tr></table>"

BROKEN = [
    ("<table><tr><td>a</td></tr>", "a <table> is not closed"),
    ("<table><tr><td>a</td></table>", "a <tr> is not closed"),
    ("<table><tr><td>a<td>b</td></tr></table>", "a <td> is not closed"),
    ("<table><td>a</td></table>", "a <td> stands outside of a <tr>"),
    ("<tr><td>a</td></tr>", "a <tr> stands outside of a <table>"),
    ("<table><tr><td>a</td></td></tr></table>", "a </td> closes nothing"),
    ('<table><tr><td colspan="two">a</td></tr></table>', "a colspan is no number"),
    ("<table><tr><td>a</td><td", "a tag <td breaks off; a <td> is not closed; a <tr> is not closed; and 1 more"),
    ("<table>a b</table>", "a <table> has no row"),
    ('<table><tr><td colspan="2>a</td></tr></table>', "a tag <td breaks off; a colspan is no number"),
    ("a</table>", "a </table> closes nothing"),
    ("<table><tr><td>a<tr><td>b</td></tr></table>", "a <td> is not closed; a <tr> is not closed"),
]


@pytest.mark.parametrize(("text", "note"), BROKEN)
@pytest.mark.parametrize("metric", [Teds, TedsStructure])
def test_a_broken_table_has_a_score_and_a_note(metric: type[Teds], text: str, note: str) -> None:
    teds = metric(MetricConfig())
    assert teds.note(text, WHOLE) == note
    assert 0 <= teds.page(text, WHOLE) < 1


@pytest.mark.parametrize("text", [WHOLE, NESTED, WHOLE.upper(), "no table", "a < b and <b>c</b>", ""])
def test_what_is_whole_has_no_note(text: str) -> None:
    assert Teds(MetricConfig()).note(text, WHOLE) == ""


def test_a_long_answer_has_a_short_note() -> None:
    assert len(Teds(MetricConfig()).note("<table><tr>" + "<td><tr>" * 20_000, WHOLE)) < 200


def test_faults_come_in_the_order_of_the_text() -> None:
    assert list(table_faults("<td>a</td></td><table><tr><td>")) == [
        "a <td> stands outside of a <tr>",
        "a </td> closes nothing",
        "a <td> is not closed",
        "a <tr> is not closed",
        "a <table> is not closed",
    ]


def test_a_score_is_a_number_whatever_is_broken() -> None:
    teds = Teds(MetricConfig())
    assert all(math.isfinite(teds.page(WHOLE[:end], WHOLE)) for end in range(len(WHOLE)))
    assert all(teds.note(WHOLE[:end], WHOLE) for end in range(len("<table"), len(WHOLE)))
