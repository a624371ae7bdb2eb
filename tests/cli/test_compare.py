from __future__ import annotations

import json
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
    title, heading, *rows = result.stdout.splitlines()
    assert title == "40\u00a0pages of heldout.jsonl; * no other is smaller and better"
    assert heading.split()[:4] == ["checkpoint", "method", "size", "CER"]
    assert [row.split()[:2] for row in rows] == [["*", "baseline"], ["*", "int4"], ["*", "fp8"], ["[bad]", "gptq,"]]
    cells = rows[1].replace("\u00a0", " ").split("  ")
    for value in ("1.30 GB", "1.23 %", "0.98 to 1.54", "+0.19", "+0.04 to +0.36", "99.30 %", "0.0041"):
        assert value in [cell.strip() for cell in cells]


def test_json(folders: list[Path]) -> None:
    result = run(*folders, "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [row["name"] for row in data["candidates"]] == ["baseline", "int4", "fp8", "[bad]"]
    assert [row["front"] for row in data["candidates"]] == [True, True, True, False]
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
