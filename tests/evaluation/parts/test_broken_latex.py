"""Broken formulas of ten kinds have a score and a note; whole ones have no note."""

from __future__ import annotations

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.evaluation.parts.formulas import FormulaDistance, FormulaExact

WHOLE = r"$$\frac{a}{b} + \sqrt[3]{x_1^2} \left( c \right)$$"

BROKEN = [
    (r"$$a + b", "a $$ is not closed"),
    (r"\[a + b", r"a \[ is not closed"),
    (r"\(a + b", r"a \( is not closed"),
    (r"\begin{equation}a + b", r"a \begin{equation} is not closed"),
    (r"$$\frac{a}{b$$", "a { is not closed"),
    (r"$$a} + b$$", "a } closes nothing"),
    (r"$$\left( a$$", r"a \left has no \right"),
    (r"$$a \right)$$", r"a \right has no \left"),
    (r"$$\begin{matrix} a & b$$", r"a \begin{matrix} is not ended"),
    (r"$$a \end{matrix}$$", r"a \end{matrix} ends nothing"),
    (r"$$\frac{a}$$", r"a \frac lacks an argument"),
    ("$$a + \\$$", "a backslash ends it"),
    (r"$$x^2^3$$", "two superscripts follow each other"),
    (r"$$x_$$", "a _ lacks an argument"),
]


@pytest.mark.parametrize(("text", "note"), BROKEN)
@pytest.mark.parametrize("metric", [FormulaDistance, FormulaExact])
def test_a_broken_formula_has_a_score_and_a_note(metric: type[FormulaDistance], text: str, note: str) -> None:
    formula = metric(MetricConfig())
    assert formula.note(text, WHOLE) == note
    assert 0 <= formula.page(text, WHOLE) <= 1


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        r"\frac12 + x^\alpha",
        r"costs $5 and $6",
        r"\[\begin{cases} x^{2^n} \\ y' \end{cases}\]",
        r"inline $a_{i}^{j}$ and \(b\)",
        r"$$\binom nk \sqrt 2 \{ a \}$$",
        "",
    ],
)
def test_what_is_whole_has_no_note(text: str) -> None:
    assert FormulaDistance(MetricConfig()).note(text, WHOLE) == ""


def test_a_long_answer_has_a_short_note() -> None:
    assert len(FormulaDistance(MetricConfig()).note("$$" + "{x^^" * 20_000, WHOLE)) < 200
