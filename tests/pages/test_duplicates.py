"""Copies of a page are taken once; pages that differ in a single digit never for copies."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.copies import is_copy, thumbnail
from hyocr_core.pages.duplicates import Distinct, shared_pages
from hyocr_core.pages.fonts import load_font
from hyocr_core.pages.found import Found
from hyocr_core.pages.sources import draw_pages, open_source, select
from tests.conftest import DEMO

Change = Callable[[Image.Image], Image.Image]


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.BICUBIC)


def same(image: Image.Image) -> Image.Image:
    return image


def darker(image: Image.Image) -> Image.Image:
    return image.point([value * 9 // 10 for value in range(256)] * 3)


def record(image: Image.Image, name: str = "page", answer: str | None = None) -> Record:
    return Record(name, None, answer, lambda: image)


def pages(count: int) -> list[Image.Image]:
    return [page.open_image() for page in open_source(f"synthetic:{count}")]


def take_all(*records: Record) -> tuple[list[bool], Distinct]:
    distinct = Distinct()
    return [distinct.take(record) for record in records], distinct


def invoice(number: int, size: tuple[int, int] = (620, 877), font_size: int = 16) -> Image.Image:
    """One of many on the same letterhead: number, date and amounts are its own."""
    rng = random.Random(number)  # noqa: S311 - no secret
    page = Image.new("RGB", size, "white")
    canvas, font = ImageDraw.Draw(page), load_font(None, font_size)
    canvas.text((40, 60), "ACME Trading Company", font=load_font(None, 3 * font_size), fill="navy")
    canvas.rectangle((40, 60 + 4 * font_size, size[0] - 40, 64 + 4 * font_size), fill="navy")
    own = [f"Invoice {2000 + number}", f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"]
    own += [f"Item {line}   {rng.randint(1, 20)} x {rng.randint(100, 9999) / 100:.2f}" for line in range(6)]
    terms = ["Goods remain our property until they are paid in full.", "Please pay within 30 days."] * 6
    for line, text in enumerate([*own, *terms]):
        canvas.text((40, 60 + (5 + 1.6 * line) * font_size), text, font=font, fill="black")
    return page


def with_digit(page: Image.Image, digit: str, font_size: int) -> Image.Image:
    """The page with one digit in a free place."""
    changed = page.copy()
    canvas = ImageDraw.Draw(changed)
    canvas.text((page.width // 2, page.height // 2), f"No. 1{digit}7", font=load_font(None, font_size), fill="black")
    return changed


def upscaled_jpeg(image: Image.Image) -> Image.Image:
    return jpeg(image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.BILINEAR))


def half_jpeg(image: Image.Image) -> Image.Image:
    return jpeg(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("change", [jpeg, smaller, upscaled_jpeg, half_jpeg])
def test_a_copy_that_was_compressed_or_scaled_is_left_out_and_named(change: Change) -> None:
    for image in [*pages(4), invoice(1)]:
        taken, distinct = take_all(record(image, "scan.png"), record(change(image), "scan.jpg"))
        assert taken == [True, False]
        assert distinct.copies == {"scan.jpg": "is scan.png, scaled or compressed in another way"}


@pytest.mark.parametrize("change", [same, jpeg, smaller, half_jpeg])
def test_different_invoices_on_one_letterhead_are_all_taken(change: Change) -> None:
    """Of 20 of them 10 to 15 used to be thrown away."""
    invoices = [record(change(invoice(number)), f"{number}") for number in range(20)]
    assert select(invoices, None, seed=0) == invoices
    assert len(select(invoices * 2, None, seed=0)) == 20


@pytest.mark.parametrize("font_size", [10, 14, 20, 30])
@pytest.mark.parametrize("change", [same, jpeg, smaller])
def test_pages_that_differ_in_one_digit_are_no_copies(font_size: int, change: Change) -> None:
    page = invoice(1, (620, 877), font_size)
    three, eight = with_digit(page, "3", font_size), with_digit(page, "8", font_size)
    assert not is_copy(three, change(eight))
    assert is_copy(three, change(three))


def test_a_darkened_copy_is_another_page() -> None:
    """It is neither scaled nor compressed: the model does not see the same."""
    assert take_all(record(pages(1)[0]), record(darker(pages(1)[0])))[0] == [True, True]


def test_a_thumbnail_of_a_page_is_no_copy_and_neither_is_a_part() -> None:
    page = invoice(1)
    thumb = page.resize((280, 396), Image.Resampling.BICUBIC)
    assert take_all(record(page), record(thumb), record(page.crop((0, 0, 620, 430))))[0] == [True, True, True]


def test_a_mark_at_the_edge_of_a_page_is_seen() -> None:
    page = Image.new("RGB", (101, 101), "white")
    page.paste("black", (20, 20, 40, 40))
    marked = page.copy()
    marked.paste("black", (98, 98, 101, 101))
    assert not is_copy(page, marked)


def test_no_two_different_pages_are_near() -> None:
    small = [(thumbnail(image), image) for image in pages(32)]
    for place, (one, image) in enumerate(small):
        for other, another in small[:place]:
            assert one.gap(other) is None or not is_copy(image, another)


def test_no_two_different_lines_are_near() -> None:
    """Lines of text are the smallest images there are, and look the most alike."""
    lines = open_source(str(DEMO / "data" / "calib.jsonl"))
    small = [(thumbnail(image), image) for image in (line.open_image() for line in lines)]
    for place, (one, image) in enumerate(small):
        for other, another in small[:place]:
            assert one.gap(other) is None or not is_copy(image, another)


def test_the_same_pixels_are_the_same_only_with_the_same_texts() -> None:
    image = pages(1)[0]
    first = record(image, answer="one")
    others = [first, replace(first, name="copy"), replace(first, answer="two"), replace(first, question="Why?")]
    others.append(replace(first, system="Be exact."))
    taken, distinct = take_all(*others)
    assert taken == [True, False, True, True, True]
    assert distinct.copies == {"copy": "has the same pixels as page"}


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
    chosen = select(copies, 8, seed=3)
    assert len({page.open_image().tobytes() for page in chosen}) == 8
    assert chosen == sorted(chosen, key=copies.index)
    assert [page.name for page in select(copies, None, seed=3)] == [f"page-{index}" for index in range(10)]


def draw(source: Path, *, keep_duplicates: bool = False) -> tuple[Found, list[str]]:
    said: list[str] = []
    found = draw_pages(str(source), None, None, None, 0, keep_duplicates=keep_duplicates, say=said.append)
    return found, said


def test_a_draw_names_what_it_left_out(tmp_path: Path) -> None:
    page = invoice(1)
    page.save(tmp_path / "a.png")
    page.save(tmp_path / "b.png")
    half_jpeg(page).save(tmp_path / "c.png")
    found, said = draw(tmp_path)
    assert [record.name for record in found.records] == ["a.png"]
    assert found.copies == {
        "b.png": "has the same pixels as a.png",
        "c.png": "is a.png, scaled or compressed in another way",
    }
    assert said == [
        "left out 2 duplicates (--keep-duplicates keeps them):",
        "- b.png has the same pixels as a.png",
        "- c.png is a.png, scaled or compressed in another way",
    ]
    found, said = draw(tmp_path, keep_duplicates=True)
    assert (len(found.records), found.copies, said) == (3, {}, [])


def test_of_many_duplicates_the_first_are_named(tmp_path: Path) -> None:
    for place in range(13):
        Image.new("RGB", (64, 64), "red").save(tmp_path / f"{place:02}.png")
    found, said = draw(tmp_path)
    assert len(found.copies) == 12
    assert said[0] == "left out 12 duplicates (--keep-duplicates keeps them):"
    assert said[10:] == ["- 10.png has the same pixels as 00.png", "- and 2 more; --json names them"]


def test_duplicates_are_kept_on_request() -> None:
    copies = [record(pages(1)[0], f"page-{index}") for index in range(5)]
    assert select(copies, None, seed=0, keep_duplicates=True) == copies
    assert len(select(copies, 3, seed=0, keep_duplicates=True)) == 3


def test_nothing_is_said_without_duplicates() -> None:
    said: list[str] = []
    found = draw_pages("synthetic:24", None, None, None, 0, keep_duplicates=False, say=said.append)
    assert (len(found.records), found.copies, said) == (24, {}, [])


def test_shared_pages_are_found_by_their_places() -> None:
    assert shared_pages(["a", "b", "c"], ["x", "b", "y", "a", "b"]) == [1, 3, 4]
    assert shared_pages([], ["x"]) == []
