"""Commands that are given what never ends: a pipe, a device, a pattern or a template. One line, exit code 2, soon."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from hyocr_core import QuantizedNames
from hyocr_core.cli.main import main
from hyocr_core.formats import PackQuantizedFormat
from tests.report import built

ENDLESS = r"(?:[a-p]|[^x-z]|\w)+[XYZ]$"
"""Python's `re` holds it against a name for years."""


@pytest.fixture(autouse=True)
def end() -> Iterator[None]:
    """What hangs is ended with a trace of where: an open that waits for a pipe hears no exception."""
    faulthandler.dump_traceback_later(200, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def refused(*arguments: object) -> str:
    """The line of a command that ends with exit code 2."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error: ")]
    assert len(errors) == 1, result.stderr
    return errors[0]


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


KINDS = {"a named pipe": pipe, "a device": zeros}

Kind = Callable[[Path], None]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("command", [["quant", "-c"], ["eval", "-c"], ["sweep"]], ids=" ".join)
def test_a_configuration(command: list[str], kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    KINDS[kind](path)
    assert refused(*command, path) == f"hyocr: error: {path}: cannot be read: it is {kind}, not a file"


@pytest.mark.parametrize("name", ["rows.jsonl", "scan.pdf", "rows"])
def test_a_file_of_pages(name: str, kind: str, demo: Path, tmp_path: Path) -> None:
    KINDS[kind](tmp_path / name)
    quant = ["quant", "--method", "rtn", "--model", demo, "--output", tmp_path / "out", "--eval"]
    for command in (["eval", demo, "--data"], quant):
        line = refused(*command, tmp_path / name)
        assert f"{tmp_path / name}: cannot be read: it is {kind}, not a file" in line


def test_a_page_and_its_transcript(kind: str, demo: Path, tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (64, 32), "white").save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("x")
    KINDS[kind](tmp_path / "1.png")
    line = refused("eval", demo, "--data", tmp_path, "--keep-duplicates")
    assert f"1 of 2 samples cannot be used: 1.png: cannot be read: it is {kind}, not a file" in line
    KINDS[kind](tmp_path / "0.txt")
    line = refused("eval", demo, "--data", tmp_path)
    assert f"{tmp_path / '0.txt'}: the transcript cannot be read: it is {kind}, not a file" in line


def test_an_image_that_a_row_names(kind: str, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps({"img_path": "a.png", "answer": "x"}))
    if kind == "a device":
        zeros(folder / "a.png")
        expected = "leads outside the file's folder"
    else:
        pipe(folder / "a.png")
        expected = "a.png: cannot be read: it is a named pipe, not a file"
    assert expected in refused("eval", demo, "--data", folder / "rows.jsonl")


def test_a_file_of_a_dataset(kind: str, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    KINDS[kind](folder / "0.parquet")
    assert f"{folder / '0.parquet'} cannot be read: it is {kind}, not a file" in refused(
        "eval", demo, "--data", f"hf:{folder.parent}"
    )


def test_a_row_without_end(demo: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.touch()
    os.truncate(path, 1 << 40)
    assert "rows.jsonl:1: a row of 16,777,216 bytes or more" in refused("eval", demo, "--data", path)


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json", "new"],
)
def test_a_file_of_a_model(name: str, kind: str, tiny: Path, heldout: str, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    KINDS[kind](model / name)
    for command in (
        ["eval", model, "--data", heldout],
        ["verify", model],
        ["quant", "--method", "rtn", "--model", model, "--output", tmp_path / "out"],
        ["push", model, "me/it"],
    ):
        assert f"{model / name} cannot be read: it is {kind}, not a file" in refused(*command)


def test_a_shard_of_a_model(kind: str, tiny: Path, heldout: str, tmp_path: Path) -> None:
    """A hidden name is none that the look at the folder sees."""
    model = shutil.copytree(tiny, tmp_path / "model")
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": ".a.safetensors"}}))
    KINDS[kind](model / ".a.safetensors")
    line = refused("eval", model, "--data", heldout)
    assert f"{model / '.a.safetensors'} cannot be read: " in line
    assert f"it is {kind}, not a file" in line


def test_a_tokenizer_of_a_terabyte(tiny: Path, heldout: str, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    os.truncate(model / "tokenizer.json", 1 << 40)
    line = refused("eval", model, "--data", heldout)
    assert f"{model / 'tokenizer.json'} cannot be read: it has more than 268,435,456 bytes" in line


def test_a_recorded_evaluation(kind: str, tmp_path: Path) -> None:
    folder, other = (built.checkpoint(tmp_path / name, None, built.evaluation(built.some_pages(4))) for name in "ab")
    [record] = (folder / "report").rglob("eval.json")
    KINDS[kind](record)
    for command in (["report", folder], ["compare", other, folder]):
        line = refused(*command)
        assert str(record) in line
        assert f"it is {kind}, not a file" in line


@pytest.mark.parametrize("key", ["ignore", "targets"])
def test_a_pattern(key: str, demo: Path, tmp_path: Path) -> None:
    model = shutil.copytree(demo, tmp_path / "model")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    names = QuantizedNames(("model.language_model.layers.0.mlp.up_proj",), ("lm_head",))
    said: dict[str, Any] = PackQuantizedFormat(4, 32, sym=True).quantization_config(names)
    place = said if key == "ignore" else next(iter(said["config_groups"].values()))
    place[key] = [*place[key], f"re:{ENDLESS}"]
    (model / "config.json").write_text(json.dumps(config | {"quantization_config": said}), encoding="utf-8")
    line = refused("verify", model)
    assert f"config.json: quantization_config: the pattern {ENDLESS!r} is not done with model." in line


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "is not done with one page"),
        ("{{ 'a' * 99999999999 }}", "takes more than 512 MiB of memory for one page"),
    ],
)
def test_a_template(
    template: str, words: str, tiny: Path, heldout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyocr_core.pages.rendering.SECONDS", 0.5)
    model = shutil.copytree(tiny, tmp_path / "model")
    (model / "chat_template.jinja").write_text(template)
    for command in (
        ["eval", model, "--data", heldout],
        ["quant", "--method", "rtn", "--model", model, "--output", tmp_path / "out", "--eval", heldout],
    ):
        assert f"{model}: its chat template {words}" in refused(*command)
