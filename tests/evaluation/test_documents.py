"""Whole documents through the command: a gate on several parts, two published benchmarks, and what is refused.

The pages are larger than those that the small document reader knows, which test_lost_rows.py is about. Where answers
matter, a stand-in backend gives them; where the way through the command matters, a tiny model of random weights writes
what it will.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.pages.documents import document_records
from tests.benchmark_folders import TRANSCRIPTS, olmocr_bench, omnidocbench
from tests.evaluation.plugins import install

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

for _library in ("apted", "lxml", "markdown_it", "scipy"):
    pytest.importorskip(_library)

SCRIBE = """
import json
from pathlib import Path

from hyocr_core import Backend, PageAnswer

class Toy(Backend):
    api_version = 1
    needs_files = False
    honours = ("max_new_tokens", "repetition_penalty", "stop_loops", "stop_token_ids")

    def read(self, pages, say):
        answers = json.loads(Path({!r}).read_text())[self.model.name]
        for page in pages:
            yield PageAnswer(page.index, answers[page.name], tokens=9)
"""
"""Reads what a file says: model -> page -> answer."""

PAGES = 24
DOCUMENTS = f"synthetic:{PAGES}?kind=documents"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def refusal(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error: ")]
    return line.removeprefix("hyocr: error: ")


def scribe(plugins: PluginFolder, folder: Path, answers: Mapping[str, Mapping[str, str]]) -> tuple[object, ...]:
    """Install the stand-in; the arguments that let it read `damaged` beside `whole`."""
    file = folder / "answers.json"
    file.write_text(json.dumps(answers), encoding="utf-8")
    install(plugins, "backends", "scribe", SCRIBE.format(str(file)))
    return "eval", "damaged", "--baseline", "whole", "--backend", "scribe", "--keep-duplicates"


@pytest.fixture(scope="module")
def documents() -> dict[str, str]:
    return {record.name: record.answer or "" for record in document_records(PAGES)}


def without_a_row(answers: Mapping[str, str]) -> dict[str, str]:
    """The same, but one table of them has lost its last row."""
    name = next(name for name, answer in answers.items() if "</table>" in answer)
    head, _, row = answers[name].rpartition("<tr>")
    return {**answers, name: head + row.partition("</tr>")[2]}


def test_a_gate_bounds_each_part_for_itself(plugins: PluginFolder, documents: dict[str, str], tmp_path: Path) -> None:
    asked = scribe(plugins, tmp_path, {"whole": documents, "damaged": without_a_row(documents)})
    bounds = "cer=1.0,teds=1.0,formula=1.0,valid_json=0"
    failed = run(*asked, "--data", DOCUMENTS, "--gate", bounds, "--json")
    assert refusal(failed, code=1).startswith("gate failed: teds ")
    result = EvalResult.model_validate_json(failed.stdout)
    assert result.comparison is not None
    assert result.comparison.cer_difference is not None
    assert 0 < result.comparison.cer_difference < 0.01
    assert result.comparison.metrics["teds"].value < -0.01
    assert result.gate is not None
    assert {figure.metric: figure.passed for figure in result.gate.figures} == {
        "cer": True,
        "teds": False,
        "formula": True,
        "valid-json": True,
    }
    shown = run(*asked, "--data", DOCUMENTS, "--task", "doc_parse", "--csv", tmp_path / "pages.csv")
    assert shown.exit_code == 0, shown.output
    assert re.search(
        r"^tables \(TEDS\) .*\n  95 % interval( +\d[\d.]* to [\d.]+){2} +−[\d.]+ to ", shown.stdout, re.MULTILINE
    )
    assert "reading order (edit distance)" in shown.stdout
    assert "baseline_teds" in (tmp_path / "pages.csv").read_text(encoding="utf-8").splitlines()[0]


def test_a_metric_of_another_task_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    line = refusal(run("eval", "nowhere", "--data", tmp_path, "--task", "table", "--metrics", "spotting-f1"))
    assert "does not apply to the task table, but to spotting_json, spotting_hunyuan" in line
    assert line.endswith("metrics by part for table: teds, teds-structure")


def test_ground_truth_without_the_part_is_refused_before_anything_is_read(
    plugins: PluginFolder, documents: dict[str, str], tmp_path: Path
) -> None:
    folder = omnidocbench(tmp_path / "OmniDocBench")
    asked = scribe(plugins, tmp_path, {})
    line = refusal(run(*asked, "--data", f"omnidocbench:{folder}", "--gate", "valid-json=0"))
    assert "none of 6 pages has what it measures in its transcript" in line


@pytest.mark.parametrize(
    ("source", "lacks"), [("omnidocbench", "OmniDocBench.json and images/"), ("olmocr-bench", "*.jsonl")]
)
def test_a_folder_of_another_layout_is_refused(tmp_path: Path, source: str, lacks: str) -> None:
    line = refusal(run("eval", "nowhere", "--data", f"{source}:{tmp_path}"))
    assert line.startswith(f"{source}:{tmp_path}: is not laid out as ")
    assert lacks in line


@pytest.mark.needs_methods
def test_omnidocbench_goes_through_the_command_and_its_report(tiny: Path, by_rtn: Path, tmp_path: Path) -> None:
    folder = omnidocbench(tmp_path / "OmniDocBench")
    mine = shutil.copytree(by_rtn, tmp_path / "mine")
    asked = ("--data", f"omnidocbench:{folder}", "--task", "doc_parse", "--baseline", tiny, "--max-new-tokens", 4)
    shown = run("eval", mine, *asked, "--record", "--json")
    assert shown.exit_code == 0, shown.output
    result = EvalResult.model_validate_json(shown.stdout)
    assert {page.name: page.reference for page in result.pages} == TRANSCRIPTS
    assert set(result.metrics) == {
        *("teds", "teds-structure", "formula", "formula-exact", "text-blocks", "reading-order")
    }
    assert result.model.metrics["teds"].value == 0
    page = (mine / "report" / "index.html").read_text(encoding="utf-8")
    assert "tables (TEDS)" in page
    assert f"omnidocbench:{folder.name}" in page
    numbers = read_report(mine).evaluation
    assert numbers is not None
    assert numbers.differences["teds"].value == 0
    card = (mine / "README.md").read_text(encoding="utf-8")
    assert "Less the original's (95 % interval, page by page): " in card
    assert "; tables (TEDS) +0.00 (" in card
    twin = shutil.copytree(mine, tmp_path / "twin")
    compared = json.loads(run("compare", mine, twin, "--json").stdout)
    assert compared["candidates"][1]["metric_differences"]["teds"]["value"] == 0


def test_olmocr_bench_is_judged_by_its_own_tests(plugins: PluginFolder, tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    folder = olmocr_bench(tmp_path / "olmOCR-bench")
    said = {f"{file}/{page}.pdf:1": TRANSCRIPTS[f"{page}.png"] for file, page in _PLACES}
    lost = said | {"table_tests/table.pdf:1": "nothing"}
    asked = scribe(plugins, tmp_path, {"whole": said, "damaged": lost})
    shown = run(*asked, "--data", f"olmocr-bench:{folder}", "--metrics", "olmocr-tests", "--json")
    assert shown.exit_code == 0, shown.output
    result = EvalResult.model_validate_json(shown.stdout)
    assert result.baseline is not None
    assert result.model.cer is None
    assert result.baseline.metrics["olmocr-tests"].value == 1
    assert result.model.metrics["olmocr-tests"].value == 6 / 7
    alone = run("eval", "damaged", "--backend", "scribe", "--data", f"olmocr-bench:{folder}", "--task", "doc_parse")
    assert alone.exit_code == 0, alone.output
    assert "tests of olmOCR-bench" in alone.stdout


_PLACES = [
    ("table_tests", "table"),
    ("arxiv_math", "formula"),
    ("multi_column", "two_columns"),
    ("old_scans", "by_hand"),
    ("old_scans", "rotated"),
    ("old_scans", "chinese"),
    ("headers_footers", "table"),
]
"""File of tests and page."""
