"""Rendered documents whose transcript is in the model's own format: a table, a formula, two columns, a form."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hyocr_core.contract.page_source import Record
from hyocr_core.pages.fonts import load_font
from hyocr_core.pages.mathtext import draw_formula
from hyocr_core.pages.page_texts import form_fields, money, sentence, title
from hyocr_core.pages.prompts import task_prompt

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH, HEIGHT = 800, 600
_MARGIN = 40
_SIZE = 20
"""Of the letters, in pixels."""
_STEP, _ROW = 28, 36

_FORMULAS = (
    r"\frac{{{a}}}{{{b}}} + \frac{{x}}{{{c}}} = {d}",
    r"\sqrt{{x^{{2}} + {a}}} \leq {b}",
    r"\sum_{{i=1}}^{{{a}}} x_{{i}} = {b}",
    r"\int_{{0}}^{{{a}}} x^{{{n}}} dx = \frac{{{a}^{{{m}}}}}{{{m}}}",
    r"f(x) = {a} \sin({b} x) + \alpha_{{{n}}}",
    r"E = m c^{{2}} - {a} \pi r^{{{n}}}",
)


@dataclass(frozen=True)
class Block:
    """What stands in a box of a page. left, top: of it, in pixels."""

    left: int
    top: int


@dataclass(frozen=True)
class Words(Block):
    """Lines of text, one below the other."""

    lines: tuple[str, ...]
    size: int = _SIZE


@dataclass(frozen=True)
class Ruled(Block):
    """A table with lines between its cells. spanning: whether the first row is one cell, as wide as the table."""

    rows: tuple[tuple[str, ...], ...]
    columns: int
    spanning: bool


@dataclass(frozen=True)
class Formula(Block):
    """A displayed formula."""

    latex: str


@dataclass(frozen=True)
class Document:
    """A page before it is drawn. question: None for the default one."""

    blocks: Sequence[Block]
    answer: str
    question: str | None = None
    paper: int = 255
    ink: int = 0


def document_records(count: int) -> list[Record]:
    """Make `count` pages; page i is the same in every run and for every count."""
    return [_record(f"document:{index}", make_document(index)) for index in range(count)]


def make_document(index: int) -> Document:
    """Write page `index`: in turn a table, a formula, two columns, a form."""
    rng = random.Random(f"hyocr document {index}")  # noqa: S311 - no secret
    blocks, answer, question = KINDS[index % len(KINDS)](rng)
    return Document(blocks, answer, question, paper=rng.randint(225, 255), ink=rng.randint(0, 70))


Drawn = tuple[list[Block], str, str | None]


def _table(rng: random.Random) -> Drawn:
    columns, spanning = rng.randint(2, 4), rng.random() < 0.4
    names = rng.sample(("Item", "Units", "Price", "Share", "Year"), columns)
    rows = [tuple(names), *(tuple(_value(rng, name) for name in names) for _ in range(rng.randint(2, 6)))]
    head = title(rng)
    if spanning:
        rows.insert(0, (title(rng),))
    tags = [[f"<td>{text}</td>" for text in row] for row in rows]
    if spanning:
        tags[0] = [f'<td colspan="{columns}">{rows[0][0]}</td>']
    html = "".join(f"<tr>{''.join(row)}</tr>" for row in tags)
    top = _MARGIN + 2 * _STEP
    blocks = [Words(_MARGIN, _MARGIN, (head,), 28), Ruled(_MARGIN, top, tuple(rows), columns, spanning)]
    return blocks, f"# {head}\n\n<table>{html}</table>", None


def _value(rng: random.Random, name: str) -> str:
    values = {
        "Item": rng.choice(("Tea", "Paper", "Bread", "Cable", "Soap", "Apples")),
        "Units": str(rng.randint(1, 9999)),
        "Price": money(rng.randint(10, 99_999)),
        "Share": f"{rng.randint(0, 99)}.{rng.randint(0, 9)}%",
        "Year": str(rng.randint(1950, 2035)),
    }
    return values[name]


def _formula(rng: random.Random) -> Drawn:
    power = rng.randint(2, 8)
    numbers = {name: rng.randint(2, 99) for name in "abcd"} | {"n": power, "m": power + 1}
    latex = rng.choice(_FORMULAS).format(**numbers)
    before, after = (wrapped(sentence(rng), WIDTH - 2 * _MARGIN, _SIZE) for _ in range(2))
    middle = _MARGIN + _STEP * (len(before) + 1)
    blocks: list[Block] = [Words(_MARGIN, _MARGIN, before), Formula(4 * _MARGIN, middle, latex)]
    blocks.append(Words(_MARGIN, middle + 110, after))
    return blocks, f"{' '.join(before)}\n\n$${latex}$$\n\n{' '.join(after)}", None


def _columns(rng: random.Random) -> Drawn:
    head, width = title(rng), (WIDTH - 3 * _MARGIN) // 2
    blocks: list[Block] = [Words(_MARGIN, _MARGIN, (head,), 28)]
    texts = [f"# {head}"]
    for left in (_MARGIN, 2 * _MARGIN + width):
        top = _MARGIN + 2 * _STEP
        for _ in range(rng.randint(1, 2)):
            text = " ".join(sentence(rng) for _ in range(rng.randint(1, 3)))
            lines = wrapped(text, width, _SIZE)
            blocks.append(Words(left, top, lines))
            texts.append(text)
            top += _STEP * (len(lines) + 1)
    return blocks, "\n\n".join(texts), None


def _form(rng: random.Random) -> Drawn:
    fields = dict(rng.sample(form_fields(rng), rng.randint(3, 6)))
    blocks: list[Block] = [Words(_MARGIN, _MARGIN, (f"Application No. {rng.randint(10_000, 99_999)}",), 28)]
    for row, (label, value) in enumerate(fields.items(), start=2):
        top = _MARGIN + _STEP * (row + 1)
        blocks += [Words(_MARGIN, top, (f"{label}:",)), Words(6 * _MARGIN, top, (value,))]
    question = task_prompt(f"extraction:en={','.join(fields)}")
    return blocks, json.dumps(fields, ensure_ascii=False), question


KINDS: tuple[Callable[[random.Random], Drawn], ...] = (_table, _formula, _columns, _form)
"""Each writes a page of its kind: what is on it, its transcript, and its question; the same for the same `rng`."""


def wrapped(text: str, width: int, size: int) -> tuple[str, ...]:
    """The lines of a text, none of them wider than `width` pixels unless it is one word."""
    font = load_font(None, size)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return tuple(lines)


def render_document(document: Document) -> Image:
    """Draw a page as RGB."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), (document.paper,) * 3)
    canvas, ink = ImageDraw.Draw(image), (document.ink,) * 3
    for block in document.blocks:
        if isinstance(block, Words):
            for row, line in enumerate(block.lines):
                at = block.left, block.top + row * _STEP
                canvas.text(at, line, font=load_font(None, block.size), fill=ink)
        elif isinstance(block, Ruled):
            for left, top, right, text in _cells(block):
                canvas.rectangle((left, top, right, top + _ROW), outline=ink)
                canvas.text((left + 8, top + 6), text, font=load_font(None, _SIZE), fill=ink)
        elif isinstance(block, Formula):
            _paste_formula(image, block)
    return image


def _cells(table: Ruled) -> Iterator[tuple[int, int, int, str]]:
    """Left, top and right of each cell, and its text."""
    wide = (WIDTH - 2 * _MARGIN) // table.columns
    for row, texts in enumerate(table.rows):
        top = table.top + row * _ROW
        span = table.columns if table.spanning and row == 0 else 1
        for column, text in enumerate(texts):
            left = table.left + column * wide
            yield left, top, left + span * wide, text


def _paste_formula(image: Image, formula: Formula) -> None:
    from PIL import ImageChops, ImageOps

    drawn = draw_formula(formula.latex, 30)
    if drawn is None:
        raise ValueError(formula.latex)
    place = formula.left, formula.top
    box = (*place, place[0] + drawn.width, place[1] + drawn.height)
    under = image.crop(box)
    image.paste(ImageChops.multiply(under, ImageOps.fit(drawn, under.size)), box)


def _record(name: str, document: Document) -> Record:
    return Record(name, document.question, document.answer, partial(render_document, document))
