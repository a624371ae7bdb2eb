"""Rendered pages of text whose transcript is known: what a run calibrates on when it is given nothing else."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from hyocr_core.calibration.records import Record

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

DEFAULT_PAGES = 512
MAX_PAGES = 10_000

Cell = tuple[float, str]
"""A text and where it starts: its left edge as a fraction of the page's width between the margins."""

_SIZES = ((640, 480), (800, 600), (600, 800), (1024, 768), (768, 1024))
_FONT_SIZES = (40, 36, 32, 28, 25, 22, 20, 18, 16, 14, 12, 10, 8)
_LINE_HEIGHT = 1.4
_TEXT = """the of and a to in is that for it as was with be by on not this are or from at which but have an had they you
were there one all their has would what will about if no when can more time only some could other than then may
state new like any should these people world great life year day house water school work place number part order
report letter price market paper river bridge garden station winter summer north south stone light village
council meeting account invoice payment delivery window machine engine picture history science morning evening
"""
_WORDS = tuple(_TEXT.split())
_NAMES = ("Anna Keller", "John Whitfield", "Maria Lopez", "Wei Zhang", "Tom O'Brien", "Ines Duarte", "Kenji Sato")
_PLACES = (
    "12 Mill Lane, York",
    "48 Rue Haute, Lyon",
    "7 Harbour St, Boston",
    "230 Elm Ave, Austin",
    "5 Kirkgate, Leeds",
)
_GOODS = (
    "Coffee beans 500g", "Whole milk", "Rye bread", "Olive oil", "Printer paper A4", "USB-C cable", "Notebook",
    "Green tea", "AA batteries x8", "Dish soap", "Light bulb 9W", "Apples 1kg", "Pencil set", "Orange juice",
)  # fmt: skip
_SHOPS = ("CORNER MARKET", "Bright & Sons", "NORTH STREET CAFE", "Paper Goods Ltd.", "CITY HARDWARE #14")


@dataclass(frozen=True)
class Page:
    """One page before it is drawn; an empty line is a gap between paragraphs."""

    width: int
    height: int
    lines: tuple[tuple[Cell, ...], ...]
    font_size: int
    paper: int
    ink: int

    @property
    def text(self) -> str:
        """The transcript: cells of a line separated by a space, lines by a line break."""
        return "\n".join(" ".join(text for _, text in line) for line in self.lines)


def synthetic_records(count: int) -> list[Record]:
    """Make `count` pages; page i is the same in every run and for every count."""
    return [_record(f"synthetic:{index}", make_page(index)) for index in range(count)]


def make_page(index: int) -> Page:
    """Write page `index`: paragraphs, a receipt, a form, a table or a list of numbers, in turn."""
    rng = random.Random(f"hyocr synthetic page {index}")  # noqa: S311 - no secret
    kinds: tuple[Callable[[random.Random], Iterator[tuple[Cell, ...]]], ...] = (
        _paragraphs,
        _receipt,
        _form,
        _table,
        _numbers,
    )
    width, height = rng.choice(_SIZES)
    return Page(
        width,
        height,
        tuple(kinds[index % len(kinds)](rng)),
        font_size=rng.choice(_FONT_SIZES[:8]),
        paper=rng.randint(225, 255),
        ink=rng.randint(0, 70),
    )


def render(page: Page) -> Image:
    """Draw a page as RGB, in the largest of Pillow's own font's sizes, up to the page's, at which all of it fits."""
    from PIL import Image, ImageDraw

    margin = page.width // 20
    font, size = _fitting_font(page, margin)
    image = Image.new("RGB", (page.width, page.height), (page.paper,) * 3)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(page.lines):
        for left, text in line:
            x = margin + left * (page.width - 2 * margin)
            draw.text((x, margin + row * size * _LINE_HEIGHT), text, font=font, fill=(page.ink,) * 3)
    return image


def _record(name: str, page: Page) -> Record:
    return Record(name, None, page.text, partial(render, page))


def _fitting_font(page: Page, margin: int) -> tuple[FreeTypeFont | ImageFont, int]:
    from PIL import ImageFont

    width, height = page.width - 2 * margin, page.height - 2 * margin
    sizes = [size for size in _FONT_SIZES if size <= page.font_size and len(page.lines) * size * _LINE_HEIGHT <= height]
    for size in sizes[:-1]:
        font = ImageFont.load_default(size)
        if all(_fits(line, font, width, size) for line in page.lines):
            return font, size
    return ImageFont.load_default(sizes[-1]), sizes[-1]


