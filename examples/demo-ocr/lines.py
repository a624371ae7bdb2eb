"""Rendered text lines: what they say, how they look, and which split each belongs to."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hyocr_core.pages.prompts import TASKS

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789 .,-/:$"
WIDTH, HEIGHT = 256, 32
MIN_CHARS, MAX_CHARS = 5, 20
SLOT = 4  # pixels per slot of the dense training target
SLOTS = WIDTH // SLOT
IGNORE = -100
QUESTION = TASKS["structured_parse"]["en"]
QUESTIONS = (QUESTION, TASKS["doc_parse"]["zh"])
"""What the model is asked: the short prompt, and the official default of HunyuanOCR 1.5; a line answers both alike."""

_SIZES = range(15, 23)
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
_FONT_FILES = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSans-Oblique")

Rng = np.random.Generator
Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Line:
    """One rendered line: centres[i] is the x of the middle of character i."""

    text: str
    pixels: Pixels
    centres: tuple[float, ...]


@dataclass(frozen=True)
class _Glyph:
    ink: npt.NDArray[np.float32]
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


def _code(rng: Rng) -> str:
    length = int(rng.integers(MIN_CHARS, MAX_CHARS + 1))
    return "".join(_choice(rng, ALPHABET) for _ in range(length))


def random_text(rng: Rng, split: str, max_chars: int = MAX_CHARS) -> str:
    """Draw texts until one of at least MIN_CHARS characters falls in the split."""
    makers = (_words, _words, _words, _date, _price, _code, _code)
    while True:
        text = " ".join(makers[int(rng.integers(len(makers)))](rng)[:max_chars].split())
        if len(text) >= MIN_CHARS and split_of(text) == split:
            return text


def _font_folder() -> Path:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise RuntimeError("the DejaVu fonts come with matplotlib: pip install --no-deps matplotlib")
    return Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf"


@cache
def _font(index: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if index == len(_FONT_FILES):
        return ImageFont.load_default(size)  # Aileron
    path = _font_folder() / f"{_FONT_FILES[index]}.ttf"
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _glyph(font_index: int, size: int, char: str) -> _Glyph:
    font = _font(font_index, size)
    advance = float(font.getlength(char))
    canvas = Image.new("L", (int(np.ceil(advance)) + 2 * _PAD, HEIGHT), 0)
    ImageDraw.Draw(canvas).text((_PAD, _BASELINE), char, fill=255, font=font, anchor="ls")
    return _Glyph(np.asarray(canvas, dtype=np.float32) / 255.0, advance)


def _fit(rng: Rng, text: str) -> tuple[str, list[_Glyph]]:
    font = int(rng.integers(len(_FONT_FILES) + 1))
    size = int(rng.choice(_SIZES))
    while True:
        glyphs = [_glyph(font, size, char) for char in text]
        if sum(glyph.advance for glyph in glyphs) <= WIDTH - 2 * _MARGIN:
            return text, glyphs
        if size == _SIZES[0]:
            raise ValueError(f"line too wide: {text!r}")
        size -= 1


def _ink(glyphs: list[_Glyph], start: float, rise: int) -> tuple[npt.NDArray[np.float32], tuple[float, ...]]:
    page = np.zeros((HEIGHT, WIDTH + 4 * _PAD), dtype=np.float32)
    x, centres = start, []
    for glyph in glyphs:
        left = round(x) + _PAD
        window = page[:, left : left + glyph.ink.shape[1]]
        np.maximum(window, glyph.ink[:, : window.shape[1]], out=window)
        centres.append(x + glyph.advance / 2)
        x += glyph.advance
    return np.roll(page[:, 2 * _PAD : 2 * _PAD + WIDTH], rise, axis=0), tuple(centres)


def render(rng: Rng, text: str) -> Line:
    """Draw a text in a random font, size, place and contrast, with a little noise."""
    text, glyphs = _fit(rng, text)
    free = WIDTH - 2 * _MARGIN - sum(glyph.advance for glyph in glyphs)
    start = _MARGIN + float(rng.uniform(0, min(free, 40)))
    ink, centres = _ink(glyphs, start, int(rng.integers(-3, 4)))
    paper, pen = rng.uniform(200, 255), rng.uniform(0, 80)
    gray = paper + (pen - paper) * ink + rng.uniform(0, 6) * rng.standard_normal(ink.shape, dtype=np.float32)
    levels = np.clip(np.rint(gray / _GRAY_STEP), 0, 255 // _GRAY_STEP)
    return Line(text, (levels * _GRAY_STEP).astype(np.uint8), centres)


def random_line(rng: Rng, split: str, max_chars: int = MAX_CHARS) -> Line:
    """A random line of the split; the rare text too wide for the smallest size is drawn again."""
    while True:
        try:
            return render(rng, random_text(rng, split, max_chars))
        except ValueError:
            continue


def slot_labels(line: Line) -> Labels:
    """Class of each slot: 0 where no character is centred, else 1 + its place in ALPHABET; IGNORE where two are."""
    labels = np.zeros(SLOTS, dtype=np.int64)
    for char, centre in zip(line.text, line.centres, strict=True):
        slot = int(centre / SLOT)
        labels[slot] = IGNORE if labels[slot] else 1 + ALPHABET.index(char)
    return labels
