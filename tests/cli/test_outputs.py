"""No command replaces an input, a file of a checkpoint, or anything that hyocr did not write."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.main import main
from hyocr_core.evaluation.recorded.record_folder import load_evaluations
from tests.report import built


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def refused(result: Result) -> bool:
    """Whether a command ended before any work, with one line."""
    return result.exit_code == 2 and result.stderr.count("\n") == 1 and "cannot write" in result.stderr


@pytest.fixture
def files(tiny: Path, heldout: str, tmp_path: Path) -> Path:
    """A model, pages, a recipe, and links to them."""
    shutil.copytree(tiny, tmp_path / "model")
    shutil.copytree(Path(heldout).parent, tmp_path / "data")
    (tmp_path / "run.yaml").write_text("num_samples: 2\nmax_new_tokens: 2\n")
    (tmp_path / "link.csv").symlink_to("data/heldout.jsonl")
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "data/heldout.jsonl",
        "run.yaml",
        "link.csv",
        "model/config.json",
        "model/tokenizer.json",
        "model/new.csv",
    ],
)
def test_a_csv_takes_the_place_of_nothing(files: Path, name: str) -> None:
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    given = ("--data", files / "data" / "heldout.jsonl", "-c", files / "run.yaml")
    assert refused(run("eval", files / "model", *given, "--csv", files / name))
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "hyocr_report.json", "x.html", "report/x.json"])
def test_a_page_takes_the_place_of_nothing(tmp_path: Path, name: str) -> None:
    folder = built.checkpoint(tmp_path / "int4", None, built.evaluation(built.some_pages(2)))
    for part in ("model.safetensors", "config.json"):
        (folder / part).write_text("{}")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert refused(run("report", folder, "--output", folder / name))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_page_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    folder = built.checkpoint(tmp_path / "int4", None, None)
    for _ in range(2):
        assert run("report", folder, "--output", folder / "report" / "mine.html").exit_code == 0


def test_a_page_of_somebody_else_stays(tmp_path: Path) -> None:
    folder = built.checkpoint(tmp_path / "int4", None, built.evaluation(built.some_pages(2)))
    (folder / "report" / "index.html").write_text("<!doctype html>\n<html>mine</html>")
    assert refused(run("report", folder))
    assert refused(run("eval", folder, "--data", "synthetic:1", "--record"))


def test_a_smaller_set_does_not_take_the_place_of_a_larger_one(tiny: Path, heldout: str, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    for count in (3, 2):
        options = ("--num-samples", count, "--max-new-tokens", 2, "--record")
        result = run("eval", model, "--data", heldout, *options)
        assert result.exit_code == 0, result.output
        assert ("this evaluation is kept beside that" in " ".join(result.stderr.split())) == (count == 2)
    assert [len(each.result.pages) for each in load_evaluations(model)] == [3, 2]


@pytest.mark.needs_methods
@pytest.mark.parametrize("command", ["quant", "methods"])
def test_an_output_folder_takes_the_place_of_no_file(tiny: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "recipe.yaml").write_text("method: rtn\n")
    output = ("--output", tmp_path / "recipe.yaml")
    given = {
        "quant": ("-c", tmp_path / "recipe.yaml", "--model", tiny),
        "methods": ("new", "mine"),
    }[command]
    result = run(command, *given, *output)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert (tmp_path / "recipe.yaml").read_text() == "method: rtn\n"


@pytest.mark.needs_methods
def test_statistics_become_no_part_of_a_checkpoint(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    # A short name, so that nothing of the line is cut.
    monkeypatch.chdir(tmp_path)
    given = ("--method", "gptq", "--calib", "synthetic:1", "--observe", "dump-stats:folder=model")
    result = run("quant", "--model", model, *given, "--output", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert "it would be taken for a part of the checkpoint" in " ".join(result.stderr.split())
    assert sorted(path.name for path in model.glob("*.safetensors")) == ["model.safetensors"]


@pytest.mark.needs_methods
def test_a_link_out_of_the_model_is_not_copied(tiny: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    (tmp_path / "secret").write_text("a key")
    (model / "notes.txt").symlink_to("../secret")
    result = run("quant", "--method", "rtn", "--model", model, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "notes.txt is a link to" in result.stderr
    assert not (tmp_path / "out").exists()
    (model / "notes.txt").unlink()
    (model / "notes.txt").symlink_to("tokenizer_config.json")
    assert run("quant", "--method", "rtn", "--model", model, "--output", tmp_path / "out").exit_code == 0


NAMES = ("=1+1.png", "-2.png", "\x1b[2Jx.png", "a[/b0].png", "new\nline.png")


def test_names_of_pages_are_neither_formulas_nor_orders(tiny: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    for index, name in enumerate(NAMES):
        (pages / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (256, 32), (index * 50, 9, 200)).save(pages / name)
        (pages / name).with_suffix(".txt").write_text("@SUM(1)\n")
    table = tmp_path / "pages.csv"
    result = run("eval", tiny, "--data", pages, "--max-new-tokens", 2, "--csv", table, "--json")
    assert result.exit_code == 0, result.output
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = {"'=1+1.png", "'-2.png", "⟨U+001B⟩[2Jx.png", "a[/b0].png", "new line.png"}
    assert {row["name"] for row in rows} == shown
    assert {row["reference"] for row in rows} == {"'@SUM(1)"}
    assert "\x1b" not in table.read_text(encoding="utf-8")
    assert {page["name"] for page in json.loads(result.stdout)["pages"]} == {name.lstrip("'") for name in shown}


def test_a_page_that_cannot_be_used_is_named_harmlessly(tiny: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    Image.new("RGB", (256, 32), (9, 9, 200)).save(pages / "good.png")
    (pages / "good.txt").write_text("abc")
    for name in ("\x1b[2Jx.png", "a[/b0].png"):
        (pages / name).parent.mkdir(exist_ok=True)
        (pages / name).write_bytes(b"no image")
        (pages / name).with_suffix(".txt").write_text("abc")
    result = run("eval", tiny, "--data", pages, "--max-new-tokens", 2, "--keep-duplicates")
    assert result.exit_code == 2, "too few pages are left"
    for name in ("⟨U+001B⟩[2Jx.png", "a[/b0].png"):
        assert f"left out {name}: " in result.stderr
