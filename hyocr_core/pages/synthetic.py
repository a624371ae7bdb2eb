"""The source `synthetic`: rendered pages of text whose transcript is known, what a run calibrates on by default."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from hyocr_core.contract.page_source import Record, Source, SourceConfig
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.documents import document_records
from hyocr_core.pages.fonts import load_font
from hyocr_core.pages.page_texts import KINDS, Line

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

SCHEME = "synthetic"
DEFAULT_PAGES = 512
MAX_PAGES = 10_000

_SIZES = ((640, 480), (800, 600), (600, 800), (1024, 768), (768, 1024))
_FONT_SIZES = (40, 36, 32, 28, 25, 22, 20, 18, 16, 14, 12, 10, 8)
_LINE_HEIGHT = 1.4
_MAX_ANGLE = 2.5  # degrees: the corners of a page's text then stay within its margins and on the page


class SyntheticConfig(SourceConfig):
    kind: Literal["text", "documents"] = Field(
        "text",
        description="text: lines of many kinds and scripts, with a plain transcript; documents: a table, a formula, "
        "two columns and a form in turn, with the transcript that the model would write",
    )


class SyntheticSource(Source):
    """Rendered pages, as many as the place says: text, tables, receipts, formulas, small print; or whole documents."""

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[SourceConfig]] = SyntheticConfig

    def records(self) -> list[Record]:
        """As `synthetic_records`, or `document_records`."""
        count = self.place
        pages = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
        if not 1 <= pages <= MAX_PAGES:
            raise CalibrationError(f"{SCHEME}:N takes a number of pages from 1 to {MAX_PAGES}")
        return document_records(pages) if self.config.kind == "documents" else synthetic_records(pages)


@dataclass(frozen=True)
class Page:
    """One page before it is drawn; an empty line is a gap between paragraphs.

    font: a file, None is Pillow's own. angle: degrees by which the scan is askew. noise: share of grey noise that is
    blended in. blur: radius in pixels.
    """

    width: int
    height: int
    lines: tuple[Line, ...]
    font_size: int
    paper: int
    ink: int
    font: str | None = None
    angle: float = 0.0
    noise: float = 0.0
    blur: float = 0.0

    @property
    def text(self) -> str:
        """The transcript: cells of a line separated by a space, lines by a line break."""
        return "\n".join(" ".join(text for _, text in line) for line in self.lines)


def synthetic_records(count: int) -> list[Record]:
    """Make `count` pages; page i is the same in every run and for every count, on a machine with the same fonts."""
    return [_record(f"synthetic:{index}", make_page(index)) for index in range(count)]


def make_page(index: int) -> Page:
    """Write page `index`.

    In turn: paragraphs, a receipt, a form, a table, numbers, formulas, another script, small print; some of them askew,
    noisy or blurred.
    """
    rng = random.Random(f"hyocr synthetic page {index}")  # noqa: S311 - no secret
    width, height = rng.choice(_SIZES)
    text = KINDS[index % len(KINDS)](rng)
    size = rng.choice(_FONT_SIZES[:8])
    paper, ink = rng.randint(225, 255), rng.randint(0, 70)
    return Page(
        width,
        height,
        text.lines,
        font_size=text.size or size,
        paper=paper,
        ink=ink,
        font=text.font,
        angle=rng.uniform(-_MAX_ANGLE, _MAX_ANGLE) if rng.random() < 0.3 else 0.0,
        noise=rng.uniform(0.05, 0.25) if rng.random() < 0.3 else 0.0,
        blur=rng.uniform(0.3, 0.8) if rng.random() < 0.15 else 0.0,
    )


def render(page: Page) -> Image:
    """Draw a page as RGB, as if printed and scanned."""
    return _scan(page, draw(page))


def draw(page: Page) -> Image:
    """Draw a page as RGB, upright and clean, in the largest of the sizes up to the page's at which all of it fits."""
    from PIL import Image, ImageDraw

    margin = page.width // 20
    font, size = _fitting_font(page, margin)
    image = Image.new("RGB", (page.width, page.height), (page.paper,) * 3)
    canvas = ImageDraw.Draw(image)
    for row, line in enumerate(page.lines):
        for left, text in line:
            x = margin + left * (page.width - 2 * margin)
            canvas.text((x, margin + row * size * _LINE_HEIGHT), text, font=font, fill=(page.ink,) * 3)
    return image


def _scan(page: Page, image: Image) -> Image:
    from PIL import Image, ImageFilter
    from PIL.Image import Resampling

    if page.angle:
        image = image.rotate(page.angle, Resampling.BICUBIC, fillcolor=(page.paper,) * 3)
    if page.blur:
        image = image.filter(ImageFilter.GaussianBlur(page.blur))
    if page.noise:
        rng = random.Random(page.text)  # noqa: S311 - no secret
        grain = Image.frombytes("L", image.size, rng.randbytes(page.width * page.height))
        image = Image.blend(image, grain.convert("RGB"), page.noise)
    return image


def _record(name: str, page: Page) -> Record:
    return Record(name, None, page.text, partial(render, page))


def _fitting_font(page: Page, margin: int) -> tuple[FreeTypeFont | ImageFont, int]:
    width, height = page.width - 2 * margin, page.height - 2 * margin
    sizes = [size for size in _FONT_SIZES if size <= page.font_size and len(page.lines) * size * _LINE_HEIGHT <= height]
    for size in sizes[:-1]:
        font = load_font(page.font, size)
        if all(_fits(line, font, width, size) for line in page.lines):
            return font, size
    return load_font(page.font, sizes[-1]), sizes[-1]


def _fits(line: Line, font: FreeTypeFont | ImageFont, width: int, gap: int) -> bool:
    ends = [*line[1:], (1.0 + gap / width, "")][: len(line)]
    return all(
        left * width + font.getlength(text) + gap <= end * width
        for (left, text), (end, _) in zip(line, ends, strict=True)
    )
