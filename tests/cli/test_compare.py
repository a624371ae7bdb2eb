from __future__ import annotations

import csv
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hyocr_core.cli.main import main
from tests.report import built


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    sizes = {"int4": (1_300_000_000, 0.0123), "fp8": (1_500_000_000, 0.0108), "[bad]": (1_600_000_000, 0.02)}
    return [
        built.checkpoint(tmp_path / name, None, built.evaluation(model=built.score(cer, weight_bytes=size)))
        for name, (size, cer) in sizes.items()
    ]


def test_a_row_for_each_with_marks_for_the_front(folders: list[Path]) -> None:
    result = run(*folders)
    assert result.exit_code == 0, result.output
    title, heading, *rows, blank, recommended = result.stdout.splitlines()
    assert title.startswith("40\u00a0pages of heldout.jsonl; * beaten by no other: ")
    assert heading.split()[:4] == ["checkpoint", "size", "CER", "95"]
    assert [row.split()[:2] for row in rows] == [
        ["baseline", "1.93"],
        ["*", "int4"],
        ["fp8", "1.50"],
        ["[bad]", "1.60"],
    ]
    cells = rows[1].replace("\u00a0", " ").split("  ")
    for value in ("1.30 GB", "1.23 %", "0.98 to 1.54", "+0.19", "+0.04 to +0.36", "99.30 %", "0.0041"):
        assert value in [cell.strip() for cell in cells]
    assert blank == ""
    # All have read alike, and all measurably worse than the baseline.
    assert recommended.startswith("Take int4: the smallest of those that lose least, since none is without a ")


@pytest.mark.parametrize("columns", [80, 60])
def test_on_a_narrow_terminal_the_table_is_turned(
    folders: list[Path], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyocr_core.cli.common.stdout_width", lambda: columns)
    monkeypatch.setattr("hyocr_core.cli.compare.stdout_width", lambda: columns)
    result = run(*folders)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    headings = [line.split() for line, below in pairwise(lines) if below.startswith("size")]
    assert [name for heading in headings for name in heading if name != "*"] == ["baseline", "int4", "fp8", "[bad]"]
    # Nothing is broken: every value stands whole in its row.
    sizes = [line.split("  ") for line in lines if line.startswith("size")]
    found = [cell.strip() for line in sizes for cell in line if cell.strip()]
    assert [cell.replace("\u00a0", " ") for cell in found if cell != "size"] == [
        "1.93 GB",
        "1.30 GB",
        "1.50 GB",
        "1.60 GB",
    ]
    assert sum(line.startswith("to baseline") for line in lines) == len(sizes)


def test_csv_has_a_row_for_each(folders: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "comparison.csv"
    for _ in range(2):
        assert run(*folders, "--csv", path).exit_code == 0
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["baseline", "int4", "fp8", "[bad]"]
    assert [row["recommended"] for row in rows] == ["False", "True", "False", "False"]
    assert (rows[1]["cer_difference_low"], rows[1]["cer_difference_high"]) == ("0.0004", "0.0036")
    assert rows[0]["kl"] == ""
    (tmp_path / "mine.csv").write_text("a,b\n")
    refused = run(*folders, "--csv", tmp_path / "mine.csv")
    assert refused.exit_code == 2
    assert "hyocr did not write what is there" in refused.stderr


def test_the_page_stands_alone_and_names_the_recommended(folders: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for _ in range(2):
        result = run(*folders, "--page", path)
        assert result.exit_code == 0, result.output
    assert result.stderr == f"page {path}\n"
    html = path.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert '<p class="recommendation">Take int4: ' in html
    ours = re.findall(r'<tr class="ours"><th scope="row">([^<]+)<', html)
    assert ours == ["int4 ●"]
    assert "[bad]" in html
    assert "/home/someone" not in html
    (tmp_path / "mine.html").write_text("<html>")
    assert run(*folders, "--page", tmp_path / "mine.html").exit_code == 2


def test_json(folders: list[Path]) -> None:
    result = run(*folders, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [row["name"] for row in data["candidates"]] == ["baseline", "int4", "fp8", "[bad]"]
    assert [row["front"] for row in data["candidates"]] == [False, True, False, False]
    assert data["recommendation"]["name"] == "int4"
    assert data["recommendation"]["text"].startswith("Take int4: ")
    assert data["candidates"][1]["cer"] == 0.0123


def test_other_runtimes_are_refused_until_asked_for(folders: list[Path], tmp_path: Path) -> None:
    served = built.evaluation(model=built.score(0.01, runtime="vllm", weight_bytes=None))
    other = built.checkpoint(tmp_path / "served", None, served)
    refused = run(folders[0], other)
    assert refused.exit_code == 2
    assert "int4: dequant" in refused.stderr
    assert "served: vllm" in refused.stderr
    assert "--cross-runtime" in refused.stderr
    assert run(folders[0], other, "--cross-runtime").exit_code == 0


def test_one_that_was_not_evaluated_is_named(folders: list[Path], tmp_path: Path) -> None:
    bare = built.checkpoint(tmp_path / "bare")
    result = run(folders[0], bare)
    assert result.exit_code == 2
    assert f"hyocr: error: {bare}: has no recorded evaluation: hyocr eval {bare} --data" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_one_alone_is_no_comparison(folders: list[Path]) -> None:
    assert run().exit_code == 2
    assert "two checkpoints or more" in run(folders[0]).stderr


def test_the_page_is_in_the_language_of_choice_and_the_table_is_not(folders: list[Path], tmp_path: Path) -> None:
    result = run(*folders, "--page", tmp_path / "page.html", "--lang", "zh")
    assert result.exit_code == 0, result.output
    assert "推荐 int4：" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert result.stdout == run(*folders).stdout
