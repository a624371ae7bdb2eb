from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hyocr_core.cli.main import main
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
