"""Rendered documents have their transcript in the model's own format, and look like it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.evaluation.parts.broken_html import table_faults
from hyocr_core.evaluation.parts.broken_latex import latex_faults
from hyocr_core.evaluation.parts.html_tables import find_tables
from hyocr_core.evaluation.parts.latex import find_formulas
from hyocr_core.evaluation.parts.text_blocks import text_blocks
from hyocr_core.pages.documents import HEIGHT, WIDTH, document_records, wrapped
from hyocr_core.pages.fonts import load_font
from hyocr_core.pages.mathtext import draw_formula
from hyocr_core.pages.sources import open_source

COUNT = 40


def answers(kind: int) -> list[str]:
    """Of every fourth page: tables, formulas, two columns, forms."""
    return [record.answer or "" for record in document_records(COUNT)[kind::4]]


def test_tables_are_whole_html() -> None:
    for answer in answers(0):
        [table] = find_tables(answer)
        assert len(table.rows) >= 3
        assert list(table_faults(answer)) == []
        assert answer.startswith("# ")
    assert any("colspan" in answer for answer in answers(0))


def test_formulas_are_whole_latex_that_can_be_drawn() -> None:
    for answer in answers(1):
        [formula] = find_formulas(answer)
        assert list(latex_faults(answer)) == []
        assert draw_formula(formula, 30) is not None


def test_two_columns_are_read_one_after_the_other() -> None:
    for answer in answers(2):
        assert 3 <= len(text_blocks(answer)) <= 5


def test_forms_are_asked_for_their_fields_and_answered_in_json() -> None:
    for record in document_records(COUNT)[3::4]:
        fields = json.loads(record.answer or "")
        assert len(fields) >= 3
        assert record.question is not None
        assert record.question.startswith(f"Extract the content of the fields: {list(fields)} ")


@pytest.mark.parametrize("record", document_records(8), ids=lambda record: record.name)
def test_all_of_it_is_on_the_page(record: Record) -> None:
    image = np.asarray(record.open_image().convert("L")).astype(int)
    assert image.shape == (HEIGHT, WIDTH)
    dark = np.abs(image - image[0, 0]) > 8
    assert dark.mean() > 0.005
    assert not dark[:, :8].any()
    assert not dark[:, -8:].any()
    assert not dark[:8].any()
    assert not dark[-8:].any()


def test_a_page_is_the_same_in_every_run_and_for_every_count() -> None:
    few, many = document_records(3), document_records(30)
    assert [record.answer for record in few] == [record.answer for record in many[:3]]
    assert few[1].open_image().tobytes() == many[1].open_image().tobytes()
    assert len({record.answer for record in many}) == 30


def test_lines_are_no_wider_than_asked() -> None:
    text = "a few words that do not fit on one line of this width at all"
    lines = wrapped(text, 120, 20)
    assert " ".join(lines) == text
    assert len(lines) > 3
    assert all(load_font(None, 20).getlength(line) <= 120 for line in lines)


def test_the_source_gives_them_by_an_option() -> None:
    assert [record.name for record in open_source("synthetic:2?kind=documents")] == ["document:0", "document:1"]
    assert open_source("synthetic:2")[0].name == "synthetic:0"
    with pytest.raises(CalibrationError, match="kind = 'forms'"):
        open_source("synthetic:2?kind=forms")


@pytest.mark.parametrize(
    "latex", [r"\begin{matrix}a\end{matrix}", r"\frac{a", "a $ b", "x" * 401, r"\input{/etc/passwd}"]
)
def test_what_cannot_be_drawn_is_none(latex: str) -> None:
    assert draw_formula(latex, 20) is None
