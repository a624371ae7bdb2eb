"""Pages that are the same, or nearly, are taken once; different pages are never taken for the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from PIL import Image

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.duplicates import Distinct, look_at, shared_pages
from hyocr_core.pages.sources import open_source, select
from tests.conftest import DEMO

Change = Callable[[Image.Image], Image.Image]


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.BICUBIC)


def darker(image: Image.Image) -> Image.Image:
    return image.point([value * 9 // 10 for value in range(256)] * 3)


def record(image: Image.Image, name: str = "page", answer: str | None = None) -> Record:
    return Record(name, None, answer, lambda: image)


def pages(count: int) -> list[Image.Image]:
    return [page.open_image() for page in open_source(f"synthetic:{count}")]


def take_all(*records: Record) -> tuple[list[bool], Distinct]:
    distinct = Distinct()
    return [distinct.take(record) for record in records], distinct


@pytest.mark.parametrize("change", [jpeg, smaller, darker])
def test_a_copy_that_was_compressed_scaled_or_darkened_is_near(change: Change) -> None:
    for image in pages(8):
        taken, distinct = take_all(record(image), record(change(image)))
        assert taken == [True, False]
        assert (distinct.same, distinct.near) == (0, 1)


def test_no_two_different_pages_are_near() -> None:
    looks = [look_at(image) for image in pages(64)]
    assert not any(one.near(other) for place, one in enumerate(looks) for other in looks[:place])


def test_no_two_different_lines_are_near() -> None:
    """Lines of text are the smallest images there are, and look the most alike."""
    lines = open_source(str(DEMO / "data" / "calib.jsonl"))
    looks = [look_at(line.open_image()) for line in lines]
    assert not any(one.near(other) for place, one in enumerate(looks) for other in looks[:place])


def test_the_same_pixels_are_the_same_only_with_the_same_texts() -> None:
    image = pages(1)[0]
    first = record(image, answer="one")
    others = [first, replace(first, name="copy"), replace(first, answer="two"), replace(first, question="Why?")]
    others.append(replace(first, system="Be exact."))
    taken, distinct = take_all(*others)
    assert taken == [True, False, True, True, True]
    assert (distinct.same, distinct.near) == (1, 0)


def test_blank_pages_of_different_colours_are_not_near() -> None:
    blank = [record(Image.new("RGB", (64, 32), color)) for color in ("white", "black", "white")]
    assert take_all(*blank)[0] == [True, True, False]


def test_an_unreadable_page_is_left_to_whoever_uses_it() -> None:
    def fail() -> Image.Image:
        raise CalibrationError("is damaged")

    assert take_all(Record("a", None, None, fail), Record("b", None, None, fail))[0] == [True, True]


def test_a_selection_draws_another_page_for_a_duplicate() -> None:
    images = pages(10)
    copies = [record(images[index % 10], f"page-{index}") for index in range(40)]
    said: list[str] = []
    chosen = select(copies, 8, seed=3, say=said.append)
    assert len({page.open_image().tobytes() for page in chosen}) == 8
    assert chosen == sorted(chosen, key=copies.index)
    assert len(said) == 1
    whole = select(copies, None, seed=3, say=said.append)
    assert [page.name for page in whole] == [f"page-{index}" for index in range(10)]
    assert said[1] == "left out 30 duplicates and 0 near ones (--keep-duplicates keeps them)"


def test_duplicates_are_kept_on_request() -> None:
    copies = [record(pages(1)[0], f"page-{index}") for index in range(5)]
    said: list[str] = []
    assert select(copies, None, seed=0, keep_duplicates=True, say=said.append) == copies
    assert len(select(copies, 3, seed=0, keep_duplicates=True, say=said.append)) == 3
    assert said == []


def test_nothing_is_said_without_duplicates() -> None:
    said: list[str] = []
    assert len(select(open_source("synthetic:24"), None, seed=0, say=said.append)) == 24
    assert said == []


def test_shared_pages_are_found_by_their_places() -> None:
    assert shared_pages(["a", "b", "c"], ["x", "b", "y", "a", "b"]) == [1, 3, 4]
    assert shared_pages([], ["x"]) == []
