"""The metrics of tables: what is found in a text, whole and broken, and how pages count."""

from __future__ import annotations

import sys

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.errors import MetricError
from hyocr_core.evaluation.parts.html_tables import Cell, find_tables
from hyocr_core.evaluation.parts.tables import Teds, TedsStructure

pytest.importorskip("apted")
pytest.importorskip("lxml")
pytest.importorskip("scipy")

WHOLE = "<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>"
BROKEN = {
    "nothing open is closed": ("<table><tr><td>a<td>b<tr><td>c<td>d", 1),
    "the table is not closed": (WHOLE.removesuffix("</table>"), 1),
    "a cell is not closed": (WHOLE.replace("b</td>", "b"), 1),
    "a row is not closed": (WHOLE.replace("</tr>", "", 1), 1),
    "a row is not opened": (WHOLE.replace("</tr><tr>", "</tr>"), 1),
    "cut within a tag": (WHOLE[: WHOLE.index("d</td>")].removesuffix("<td>") + "<t", 1 - 1 / 6),
    "cut within a cell": (WHOLE[: WHOLE.index("d</td>")], 1 - 1 / 6),
    "an attribute without end": (WHOLE.replace("<td>b", '<td colspan="1>b'), None),
    "spans that are none": (WHOLE.replace("<td>b", '<td colspan="x" rowspan="-3">b'), 1),
    "closed twice, in the wrong order": (WHOLE.replace("b</td></tr>", "b</tr></td></td></table>", 1), None),
    "a stray bracket": (WHOLE.replace("c", "c < "), 1 - 2 / 3 / 6),
    "halves of characters and zeros": (WHOLE.replace("<td>b", "<td>\ud800\0b"), 1 - 1 / 2 / 6),
    "an end alone": ("</td></tr></table>", 0),
    "rows alone": (WHOLE.removeprefix("<table>"), 0),
    "a thousand tables within each other": ("<table><tr><td>" * 1000, None),
}


@pytest.fixture
def metric() -> Teds:
    return Teds(MetricConfig())


@pytest.mark.parametrize("text", BROKEN)
def test_broken_html_scores(metric: Teds, text: str) -> None:
    broken, score = BROKEN[text]
    found = metric.page(f"# Title\n\n{broken}", WHOLE)
    assert 0 <= found <= 1
    if score is not None:
        assert found == pytest.approx(score)
    assert 0 <= TedsStructure(MetricConfig()).page(broken, WHOLE) <= 1


def test_what_a_cell_holds() -> None:
    (table,) = find_tables(
        "<TABLE><caption>no</caption><thead><tr><th colspan=2>  x \n y<b>z</b>e\u0301 </th></tr></thead><tbody>"
        "<tr></tr><tr><td rowspan='2'>&lt;1&amp;<table><tr><td>in</td></tr></table></td><td/></tr></tbody></TABLE>"
    )
    inner = ("<table>", "<tr>", "<td>", "i", "n", "</td>", "</tr>", "</table>")
    assert table.rows == [
        (Cell(2, 1, (*"x y", "<b>", "z", "</b>", "é")),),
        (),
        (Cell(1, 2, (*"<1&", *inner)), Cell()),
    ]
    assert table.nodes == 6
    assert find_tables("a < b, and no <tablet>") == []


def test_the_structure_alone_forgives_what_is_written(metric: Teds) -> None:
    other = "<table><tr><td>p</td><td>q</td></tr><tr><td>r</td><td>s</td></tr></table>"
    assert metric.page(other, WHOLE) == pytest.approx(1 - 4 / 6)
    structure = TedsStructure(MetricConfig())
    assert structure.page(other, WHOLE) == 1
    assert structure.page(other.replace("<td>q</td>", ""), WHOLE) == pytest.approx(1 - 1 / 6)


def test_tables_are_paired_by_their_text(metric: Teds) -> None:
    second = WHOLE.replace("<td>a</td>", "<td>a long one</td>").replace("d<", "other<")
    reference = f"{WHOLE}\n\ntext\n\n{second}"
    assert metric.size(reference) == 2
    assert metric.page(f"{second}{WHOLE}", reference) == 2
    assert metric.page(WHOLE, reference) == 1
    assert metric.page("no table", reference) == 0
    assert metric.page(f"{WHOLE}{second}", WHOLE) == pytest.approx(1 / 2), "one that is not there halves the score"


def test_a_page_without_tables_does_not_count(metric: Teds) -> None:
    assert (metric.page("text", "text"), metric.size("text")) == (0, 0)
    assert (metric.page(WHOLE, "text"), metric.size("text")) == (0, 0)


@pytest.mark.parametrize(
    "reference", ["<table></table>", "<table>words", f"{WHOLE}<table><caption>x</caption></table>"]
)
def test_a_transcript_with_a_table_that_is_none_is_refused(metric: Teds, reference: str) -> None:
    with pytest.raises(MetricError, match="its transcript has a table without a row"):
        metric.size(reference)


@pytest.mark.parametrize("missing", ["apted", "lxml.html", "scipy.optimize"])
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MetricError, match=rf"needs {missing.split('.')[0]}: pip install 'hyocr-core\[documents\]'"):
        Teds(MetricConfig())
