"""Pages of full size, A4 at 300 dpi and the largest that the published processor keeps, through the commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from hyocr_core.testing.generations import write_generation

pytestmark = pytest.mark.needs_methods

SIZES = {"a4-300dpi.png": (2480, 3508), "largest.png": (4096, 4096)}
IMAGE_TOKENS = {"a4-300dpi.png": 110 * (78 + 1) + 2, "largest.png": 128 * (128 + 1) + 2}
"""A4 is rounded to cells of 32 pixels: 78 x 110 of them; each row has a token for its end, the image two more."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "HunyuanOCR"
    write_generation(folder, "1.5", full_pages=True)
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    rows = []
    for name, size in SIZES.items():
        image = Image.new("RGB", size, "white")
        ImageDraw.Draw(image).rectangle((100, 100, size[0] - 200, 300), fill="black")
        image.save(folder / name, compress_level=1)
        rows.append({"question": "Read.", "answer": "text", "img_path": name})
    source = folder / "pages.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return source


def hyocr(*arguments: object) -> dict[str, Any]:
    """What the command prints as JSON; in a process of its own, whose memory is its own."""
    run = "from hyocr_core.cli.main import main; main()"
    command = [sys.executable, "-c", run, *map(str, arguments), "--device", "cpu", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def quantized(model: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """The checkpoint, the plan and the report."""
    output = tmp_path_factory.mktemp("out") / "int4"
    command = ("quant", "--method", "gptq", "-ogroup_size=32", "--model", model, "--output", output, "--calib", pages)
    return output, hyocr(*command, "--dry-run"), hyocr(*command)


def test_full_pages_are_calibrated_on_within_the_memory_that_was_planned(quantized: tuple[Path, Any, Any]) -> None:
    _, plan, report = quantized
    image_tokens = sum(IMAGE_TOKENS.values())
    assert report["calibration"]["samples"] == 2
    assert report["calibration"]["failures"] == {}
    assert image_tokens < report["calibration"]["tokens"] == plan["calibration"]["tokens"] < image_tokens + 60
    assert plan["calibration"]["patches"] == 110 * 78 * 4 + 256 * 256
    # All pairs of patches of the largest page would be 17 GB.
    assert report["peak_rss_bytes"] < plan["resources"]["memory"] < 2.5e9


def test_full_pages_are_read(quantized: tuple[Path, Any, Any], model: Path, pages: Path) -> None:
    result = hyocr("eval", quantized[0], "--baseline", model, "--data", pages, "--max-new-tokens", 4, "--no-resume")
    assert [page["name"] for page in result["pages"]] == ["pages.jsonl:1", "pages.jsonl:2"]
    assert result["failures"] == {}
    assert all(page["compared_tokens"] for page in result["pages"])
    assert result["peak_rss_bytes"] < 2.5e9
