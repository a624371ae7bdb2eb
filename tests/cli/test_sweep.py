from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from hyocr_core.checkpoint.quant_report import FILE_NAME
from hyocr_core.checkpoint.writer import stage_folder
from hyocr_core.cli.main import main
from hyocr_core.errors import RunError
from hyocr_core.pages.checked import check_pages
from hyocr_core.pages.sources import draw_pages

pytestmark = pytest.mark.needs_methods

RUNS = [{"method": "rtn", "grid": {"group_size": [64, 128], "ignore": [[], ["model.layers.0"]]}}]


def sweep(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["sweep", str(file), *arguments])


@pytest.fixture
def grid(demo: Path, heldout: str, tmp_path: Path) -> dict[str, object]:
    run = {"eval_samples": 4}
    return {"model": str(demo), "output": str(tmp_path / "sweep"), "eval": heldout, "run": run, "runs": RUNS}


def written(grid: dict[str, object], folder: Path) -> Path:
    path = folder / "grid.yaml"
    with path.open("w") as file:
        YAML().dump(grid, file)
    return path


def refused(grid: dict[str, object], folder: Path) -> str:
    result = sweep(written(grid, folder))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


def test_a_grid_is_made_compared_and_not_made_again(grid: dict[str, object], tmp_path: Path) -> None:
    file = written(grid, tmp_path)
    planned = json.loads(sweep(file, "--dry-run", "--json").stdout)
    assert not (tmp_path / "sweep").exists()
    assert [each["done"] for each in planned] == [False] * 4
    assert planned[1]["options"] == {"group_size": 64, "ignore": ["model.layers.0"]}
    done = sweep(file, "--json", "--csv", str(tmp_path / "sweep.csv"))
    assert done.exit_code == 0, done.output
    compared = json.loads(done.stdout)
    made = [row for row in compared["candidates"] if row["kind"] == "quantized"]
    assert [row["name"] for row in made] == [
        "rtn-group_size=64-ignore=none",
        "rtn-group_size=64-ignore=model.layers.0",
        "rtn-group_size=128-ignore=none",
        "rtn-group_size=128-ignore=model.layers.0",
    ]
    assert [row["name"] for row in made] == [each["name"] for each in planned]
    assert sweep(file, "--dry-run").stdout.count(" done ") == 4
    sizes = [row["weight_bytes"] for row in made]
    assert sizes[2] == min(sizes)
    assert sizes[2] < sizes[0] < sizes[1]
    assert made[2]["front"]
    # Four pages choose nothing, and say so on the page too.
    assert compared["recommendation"] == {"name": None, "text": "4 pages are too few to choose by."}
    page = tmp_path / "sweep" / "index.html"
    assert f"page {page}\n" in done.stderr
    html = page.read_text(encoding="utf-8")
    assert all(row["name"] in html for row in made)
    assert "4 pages are too few to choose by." in html
    assert (tmp_path / "sweep.csv").read_text(encoding="utf-8").count("\n") == 6
    assert compared["failed"] == {}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep").rglob("*.safetensors")}
    assert len(stamps) == 4
    # As a kill leaves it that came between the appearance of a checkpoint and the end of its run.
    stage = stage_folder(tmp_path / "sweep" / "rtn-group_size=64-ignore=none")
    stage.mkdir()
    (stage / "journal.json").touch()
    again = sweep(file)
    assert again.exit_code == 0, again.output
    assert "is there already" in again.stderr
    assert "rtn-group_size=128-ignore=none" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert not stage.exists()


def test_pages_are_drawn_and_checked_once_for_all_runs(
    grid: dict[str, object], calib: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    checked: list[int] = []

    def draw(spec: str, *arguments: Any, **options: Any) -> Any:
        drawn.append(Path(spec).name)
        return draw_pages(spec, *arguments, **options)

    def check(records: Any, *arguments: Any, **options: Any) -> Any:
        checked.append(len(records))
        return check_pages(records, *arguments, **options)

    for module in ("hyocr_core.run.job", "hyocr_core.evaluation.evaluate"):
        monkeypatch.setattr(f"{module}.draw_pages", draw)
    for module in ("hyocr_core.run.trial", "hyocr_core.evaluation.evaluate"):
        monkeypatch.setattr(f"{module}.check_pages", check)
    runs = [{"method": "rtn"}, {"method": "gptq", "grid": {"group_size": [64, 128]}}]
    run = {"eval_samples": 4, "num_samples": 2}
    result = sweep(written(grid | {"calib": calib, "run": run, "runs": runs}, tmp_path))
    assert result.exit_code == 0, result.output
    assert (sorted(drawn), checked) == (["calib.jsonl", "heldout.jsonl"], [4])


def test_a_run_that_fails_keeps_no_other_from_being_tried(
    grid: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hyocr_core.run.quantize import quantize as real

    def first_fails(run: object, **others: object) -> object:
        if "group_size=64" in str(run.output):  # type: ignore[attr-defined]
            raise RunError("model.layers.1: its output is NaN")
        return real(run, **others)  # type: ignore[arg-type]

    monkeypatch.setattr("hyocr_core.run.sweep.quantize", first_fails)
    file = written(grid | {"runs": [{"method": "rtn", "grid": {"group_size": [64, 128]}}]}, tmp_path)
    result = sweep(file)
    assert result.exit_code == 1
    assert "1 of 2 runs failed; the first is rtn-group_size=64: model.layers.1: its output is NaN" in result.stderr
    assert "rtn-group_size=128" in result.stdout
    monkeypatch.setattr("hyocr_core.run.sweep.quantize", real)
    assert sweep(file).exit_code == 0
    assert (tmp_path / "sweep/rtn-group_size=64" / FILE_NAME).is_file()


def test_other_options_do_not_pass_for_what_is_there(grid: dict[str, object], tmp_path: Path) -> None:
    one = grid | {"runs": [{"method": "rtn", "options": {"group_size": 128}}]}
    assert sweep(written(one, tmp_path)).exit_code == 0
    other = grid | {"runs": [{"method": "rtn", "options": {"group_size": 64}}]}
    assert "was made with other options" in refused(other, tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"runs": []}, "runs"),
        ({"runs": [{"method": "rtn", "grid": {"group_size": []}}]}, "group_size has no values"),
        ({"runs": [{"method": "rtn"}, {"method": "rtn"}]}, "rtn stands there twice"),
        ({"runs": [{"method": "rtn", "grid": {"group_size": [7]}}]}, "rtn-group_size=7: "),
        ({"runs": [{"method": "nothing"}]}, "nothing"),
        ({"run": {"gate": "cer=1"}}, "run.gate: a sweep compares and judges nothing"),
        ({"run": {"model": "other"}}, "run.model: is given elsewhere"),
        ({"run": {"num_sample": 1}}, "num_sample"),
        ({"eval": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"model": "nowhere/at/all"}, "nowhere"),
        ({"outputs": "x"}, "did you mean output?"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    change: dict[str, object], named: str, grid: dict[str, object], tmp_path: Path
) -> None:
    assert named in refused(grid | change, tmp_path)
    assert not (tmp_path / "sweep").exists()


def test_a_page_of_somebody_else_is_refused_before_any_work(grid: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "index.html").write_text("<html>mine")
    assert "index.html: hyocr did not write what is there" in refused(grid, tmp_path)
    assert (tmp_path / "sweep" / "index.html").read_text() == "<html>mine"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = sweep(tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert "none.yaml" in result.stderr
