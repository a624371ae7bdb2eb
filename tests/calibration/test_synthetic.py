"""Rendered pages are the same everywhere, varied, and hold all of their text."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from hyocr_core.calibration.synthetic import Page, make_page, render, synthetic_records

DIGEST = """
import hashlib
from hyocr_core.calibration.sources import open_source
for record in open_source("synthetic:6"):
    image = record.open_image()
    print(hashlib.sha256(image.tobytes() + record.answer.encode()).hexdigest(), *image.size)
"""


def ink(page: Page, image: Image.Image) -> npt.NDArray[np.bool_]:
    """Where the image differs from its paper, by an absolute measure."""
    different: npt.NDArray[np.bool_] = np.abs(np.asarray(image.convert("L")).astype(int) - page.paper) > 8
    return different


def test_pages_are_the_same_in_another_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIGEST],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "77"},
    )
    here = []
    for record in synthetic_records(6):
        image = record.open_image()
        digest = hashlib.sha256(image.tobytes() + (record.answer or "").encode()).hexdigest()
        here.append(f"{digest} {image.width} {image.height}")
    assert done.stdout.split("\n")[:-1] == here


def test_a_page_does_not_depend_on_how_many_there_are() -> None:
    assert synthetic_records(3)[2].answer == synthetic_records(30)[2].answer


def test_pages_differ() -> None:
    pages = [make_page(index) for index in range(200)]
    assert len({page.text for page in pages}) == 200
    assert len({(page.width, page.height) for page in pages}) == 5
    assert {(640, 480), (1024, 768)} <= {(page.width, page.height) for page in pages}


def test_the_texts_hold_words_numbers_prices_and_keys() -> None:
    texts = [make_page(index).text for index in range(5)]
    assert any("TOTAL $" in text for text in texts)
    assert any("Name: " in text for text in texts)
    assert any(text.startswith("Item Units Price Share\n") for text in texts)
    assert all(text.isascii() and text == text.strip() for text in texts)


@pytest.mark.parametrize("index", range(25))
def test_no_ink_reaches_the_edge_and_every_line_is_drawn(index: int) -> None:
    page = make_page(index)
    dark = ink(page, render(page))
    edge = 8
    assert not dark[:edge].any()
    assert not dark[-edge:].any()
    assert not dark[:, :edge].any()
    assert not dark[:, -edge:].any()
    rows = dark.any(axis=1).astype(int)
    bands = int((np.diff(rows) == 1).sum())
    assert bands >= sum(1 for line in page.lines if line)


def test_the_drawn_text_is_the_transcript() -> None:
    page = Page(640, 480, (((0.0, "Total: $12.50"),),), font_size=20, paper=255, ink=0)
    expected = Image.new("RGB", (640, 480), "white")
    ImageDraw.Draw(expected).text((32, 32), page.text, font=ImageFont.load_default(20), fill="black")
    assert render(page).tobytes() == expected.tobytes()


def test_cells_of_a_line_do_not_touch() -> None:
    """A wide first cell makes the font smaller instead of running into the second."""
    page = Page(640, 480, (((0.0, "W" * 12), (0.5, "|")),), font_size=40, paper=255, ink=0)
    columns = np.logical_or.reduce(ink(page, render(page)), axis=0)
    second = 32 + (640 - 64) // 2
    assert columns[:second].any()
    assert not columns[second - 6 : second].any()
    assert columns[second : second + 20].any()


def test_text_too_long_for_a_size_is_drawn_smaller() -> None:
    lines = (((0.0, "many words that fill a line of the page to its end"),),)
    large = Page(640, 480, lines, font_size=40, paper=255, ink=0)
    assert not ink(large, render(large))[:, -16:].any()
