"""The section by part shows tables and formulas side by side, and lets no markup of theirs onto the page."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import pytest
from markupsafe import Markup
from PIL import Image

from hyocr_core.checkpoint.quant_report import MetricRecord
from hyocr_core.evaluation.parts.html_tables import find_tables
from hyocr_core.evaluation.scores.result import EvalResult, PageResult
from hyocr_core.report.by_part import parts, shown_table
from hyocr_core.report.formula_image import formula_image
from hyocr_core.report.page import write_page
from hyocr_core.report.plots import Plot
from tests.report import built
from tests.report.test_page import Parsed, plain

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><a href='javascript:alert(3)'>go</a> {{ 7*7 }} \u202e"
EVIL_LATEX = r"\href{javascript:alert(1)}{x} \input{/etc/passwd} <script>alert(2)</script>"
TABLE = "<table><tr><td>tea</td><td>12</td></tr><tr><td>rye</td><td>34</td></tr></table>"
LOST_ROW = "<table><tr><td>tea</td><td>12</td></tr></table>"
WRONG_CELL = TABLE.replace("34", "84")


def metric(title: str, better: str = "larger") -> MetricRecord:
    return MetricRecord.model_validate(
        {"title": title, "unit": "%", "better": better, "distribution": "hyocr-core", "version": "0.1.0"}
    )


METRICS = {"teds": metric("tables (TEDS)"), "formula": metric("formulas (edit distance)", "smaller")}


def page(name: str, reference: str, text: str, metrics: dict[str, float], notes: dict[str, str]) -> PageResult:
    best = {key: float(METRICS[key].better == "larger") for key in metrics}
    changes = {"metrics": metrics, "baseline_metrics": best, "notes": notes}
    return built.page(name, reference, text, reference).model_copy(update=changes)


def evaluation(*pages: PageResult) -> EvalResult:
    return built.evaluation(pages, metrics=METRICS)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(name: str, caption: str, label: str, *_: object) -> Plot:
        return Plot(label, caption, Markup("<svg></svg>"), Markup("<svg></svg>"))

    monkeypatch.setattr("hyocr_core.report.figures.draw", draw)


def section(folder: Path, *pages: PageResult) -> tuple[str, Parsed]:
    html = write_page(built.checkpoint(folder, None, evaluation(*pages))).read_text(encoding="utf-8")
    [found] = re.findall(r'<section id="parts">.*?</section>', html, re.DOTALL)
    return found, Parsed(found)


def test_a_lost_row_and_a_changed_cell_are_marked(no_plots: None, tmp_path: Path) -> None:
    html, shown = section(
        tmp_path / "a",
        page("lost.png", TABLE, LOST_ROW, {"teds": 0.5}, {}),
        page("wrong.png", TABLE, WRONG_CELL, {"teds": 0.9}, {"teds": "a <table> is not closed"}),
        page("right.png", TABLE, TABLE, {"teds": 1.0}, {}),
    )
    articles = re.findall(r"<article.*?</article>", html, re.DOTALL)
    assert [re.findall(r"<h4>(.*?)</h4>", article)[0] for article in articles] == ["lost.png", "wrong.png"]
    assert articles[0].count('class="cell-missing"') == 2
    assert re.findall(r'class="cell-missing">(.*?)</td>', articles[0]) == ["<del>rye</del>", "<del>34</del>"]
    changed = '<td class="cell-changed"><span class="swap"><del>3</del><ins>8</ins></span>4</td>'
    assert articles[1].count("cell-changed") == 1
    assert changed in articles[1]
    assert "gptq 0.9, baseline 1; in the answer of gptq a <table> is not closed" in plain(shown.text)
    assert articles[0].count('<table class="read-table">') == 3, "transcript, baseline and model"


def test_a_formula_stands_beside_a_formula(no_plots: None, tmp_path: Path) -> None:
    html, shown = section(tmp_path / "a", page("f.png", r"$$\frac{a}{b}$$", r"$$\frac{a}{c}$$", {"formula": 0.2}, {}))
    sources = [value for value in shown.values("src") if value.startswith("data:image/png;base64,")]
    assert len(sources) == 3
    assert sources[0] == sources[1] != sources[2]
    image = Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2])))
    assert 10 < image.width < 200
    assert re.search(r"<del>b</del><ins>c</ins>", html)


def test_what_was_not_read_is_said(no_plots: None, tmp_path: Path) -> None:
    html, _ = section(
        tmp_path / "a",
        page("t.png", TABLE, "nothing", {"teds": 0.0}, {}),
        page("f.png", r"$$\frac{a}{b}$$", "nothing", {"formula": 1.0}, {}),
    )
    assert html.count("<p>not read</p>") == 2


@pytest.mark.parametrize(
    "text",
    [
        f"<table><tr><td>{HOSTILE}</td><td onclick='alert(4)' style='position:fixed'>12</td></tr></table>",
        f"<table onload=alert(5)><tr><td><svg/onload=alert(6)></td><td></table>{HOSTILE}",
        f"<table><tr><td>{'<table><tr><td>' * 300}deep",
        f"<table><tr><td></td></tr></table><style>*{{display:none}}</style></td></section>{HOSTILE}",
        f'<table><tr><td colspan="99999999" rowspan=4>{HOSTILE}</td></tr></table>',
    ],
)
def test_hostile_html_never_gets_onto_the_page(no_plots: None, tmp_path: Path, text: str) -> None:
    clean, _ = section(tmp_path / "clean", page("t.png", TABLE, WRONG_CELL, {"teds": 0.5}, {}))
    _, shown = section(tmp_path / "evil", page("t.png", TABLE, text, {"teds": 0.0}, {"teds": text[:80]}))
    allowed = {tag for tag, _ in Parsed(clean).tags} | {"ins", "del", "span"}
    assert {tag for tag, _ in shown.tags} <= allowed
    attributes = {name for _, found in shown.tags for name in found}
    assert attributes <= {"id", "class", "tabindex", "role", "aria-label", "colspan", "rowspan"}
    assert all(int(value) <= 20 for value in (*shown.values("colspan"), *shown.values("rowspan")))
    assert "\u202e" not in shown.text


def test_hostile_markup_in_names_and_notes_is_text(no_plots: None, tmp_path: Path) -> None:
    _, shown = section(tmp_path / "a", page(HOSTILE, TABLE, LOST_ROW, {"teds": 0.5}, {"teds": HOSTILE}))
    assert not {"script", "img", "a"} & {tag for tag, _ in shown.tags}
    assert shown.text.count("<script>alert(1)</script>") >= 2


def test_hostile_latex_is_an_image_or_its_source(no_plots: None, tmp_path: Path) -> None:
    evil = f"$${EVIL_LATEX}$$"
    _, shown = section(tmp_path / "a", page("f.png", r"$$\frac{a}{b}$$", evil, {"formula": 1.0}, {}))
    assert not {"script", "a"} & {tag for tag, _ in shown.tags}
    assert all(value.startswith("data:image/png;base64,") for value in shown.values("src"))
    assert "/etc/passwd" in shown.text, "as its source"


@pytest.mark.parametrize(
    "latex", [r"\begin{matrix}a\end{matrix}", r"\frac{a", "a $ b", "x" * 401, r"\input{/etc/passwd}", "", "{" * 5]
)
def test_what_cannot_be_drawn_has_no_image(latex: str) -> None:
    assert formula_image(latex) is None


def test_the_same_formula_is_the_same_image_whatever_the_users_settings() -> None:
    import matplotlib as mpl

    first = formula_image(r"\frac{a}{b}")
    with mpl.rc_context({"text.usetex": True, "font.size": 30.0}):
        assert formula_image(r"\frac{a}{b}") == first is not None
        assert mpl.rcParams["font.size"] == 30.0


def test_a_huge_table_is_cut() -> None:
    [table] = find_tables("<table>" + "<tr>" + "<td>a</td>" * 50 + "</tr>" + "<tr><td>b</td></tr>" * 99 + "</table>")
    shown = shown_table(table, table)
    assert (len(shown.rows), max(map(len, shown.rows)), shown.more) == (40, 20, 60)


def test_pages_without_any_loss_have_no_section(no_plots: None, tmp_path: Path) -> None:
    result = evaluation(page("t.png", TABLE, TABLE, {"teds": 1.0}, {}))
    assert parts(result) == []
    html = write_page(built.checkpoint(tmp_path / "a", None, result)).read_text(encoding="utf-8")
    assert 'id="parts"' not in html
    assert "Part by part" not in html


def test_without_a_baseline_the_lowest_come_first() -> None:
    pages = [
        page(f"{number}.png", TABLE, WRONG_CELL, {"teds": number}, {}).model_copy(
            update={"baseline_metrics": {}, "baseline_text": None}
        )
        for number in (0.9, 1.0, 0.2)
    ]
    [part] = parts(evaluation(*pages))
    assert [example.number for example in part.examples] == [0.2, 0.9]
    assert [side.role for side in part.examples[0].sides] == ["reference", "model"]
