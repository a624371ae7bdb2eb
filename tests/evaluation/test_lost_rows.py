"""A checkpoint whose tables lose a row fails the gate on tables, while its CER hardly moves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hyocr_core.cli.main import main
from hyocr_core.evaluation.scores.result import EvalResult
from tests.evaluation.lost_rows import lose_rows
from tests.small_pages import READER, as_omnidocbench, draw, rows

pytestmark = pytest.mark.usefixtures("one_thread")

for _library in ("apted", "lxml", "markdown_it", "scipy"):
    pytest.importorskip(_library)

MIXED = {"table": 1, "fraction": 3, "lines": 320}
"""A lost row, with what closes the table, has 50 characters: less than a hundredth of all of these."""


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lose_rows(READER, tmp_path_factory.mktemp("damaged") / "damaged")


def evaluated(model: Path, data: Path, *more: str) -> tuple[Result, EvalResult]:
    asked = (
        "eval",
        str(model),
        "--baseline",
        str(READER),
        "--data",
        str(data),
        "--task",
        "doc_parse",
        "--device",
        "cpu",
    )
    shown = CliRunner().invoke(main, [*asked, *more, "--keep-duplicates", "--json"])
    return shown, EvalResult.model_validate_json(shown.stdout)


def test_every_table_loses_its_second_row_and_nothing_else(damaged: Path, tmp_path: Path) -> None:
    shown, result = evaluated(damaged, rows(tmp_path / "tables", draw("heldout", table=12)))
    assert shown.exit_code == 0, shown.output
    assert result.baseline is not None
    assert result.baseline.metrics["teds"].value > 0.9
    assert result.baseline.metrics["teds-structure"].value == 1
    assert result.model.metrics["teds-structure"].value == 0.5
    for page in result.pages:
        first, end, _ = (page.baseline_text or "").partition("</tr>")
        assert page.text == first + end
        assert page.notes["teds"] == "a <table> is not closed"


def test_the_gate_on_tables_fails_while_cer_moves_by_less_than_a_point(damaged: Path, tmp_path: Path) -> None:
    data = rows(tmp_path / "mixed", draw("heldout", **MIXED))
    shown, result = evaluated(damaged, data, "--gate", "teds=1.0,cer=1.0,formula=1.0")
    assert shown.exit_code == 1, shown.output
    [line] = [line for line in shown.stderr.splitlines() if line.startswith("hyocr: error: ")]
    assert line.startswith("hyocr: error: gate failed: teds ")
    assert result.comparison is not None
    assert result.comparison.cer_difference is not None
    assert 0 < result.comparison.cer_difference < 0.01
    assert result.comparison.metrics["teds"].value < -0.4
    assert result.gate is not None
    assert {figure.metric: figure.passed for figure in result.gate.figures} == {
        "teds": False,
        "cer": True,
        "formula": True,
    }


@pytest.mark.needs_methods
def test_the_report_shows_the_lost_rows(damaged: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    made = CliRunner().invoke(main, ["quant", "--method", "rtn", "--model", str(damaged), "--output", str(copy)])
    assert made.exit_code == 0, made.output
    folder = as_omnidocbench(tmp_path / "OmniDocBench", draw("heldout", table=2, fraction=1, lines=1))
    asked = ("--baseline", str(READER), "--data", f"omnidocbench:{folder}", "--task", "doc_parse", "--device", "cpu")
    shown = CliRunner().invoke(main, ["eval", str(copy), *asked, "--record"])
    assert shown.exit_code == 0, shown.output
    html = (copy / "report" / "index.html").read_text(encoding="utf-8")
    [parts] = re.findall(r'<section id="parts">.*?</section>', html, re.DOTALL)
    articles = re.findall(r"<article.*?</article>", parts, re.DOTALL)
    assert len(articles) == 2 * len(("teds", "teds-structure"))
    for article in articles:
        assert article.count('class="cell-missing"') == 3
        assert "a &lt;table&gt; is not closed" in article


def test_the_gate_passes_what_is_not_damaged(tmp_path: Path) -> None:
    data = rows(tmp_path / "pages", draw("heldout", table=2, fraction=2, lines=2))
    shown, result = evaluated(READER, data, "--gate", "teds=1.0,cer=1.0,formula=1.0")
    assert shown.exit_code == 0, shown.output
    assert result.gate is not None
    assert result.gate.accepted
