"""Rendered pages of text lines: what they say, how they look, and which split each belongs to."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from readers import LINE_HEIGHT, SLOT, Reader

IGNORE = -100

_MARGIN = 4
_BASELINE = 23
_PAD = 6  # room left and right of a glyph's advance box for overhanging ink
_GRAY_STEP = 17  # 16 gray levels: small PNGs, and training sees the same levels
_ONSETS = [
    "b",
    "c",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "q",
    "r",
    "s",
    "t",
    "v",
    "w",
    "x",
    "y",
    "z",
    "br",
    "cr",
    "dr",
    "st",
    "tr",
    "pl",
    "sh",
    "ch",
    "th",
    "qu",
    "gl",
    "fr",
]
_NUCLEI = ["a", "e", "i", "o", "u", "ai", "ea", "io", "ou"]
_CODAS = ["", "", "", "n", "r", "s", "t", "l", "m", "ck", "x", "nd", "z", "p"]
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]

Rng = np.random.Generator
Pixels = npt.NDArray[np.uint8]
Ink = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Page:
    """A rendered page. centres[r][i]: the x of the middle of character i of line r."""

    lines: tuple[str, ...]
    pixels: Pixels
    centres: tuple[tuple[float, ...], ...]

    @property
    def text(self) -> str:
        """What is to be read."""
        return "\n".join(self.lines)


@dataclass(frozen=True)
class _Glyph:
    ink: Ink
    advance: float


def split_of(text: str) -> str:
    """The split a text belongs to, from its hash alone, so that no text is ever in two of them."""
    bucket = hashlib.sha256(text.encode()).digest()[0] % 8
    return {0: "heldout", 1: "calib"}.get(bucket, "train")


def _choice(rng: Rng, items: list[str] | tuple[str, ...] | str) -> str:
    return items[int(rng.integers(len(items)))]


def _word(rng: Rng) -> str:
    syllables = int(rng.integers(1, 4))
    return "".join(_choice(rng, _ONSETS) + _choice(rng, _NUCLEI) for _ in range(syllables)) + _choice(rng, _CODAS)


def _words(rng: Rng) -> str:
    return _choice(rng, (" ", " ", " ", ", ", "-", ". ")).join(_word(rng) for _ in range(int(rng.integers(1, 5))))


def _number(rng: Rng) -> str:
    return str(int(rng.integers(10 ** int(rng.integers(1, 7)))))


def _date(rng: Rng) -> str:
    year, month, day = int(rng.integers(1900, 2100)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    clock = f"{int(rng.integers(24)):02d}:{int(rng.integers(60)):02d}"
    forms = (f"{year}-{month:02d}-{day:02d}", f"{day}/{month}/{year}", f"{day} {_MONTHS[month - 1]} {year}", clock)
    return _choice(rng, forms) + _choice(rng, ("", " " + clock, " " + _word(rng)))


def _price(rng: Rng) -> str:
    amount = f"${int(rng.integers(1000))}.{int(rng.integers(100)):02d}"
    return _choice(rng, (f"{_word(rng)} {amount}", f"{_word(rng)}: {amount}", f"{_number(rng)} {_word(rng)} {amount}"))


def _code(rng: Rng, reader: Reader) -> str:
    length = int(rng.integers(reader.min_chars, reader.max_chars + 1))
    return "".join(_choice(rng, reader.alphabet) for _ in range(length))


def _spelled(rng: Rng, reader: Reader, text: str) -> str:
    """The text in the reader's letters; only where there is a choice is one drawn."""
    written = (reader.letters[ord(char) - ord("a")] if "a" <= char <= "z" else char for char in text)
    return "".join(forms if len(forms) == 1 else _choice(rng, forms) for forms in written)


def random_text(rng: Rng, reader: Reader, split: str) -> str:
    """Draw lines until one of at least min_chars characters falls in the split."""
    makers = (_words, _words, _words, _date, _price, None, None)
    while True:
        maker = makers[int(rng.integers(len(makers)))]
        drawn = _code(rng, reader) if maker is None else _spelled(rng, reader, maker(rng)[: reader.max_chars])
        text = " ".join(drawn.split())
        if len(text) >= reader.min_chars and split_of(text) == split:
            return text


