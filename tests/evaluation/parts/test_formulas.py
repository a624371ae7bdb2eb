"""Formulas: what is one, what two ways of writing have in common, and how far one is from another."""

from __future__ import annotations

import random
import sys

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.errors import MetricError
from hyocr_core.evaluation.parts.formulas import FormulaDistance, FormulaExact
from hyocr_core.evaluation.parts.latex import find_formulas, latex_tokens
from tests.evaluation.parts.oracles import matchings, normalized

pytest.importorskip("scipy")

DISTANCE, EXACT = FormulaDistance(MetricConfig()), FormulaExact(MetricConfig())
WHOLE = r"\frac{a}{b} + c"  # \frac a b + c: five tokens
BROKEN = {
    "a brace is not closed": (r"$$\frac{a}{b + c$$", 1 / 6),
    "a brace is not opened": (r"$$\frac{a}b} + c$$", 1 / 6),
    "the formula is not closed": (r"$$\frac{a}{b} + c", 0),
    "nor is that in brackets": (r"\[\frac{a}{b} + c", 0),
    "nor is an environment": (r"\begin{equation}\frac{a}{b} + c", 0),
    "a backslash at the end": ("$$\\frac{a}{b} + c\\ $$".replace("\\ $$", "\\"), 1 / 6),
    "cut within a command": (r"$$\fra", 1),
    "left without right": (r"$$\left\frac{a}{b} + c$$", 0),
    "delimiters alone": ("$$$$ $$ $$", 1),
    "braces turned round": (r"$$\frac}a{}b{ + c$$", None),
    "an unknown command": (r"$$\frac{a}{b} \plus c$$", 1 / 5),
    "another end than begin": (r"\begin{align}\frac{a}{b} + c\end{gather}", None),
    "ten thousand braces": ("$$" + "{" * 10_000, None),
    "halves of characters": ("$$\ud800\0$$", 1),
}


@pytest.mark.parametrize("text", BROKEN)
def test_broken_latex_scores(text: str) -> None:
    broken, distance = BROKEN[text]
    found = DISTANCE.page(f"Words.\n\n{broken}", f"$${WHOLE}$$")
    assert 0 <= found <= 1
    if distance is not None:
        assert found == pytest.approx(distance)
    assert EXACT.page(broken, f"$${WHOLE}$$") == (distance == 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x^{2}", "x^2"),
        (r"\left( \dfrac{a}{b} \right)", r"(\frac ab)"),
        (r"a \le b \ne c \to d", r"a\leq b\neq c\rightarrow d"),
        (r"\displaystyle \sum\limits_{i}^{n} i\,x\quad", r"\sum_i^n i x"),
        (r"E = mc^2 \label{eq:1} \tag{3}", "E=mc^{2}"),
        (r"\text{if } x", r"\mathrm{if}x"),
        (r"{{x}}", "x"),
    ],
)
def test_what_looks_alike_is_the_same(one: str, other: str) -> None:
    assert latex_tokens(one) == latex_tokens(other)


@pytest.mark.parametrize(
    ("one", "other"), [("x^{12}", "x^12"), (r"\alpha", "alpha"), ("a_b", "a^b"), (r"\{a\}", "{a}"), ("ab", "ba")]
)
def test_what_looks_otherwise_is_not(one: str, other: str) -> None:
    assert latex_tokens(one) != latex_tokens(other)


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("a $x$ b $$y$$ c \\(z\\) d \\[w\\]", ["x", "y", "z", "w"]),
        ("\\begin{align*}a&=b\\\\c\\end{align*}", ["a&=b\\\\c"]),
        ("costs $5 and $10, or US\\$3 and $", []),
        ("$$\na\n+b\n$$ and $c\\$d$", ["\na\n+b\n", "c\\$d"]),
        ("\\frac{a}{b}", ["\\frac{a}{b}"]),
        ("words alone", []),
        ("a \\command in\n\ntwo paragraphs", []),
        ("\\(left open\n\nwords", ["left open"]),
        ("", []),
    ],
)
def test_where_formulas_stand(text: str, formulas: list[str]) -> None:
    assert find_formulas(text) == formulas


def written(formulas: list[str]) -> str:
    return "words\n\n".join(f"$${formula}$$" for formula in formulas)


@pytest.mark.parametrize("seed", range(200))
def test_it_is_the_least_over_all_pairs(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    expected, found = (
        [
            "".join(draw.choices(["a", "b", r"\alpha ", "+"], k=draw.randrange(1, 5)))
            for _ in range(draw.randrange(1, 5))
        ]
        for _ in range(2)
    )
    far = [
        [normalized(one.replace(r"\alpha ", "x"), two.replace(r"\alpha ", "x")) for two in found] for one in expected
    ]
    most, least = max(len(expected), len(found)), min(len(expected), len(found))
    all_pairs = [pairs for pairs in matchings(len(expected), len(found)) if len(pairs) == least]
    smallest = min(sum(far[i][j] for i, j in pairs.items()) for pairs in all_pairs)
    page = DISTANCE.page(written(found), written(expected))
    assert page == pytest.approx((smallest + most - least) * len(expected) / most, abs=1e-6)
    assert DISTANCE.size(written(expected)) == len(expected)


def test_formulas_that_are_missing_or_too_many() -> None:
    reference = f"$a+b$ and $${WHOLE}$$"
    assert (DISTANCE.page(reference, reference), EXACT.page(reference, reference)) == (0, 2)
    assert (DISTANCE.page(f"$${WHOLE}$$", reference), EXACT.page(f"$${WHOLE}$$", reference)) == (1, 1)
    assert (DISTANCE.page("none", reference), EXACT.page("none", reference)) == (2, 0)
    assert (DISTANCE.page(reference, "$a+b$"), EXACT.page(reference, "$a+b$")) == (1 / 2, 1 / 2)
    assert (DISTANCE.page(reference, "words"), DISTANCE.size("words")) == (0, 0)


def test_without_scipy_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(MetricError, match=r"needs scipy: pip install 'hyocr-core\[documents\]'"):
        FormulaDistance(MetricConfig())
