"""Pixels of a page: lowered for calibration and evaluation alike, to the same picture wherever it is read."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, ConfigError
from hyocr_core.pages.checked import check_pages
from hyocr_core.pages.pixels import PUBLISHED_PIXELS, lower_pixels
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import Sample, build_sample
from hyocr_core.progress import Silent
from hyocr_core.testing.generations import write_generation

LEAST, MOST = 1024, 128 * 128


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def page(width: int, height: int) -> Record:
    return Record(f"{width}x{height}", "Read.", None, partial(noise, width, height))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both generations, whose processors name their limits differently."""
    folder = tmp_path_factory.mktemp("generations") / "HunyuanOCR"
    write_generation(folder, "1.5")
    return {"1.5": folder, "1.0": folder / "v1.0"}


def sample(record: Record, processor: Any) -> Sample:
    return build_sample(record, processor, with_answer=False)


@pytest.mark.parametrize("generation", ["1.5", "1.0"])
def test_pages_are_scaled_down_in_both_spellings_of_the_limits(folders: dict[str, Path], generation: str) -> None:
    config = json.loads((folders[generation] / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert ("size" in config, "max_pixels" in config) == (generation == "1.5", generation == "1.0")
    large = page(512, 384)
    free = sample(large, load_processor(folders[generation]))
    lowered = sample(large, load_processor(folders[generation], 4096))
    pixels = [int(one.inputs["image_grid_thw"].prod()) * 256 for one in (free, lowered)]
    assert 4096 < pixels[0] <= MOST
    assert LEAST <= pixels[1] <= 4096
    assert lowered.image_digest == free.image_digest


@pytest.mark.parametrize(("max_pixels", "fits"), [(LEAST - 1, False), (LEAST, True), (MOST, True), (MOST + 1, False)])
def test_pixels_outside_of_what_the_processor_takes_are_refused(
    folders: dict[str, Path], max_pixels: int, *, fits: bool
) -> None:
    if fits:
        assert load_processor(folders["1.5"], max_pixels).image_processor.size["longest_edge"] == max_pixels
        return
    with pytest.raises(ConfigError, match=f"max_pixels: {max_pixels:,} is not between 1,024 and 16,384"):
        load_processor(folders["1.5"], max_pixels)


@pytest.mark.parametrize("size", [(512, 384), (301, 700), (96, 64), (40, 500)])
def test_a_runtime_is_sent_what_its_own_processor_leaves_alone(folders: dict[str, Path], size: tuple[int, int]) -> None:
    own, lowered = load_processor(folders["1.5"]), load_processor(folders["1.5"], 8192)
    pages = check_pages([page(*size)], lowered, Silent(), max_pixels=8192)
    sent = pages.text(0).open_image()
    assert pages.text(0).prompt_tokens == pages.inputs(0)["input_ids"].shape[1]
    there = sample(Record("", "Read.", None, lambda: sent), own)
    for name, value in pages.inputs(0).items():
        assert torch.equal(there.inputs[name], value)


def test_without_the_option_a_runtime_gets_the_page_as_it_is(folders: dict[str, Path]) -> None:
    for processor in (load_processor(folders["1.5"]), None):
        assert check_pages([page(512, 384)], processor, Silent()).text(0).open_image().size == (512, 384)


def test_without_files_the_published_limits_hold() -> None:
    pages = check_pages([page(2480, 3508)], None, Silent(), max_pixels=1_000_000)
    width, height = pages.text(0).open_image().size
    assert (width % 32, height % 32) == (0, 0)
    assert 900_000 < width * height <= 1_000_000
    with pytest.raises(ConfigError, match=f"{PUBLISHED_PIXELS[1]:,}"):
        check_pages([page(64, 64)], None, Silent(), max_pixels=PUBLISHED_PIXELS[1] + 1)


def test_a_page_that_would_be_enlarged_again_is_refused_everywhere(folders: dict[str, Path]) -> None:
    lowered = load_processor(folders["1.5"], 2048)
    # Of 2048 pixels a narrow page gets 32 x 32 at most; one of three cells fits nowhere between.
    assert sample(page(640, 640), lowered).inputs["image_grid_thw"].tolist() == [[1, 2, 2]]
    published = check_pages([page(640, 640)], None, Silent(), max_pixels=512 * 512)
    assert published.text(0).open_image().size == (512, 512)
    with pytest.raises(CalibrationError, match=r"416x608, fewer pixels than the 262,144 .*: give --max-pixels \d+ or"):
        check_pages([page(2480, 3508)], None, Silent(), max_pixels=512 * 512)


@pytest.mark.parametrize("size", [(640, 480), (1240, 1754), (2000, 300), (150, 3000)])
def test_what_is_refused_says_how_many_pixels_are_enough(folders: dict[str, Path], size: tuple[int, int]) -> None:
    least, most = PUBLISHED_PIXELS

    def refusal(max_pixels: int) -> str:
        processor = load_processor(folders["1.5"])
        processor.image_processor.size = {"shortest_edge": least, "longest_edge": most}
        lower_pixels(processor.image_processor, max_pixels)
        try:
            sample(page(*size), processor)
        except CalibrationError as error:
            return str(error)
        return ""

    (enough,) = map(int, re.findall(r"fewer pixels .*: give --max-pixels (\d+) or more$", refusal(least)))
    assert least < enough < 1.3 * least
    assert [refusal(enough), refusal(enough + 1)] == ["", ""]
    assert f"give --max-pixels {enough} or more" in refusal(enough - 1), "no fewer will do"
