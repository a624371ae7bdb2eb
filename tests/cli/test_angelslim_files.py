"""The three files in AngelSlim's schema, run as they are where model and data lie under their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.testing.generations import write_generation
from tests.conftest import REPO

pytestmark = pytest.mark.needs_methods

FILES = sorted((REPO / "configs" / "hunyuan_ocr").rglob("hunyuan_ocr_*.yaml"))
QUESTIONS = ("Which bar is the highest?", "How many lines are there?", "What is the sum of both?")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has v1.5 as tencent/HunyuanOCR, and a dataset of ChartQA's columns under its name."""
    place = tmp_path_factory.mktemp("place")
    write_generation(place / "tencent" / "HunyuanOCR", "1.5")
    data = place / "HuggingFaceM4" / "ChartQA" / "data"
    data.mkdir(parents=True)
    library: Any = pytest.importorskip("datasets")
    rows = {
        "image": [Image.new("RGB", (160 + 32 * number, 128), (90 * number, 60, 200)) for number in range(3)],
        "query": list(QUESTIONS),
        "label": [["the first", "first"], ["2"], ["31"]],
        "human_or_machine": [0, 1, 0],
    }
    table = library.Dataset.from_dict(rows).cast_column("image", library.Image())
    for split in ("train", "val", "test"):
        # With the name in it, pages of one split cannot be taken for those of another.
        named = table.map(lambda row, split=split: {"query": f"{split}: {row['query']}"})
        named.to_parquet(data / f"{split}-00000-of-00001.parquet")
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = pytest.importorskip("datasets")
    monkeypatch.chdir(place)
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_file_runs_as_it_is(file: Path, place: Path) -> None:
    result = CliRunner().invoke(main, ["quant", "-c", str(file)])
    assert result.exit_code == 0, result.stderr
    output = place / "output" / file.stem
    report = read_report(output)
    assert report.calibration is not None
    assert (report.calibration.samples, report.calibration.failures) == (3, {})
    assert report.calibration.source == "hf:ChartQA:test?text=label&prompt=query"
    verified = CliRunner().invoke(main, ["verify", str(output), "--original", "tencent/HunyuanOCR"])
    assert verified.exit_code == 0, verified.stderr


def test_local_rows_run_too_with_absolute_paths(place: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    rows = []
    for number in range(2):
        image = data / "images" / f"{number}.png"
        Image.new("RGB", (160, 128), (0, 99 * number, 0)).save(image)
        path = str(image) if number else image.name
        rows.append(json.dumps({"img_path": path, "question": f"<image>Read {number}.", "answer": "12"}))
    (data / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    file = tmp_path / "own.yaml"
    shutil.copy(FILES[0], file)
    shipped = file.read_text(encoding="utf-8")
    file.write_text(shipped.replace("HuggingFaceM4/ChartQA", str(data / "rows.jsonl")), encoding="utf-8")
    result = CliRunner().invoke(main, ["quant", "-c", str(file)])
    assert result.exit_code == 0, result.stderr
    report = read_report(place / "output" / "own")
    assert report.calibration is not None
    assert (report.calibration.samples, report.calibration.failures) == (2, {})