def _fits(line: tuple[Cell, ...], font: FreeTypeFont | ImageFont, width: int, gap: int) -> bool:
    ends = [*line[1:], (1.0 + gap / width, "")][: len(line)]
    return all(
        left * width + font.getlength(text) + gap <= end * width
        for (left, text), (end, _) in zip(line, ends, strict=True)
    )


def _sentence(rng: random.Random) -> str:
    words = rng.choices(_WORDS, k=rng.randint(5, 14))
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words)), str(rng.randint(2, 4999)))
    return " ".join(words).capitalize() + rng.choice("...?!")


def _paragraphs(rng: random.Random) -> Iterator[tuple[Cell, ...]]:
    yield ((0.0, " ".join(rng.choices(_WORDS, k=3)).title()),)
    columns = rng.randint(52, 76)
    for _ in range(rng.randint(3, 4)):
        yield ()
        text = " ".join(_sentence(rng) for _ in range(rng.randint(2, 3)))
        for line in textwrap.wrap(text, columns):
            yield ((0.0, line),)


def _receipt(rng: random.Random) -> Iterator[tuple[Cell, ...]]:
    yield ((0.3, rng.choice(_SHOPS)),)
    yield ((0.3, _date(rng)), (0.6, f"{rng.randint(7, 21):02}:{rng.randint(0, 59):02}"))
    yield ()
    total = 0
    for good in rng.sample(_GOODS, rng.randint(4, 10)):
        cents = rng.randint(49, 4999)
        total += cents
        yield ((0.0, f"{rng.randint(1, 9)} x"), (0.12, good), (0.8, _money(cents)))
    tax = total * 19 // 100
    yield ()
    for label, cents in (("Subtotal", total), ("Tax 19%", tax), ("TOTAL", total + tax)):
        yield ((0.12, label), (0.8, _money(cents)))


def _form(rng: random.Random) -> Iterator[tuple[Cell, ...]]:
    yield ((0.0, f"Application No. {rng.randint(10_000, 99_999)}"),)
    yield ()
    fields = [
        ("Name", rng.choice(_NAMES)),
        ("Address", rng.choice(_PLACES)),
        ("Date of birth", _date(rng)),
        ("Phone", f"+{rng.randint(1, 49)} {rng.randint(100, 999)} {rng.randint(100_000, 999_999)}"),
        ("E-mail", f"{rng.choice(_WORDS)}.{rng.choice(_WORDS)}@example.com"),
        ("Reference", f"{rng.choice('ABCDEFGH')}{rng.randint(100, 999)}-{rng.randint(1000, 9999)}/{rng.randint(1, 9)}"),
        ("Amount", _money(rng.randint(1000, 9_999_999))),
        ("Remarks", " ".join(rng.choices(_WORDS, k=3))),
    ]
    for label, value in sorted(rng.sample(fields, rng.randint(5, 8))):
        yield ((0.0, f"{label}:"), (0.35, value))


def _table(rng: random.Random) -> Iterator[tuple[Cell, ...]]:
    lefts = (0.0, 0.3, 0.5, 0.7)
    yield tuple(zip(lefts, ("Item", "Units", "Price", "Share"), strict=True))
    for _ in range(rng.randint(5, 14)):
        share = f"{rng.randint(0, 99)}.{rng.randint(0, 9)}%"
        cells = (rng.choice(_WORDS).title(), str(rng.randint(1, 9999)), _money(rng.randint(10, 99_999)), share)
        yield tuple(zip(lefts, cells, strict=True))


def _numbers(rng: random.Random) -> Iterator[tuple[Cell, ...]]:
    for _ in range(rng.randint(6, 16)):
        digits = "".join(rng.choices("0123456789", k=16))
        grouped = " ".join(digits[start:end] for start, end in pairwise(range(0, 17, 4)))
        yield ((0.0, rng.choice((grouped, _date(rng), f"{int(digits):,}", f"-{digits[:3]}.{digits[3:9]}"))),)


def _date(rng: random.Random) -> str:
    year, month, day = rng.randint(1950, 2035), rng.randint(1, 12), rng.randint(1, 28)
    return rng.choice((f"{year}-{month:02}-{day:02}", f"{day:02}/{month:02}/{year}", f"{day}.{month}.{year}"))


def _money(cents: int) -> str:
    return f"${cents // 100:,}.{cents % 100:02}"
