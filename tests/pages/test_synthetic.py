"""Rendered pages are the same everywhere, varied, and hold all of their text."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import unicodedata
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from hyocr_core.pages.fonts import find_font
from hyocr_core.pages.synthetic import Page, draw, make_page, render, synthetic_records

DIGEST = """
import hashlib
from hyocr_core.pages.sources import open_source
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


@pytest.mark.parametrize("index", range(32))
def test_no_ink_reaches_the_edge_and_every_line_is_drawn(index: int) -> None:
    page = make_page(index)
    dark = ink(page, draw(page))
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


def test_every_kind_of_page_comes_up() -> None:
    pages = [make_page(index) for index in range(64)]
    assert any(page.text.startswith("Exercise ") and "(1) " in page.text for page in pages)
    assert {page.font_size for page in pages if page.text.startswith("Terms and Conditions")} <= {10, 12}
    assert any(page.angle > 1 for page in pages)
    assert any(page.angle < -1 for page in pages)
    assert any(page.noise > 0.1 for page in pages)
    assert any(page.blur for page in pages)
    assert any(not (page.angle or page.noise or page.blur) for page in pages)


@pytest.mark.parametrize("angle", [-2.5, 2.5])
def test_a_page_askew_loses_nothing(angle: float) -> None:
    for index in (0, 3, 6, 7, 15):
        page = replace(make_page(index), angle=angle, noise=0.0, blur=0.0)
        straight, turned = (ink(page, image) for image in (draw(page), render(page)))
        assert not turned[[0, -1]].any()
        assert not turned[:, [0, -1]].any()
        assert turned.sum() > 0.9 * straight.sum()


def test_noise_is_the_same_every_time_and_leaves_the_text_darker() -> None:
    page = replace(make_page(0), angle=0.0, noise=0.2, blur=0.0)
    noisy, clean = (np.asarray(image.convert("L")).astype(int) for image in (render(page), draw(page)))
    assert render(page).tobytes() == render(page).tobytes()
    assert noisy.std() > 0
    dark = clean < (page.paper + page.ink) // 2
    assert noisy[dark].mean() < noisy[~dark].mean() - 50
    assert noisy[~dark].std() > 5


def test_without_fonts_every_page_is_drawn_in_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyocr_core.pages.page_texts.find_font", lambda _text: None)
    for index in range(16):
        page = make_page(index)
        assert page.font is None
        assert page.text.isascii()
        assert ink(page, draw(page)).any()


def test_a_font_is_taken_only_if_it_has_every_letter() -> None:
    assert find_font("\U000f0000 private use") is None
    found = find_font("äß")
    if found is not None:
        font = ImageFont.truetype(found, 24)
        assert len({bytes(font.getmask(letter)) for letter in "äß\uffff"}) == 3


def test_letters_of_other_scripts_are_drawn_where_a_font_has_them() -> None:
    pages = [make_page(index) for index in range(256)]
    others = [page for page in pages if not page.text.isascii()]
    if find_font("город улица") is None:
        assert not any(page.font for page in others)
        return
    assert any("город" in page.text or "улица" in page.text for page in others)
    assert all(page.font is not None for page in others)
    assert all(page.text == unicodedata.normalize("NFC", page.text) for page in others)
