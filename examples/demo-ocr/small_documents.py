"""Small documents, their answers in the model's own format: a table of 2x3 cells, a fraction, two lines of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from lines import Labels, Pixels, Rng, split_of
from PIL import Image, ImageDraw, ImageFont
from readers import LINE_HEIGHT, Reader

DOCUMENTS = "documents"
"""The name of the reader."""

ROWS, COLUMNS = 2, 3
CELLS = ROWS * COLUMNS
EMPTY = 10
"""In the place of a digit."""

READER = Reader(
    letters=(),
    others="0123456789",
    fonts=("Aileron",),
    sizes=range(15, 19),
    width=COLUMNS * LINE_HEIGHT,
    lines=ROWS,
    min_chars=5,
    max_chars=64,
    text={
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    },
    vision={
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    steps=1000,
)
"""A page of as many merged image tokens as there are cells. max_chars: of the answer, for each of its two rows."""


@dataclass(frozen=True)
class Document:
    """A page. numbers: what stands in each cell, from 10 to 99, None for an empty one. kind: of KINDS."""

    kind: str
    numbers: tuple[int | None, ...]
    pixels: Pixels

    @property
    def pieces(self) -> list[tuple[str, int | None]]:
        """The answer in pieces, with the cell in which each stands; None for markup."""
        return _PIECES[self.kind](self.numbers)

    @property
    def text(self) -> str:
        """What is to be read."""
        return "".join(text for text, _ in self.pieces)

    @property
    def digits(self) -> Labels:
        """Both digits of each cell, (CELLS, 2)."""
        pairs = [(EMPTY, EMPTY) if number is None else divmod(number, 10) for number in self.numbers]
        return np.asarray(pairs, dtype=np.int64)


Pieces = list[tuple[str, int | None]]


def _table(numbers: tuple[int | None, ...]) -> Pieces:
    pieces: Pieces = [("<table>", None)]
    for cell, number in enumerate(numbers):
        pieces += [("<tr><td>" if cell % COLUMNS == 0 else "<td>", None), (str(number), cell)]
        pieces.append(("</td></tr>" if cell % COLUMNS == COLUMNS - 1 else "</td>", None))
    return [*pieces, ("</table>", None)]


def _fraction(numbers: tuple[int | None, ...]) -> Pieces:
    top, bottom = COLUMNS // 2, COLUMNS + COLUMNS // 2
    above, below = (str(numbers[cell]) for cell in (top, bottom))
    return [(r"$$\frac{", None), (above, top), ("}{", None), (below, bottom), ("}$$", None)]


def _lines(numbers: tuple[int | None, ...]) -> Pieces:
    marks = ["", *("\n" if cell % COLUMNS == 0 else " " for cell in range(1, CELLS))]
    return [piece for cell, number in enumerate(numbers) for piece in ((marks[cell], None), (str(number), cell))]


_PIECES: dict[str, Callable[[tuple[int | None, ...]], Pieces]] = {
    "table": _table,
    "fraction": _fraction,
    "lines": _lines,
}
KINDS = tuple(_PIECES)


def random_document(rng: Rng, split: str) -> Document:
    """Draw a document whose answer is of the split."""
    while True:
        kind = KINDS[int(rng.integers(len(KINDS)))]
        numbers: list[int | None] = [int(number) for number in rng.integers(10, 100, CELLS)]
        if kind == "fraction":
            numbers = [number if cell % COLUMNS == COLUMNS // 2 else None for cell, number in enumerate(numbers)]
        document = Document(kind, tuple(numbers), _draw(rng, kind, numbers))
        if split_of(document.text) == split:
            return document


def _draw(rng: Rng, kind: str, numbers: list[int | None]) -> Pixels:
    paper, pen = int(rng.integers(205, 256)), int(rng.integers(0, 80))
    image = Image.new("L", (READER.width, READER.height), paper)
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(int(rng.choice(READER.sizes)))
    for cell, number in enumerate(numbers):
        if number is not None:
            left, top = (cell % COLUMNS) * LINE_HEIGHT, (cell // COLUMNS) * LINE_HEIGHT
            place = left + 16 + int(rng.integers(-3, 4)), top + 16 + int(rng.integers(-3, 4))
            canvas.text(place, str(number), fill=pen, font=font, anchor="mm")
    if kind == "table":
        for row in range(ROWS):
            for column in range(COLUMNS):
                left, top = column * LINE_HEIGHT, row * LINE_HEIGHT
                canvas.rectangle((left, top, left + LINE_HEIGHT - 1, top + LINE_HEIGHT - 1), outline=pen)
    elif kind == "fraction":
        middle = READER.width // 2
        canvas.line((middle - 16, LINE_HEIGHT, middle + 15, LINE_HEIGHT), fill=pen, width=2)
    noise = rng.uniform(0, 6) * rng.standard_normal((READER.height, READER.width))
    return np.clip(np.asarray(image, dtype=np.float64) + noise, 0, 255).astype(np.uint8)
