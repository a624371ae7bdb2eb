from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.main import main
from hyocr_core.contract.page_source import Record
from hyocr_core.evaluation.recorded.record_folder import pages_key, save_evaluation
from tests.decoding import decoding
from tests.report import built


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return built.checkpoint(tmp_path / "int4", None, built.evaluation(built.some_pages(4)))


def test_the_path_of_the_page_is_all_on_stdout(folder: Path) -> None:
    result = run(folder)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{folder}/report/index.html\n"
    assert (folder / "report" / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_json_has_all_that_the_page_tells_of(folder: Path) -> None:
    found = json.loads(run(folder, "--json").stdout)
    assert found["page"] == f"{folder}/report/index.html"
    assert found["report"] == json.loads((folder / "hyocr_report.json").read_text(encoding="utf-8"))
    assert [len(each["pages"]) for each in found["evaluations"]] == [4]


@pytest.fixture
def several(folder: Path) -> Path:
    """Seven pages of forms, and four of heldout.jsonl twice."""
    again = built.evaluation(built.some_pages(4), decoding=decoding(max_new_tokens=7))
    forms = built.evaluation(built.some_pages(7, seed=1), data="/home/someone/forms.jsonl")
    shown = Image.new("RGB", (8, 8))
    for result in (again, forms):
        pages = [Record(page.name, None, page.reference, lambda: shown) for page in result.pages]
        save_evaluation(folder, result, pages)
    return folder


def test_it_tells_of_one_evaluation_and_names_the_others(several: Path) -> None:
    result = run(several)
    told, *others = result.stderr.replace("\u00a0", " ").splitlines()
    assert "7 pages of forms.jsonl" in told
    assert [line.split(": ", 1)[1].partition(",")[0] for line in others] == ["4 pages of heldout.jsonl"] * 2
    names = [line.split()[1].rstrip(":") for line in others]
    assert [name.partition(":")[2] for name in names] == ["2", "1"]
    page = (several / "report" / "index.html").read_text(encoding="utf-8")
    assert "It has read 7 pages of forms.jsonl" in page
    assert all(name in page for name in names)


@pytest.mark.parametrize(("chosen", "limit"), [("heldout.jsonl", 7), ("{}", 7), ("{}:2", 7), ("{}:1", 2048)])
def test_another_evaluation_is_chosen_by_data_or_name(several: Path, chosen: str, limit: int) -> None:
    key = pages_key(built.evaluation(built.some_pages(4)))[:8]
    result = run(several, "--evaluation", chosen.format(key), "--json")
    assert result.exit_code == 0, result.stderr
    first, *others = json.loads(result.stdout)["evaluations"]
    assert first["data"].endswith("heldout.jsonl")
    assert first["decoding"]["max_new_tokens"] == limit
    assert len(others) == 2
    assert "It has read 4 pages of heldout.jsonl" in (several / "report" / "index.html").read_text(encoding="utf-8")


def test_what_is_not_recorded_is_refused_with_what_is(several: Path) -> None:
    result = run(several, "--evaluation", "form.jsonl")
    assert result.exit_code == 2
    assert "--evaluation form.jsonl: there is no such evaluation: " in result.stderr
    assert "7\u00a0pages of forms.jsonl" in result.stderr


def test_others_stand_beside_it_in_a_file_of_choice(folder: Path, tmp_path: Path) -> None:
    others = [built.checkpoint(tmp_path / name, None, built.evaluation(built.some_pages(4))) for name in ("fp8", "awq")]
    result = run(folder, "--compare", others[0], "--compare", others[1], "--output", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path}/page.html\n"
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Beside others" in text
    assert all(f'<th scope="row">{name}' in text for name in ("int4", "fp8", "awq"))
    assert not (folder / "report" / "index.html").exists()


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda folder: (folder / "hyocr_report.json").unlink(), "has no hyocr_report.json"),
        (lambda folder: (folder / "hyocr_report.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: built.recorded(folder).write_text('{"schema_version": 1}'), "evaluate again"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_2(folder: Path, damage: object, word: str) -> None:
    assert callable(damage)
    damage(folder)
    result = run(folder)
    assert result.exit_code == 2
    assert result.stderr.startswith("hyocr: error: ")
    assert result.stderr.count("\n") == 1
    assert word in result.stderr
    assert result.stdout == ""


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = run(tmp_path / "none")
    assert result.exit_code == 2
    assert "none: no such folder" in result.stderr


def test_help_names_the_evaluation() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for word in ("--compare", "--output", "hyocr eval", "Exit codes"):
        assert word in result.stdout


def test_the_page_is_in_the_language_of_choice(folder: Path) -> None:
    assert run(folder, "--lang", "zh").exit_code == 0
    html = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert html.startswith('<!doctype html>\n<html lang="zh">')
    assert "还读得准吗？" in html
    refused = run(folder, "--lang", "fr")
    assert refused.exit_code == 2
    assert "'fr' is not one of 'en', 'zh'" in refused.output


def test_a_card_takes_the_place_of_no_file(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "README_zh.md"
    mine.write_text("# 我的\n", encoding="utf-8")
    refused = run(folder, "--lang", "zh", "--card", mine)
    assert refused.exit_code == 2
    assert "README_zh.md is there already" in refused.output
    assert mine.read_text(encoding="utf-8") == "# 我的\n"