def _font_folder() -> Path:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise RuntimeError("the fonts come with matplotlib: pip install --no-deps matplotlib")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if name == "Aileron":
        return ImageFont.load_default(size)
    path = _font_folder() / f"{name}.ttf"
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _glyph(font_name: str, size: int, char: str) -> _Glyph:
    font = _font(font_name, size)
    advance = float(font.getlength(char))
    canvas = Image.new("L", (int(np.ceil(advance)) + 2 * _PAD, LINE_HEIGHT), 0)
    ImageDraw.Draw(canvas).text((_PAD, _BASELINE), char, fill=255, font=font, anchor="ls")
    return _Glyph(np.asarray(canvas, dtype=np.float32) / 255.0, advance)


def _fit(rng: Rng, reader: Reader, text: str) -> list[_Glyph]:
    font = reader.fonts[int(rng.integers(len(reader.fonts)))]
    size = int(rng.choice(reader.sizes))
    while True:
        glyphs = [_glyph(font, size, char) for char in text]
        if sum(glyph.advance for glyph in glyphs) <= reader.width - 2 * _MARGIN:
            return glyphs
        if size == reader.sizes[0]:
            raise ValueError(f"line too wide: {text!r}")
        size -= 1


def _ink(glyphs: list[_Glyph], width: int, start: float, rise: int) -> tuple[Ink, tuple[float, ...]]:
    line = np.zeros((LINE_HEIGHT, width + 4 * _PAD), dtype=np.float32)
    x, centres = start, []
    for glyph in glyphs:
        left = round(x) + _PAD
        window = line[:, left : left + glyph.ink.shape[1]]
        np.maximum(window, glyph.ink[:, : window.shape[1]], out=window)
        centres.append(x + glyph.advance / 2)
        x += glyph.advance
    return np.roll(line[:, 2 * _PAD : 2 * _PAD + width], rise, axis=0), tuple(centres)


def _line(rng: Rng, reader: Reader, text: str) -> tuple[Ink, tuple[float, ...]]:
    """Draw a line in a random font, size and place."""
    glyphs = _fit(rng, reader, text)
    free = reader.width - 2 * _MARGIN - sum(glyph.advance for glyph in glyphs)
    start = _MARGIN + float(rng.uniform(0, min(free, 40)))
    return _ink(glyphs, reader.width, start, int(rng.integers(-3, 4)))


def render(rng: Rng, reader: Reader, lines: tuple[str, ...]) -> Page:
    """Draw the lines below each other in a random contrast, with a little noise."""
    inks, centres = zip(*(_line(rng, reader, line) for line in lines), strict=True)
    ink = np.concatenate(inks)
    paper, pen = rng.uniform(200, 255), rng.uniform(0, 80)
    gray = paper + (pen - paper) * ink + rng.uniform(0, 6) * rng.standard_normal(ink.shape, dtype=np.float32)
    levels = np.clip(np.rint(gray / _GRAY_STEP), 0, 255 // _GRAY_STEP)
    return Page(lines, (levels * _GRAY_STEP).astype(np.uint8), centres)


def random_page(rng: Rng, reader: Reader, split: str) -> Page:
    """A random page, each line of it of the split; the rare one too wide for the smallest size is drawn again."""
    while True:
        try:
            return render(rng, reader, tuple(random_text(rng, reader, split) for _ in range(reader.lines)))
        except ValueError:
            continue


def slot_labels(reader: Reader, page: Page) -> Labels:
    """Class of each slot, line by line: 0 where no character is centred, else 1 + its place; IGNORE where two are."""
    labels = np.zeros((reader.lines, reader.slots), dtype=np.int64)
    for row, line, centres in zip(labels, page.lines, page.centres, strict=True):
        for char, centre in zip(line, centres, strict=True):
            slot = int(centre / SLOT)
            row[slot] = IGNORE if row[slot] else 1 + reader.alphabet.index(char)
    return labels.flatten()
