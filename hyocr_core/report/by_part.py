"""The section by part: the pages that lost most by each metric, with their tables and formulas drawn anew.

Nothing that a model wrote gets onto the page as markup: a table is built of the cells that were found, whose text is
text, and a formula is an image of Matplotlib's, or its source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hyocr_core.checkpoint.quant_report import MetricRecord
from hyocr_core.evaluation.parts.formulas import pair_formulas
from hyocr_core.evaluation.parts.html_tables import Cell, Table, find_tables
from hyocr_core.evaluation.parts.latex import find_formulas, latex_tokens
from hyocr_core.evaluation.parts.tables import pair_tables
from hyocr_core.evaluation.parts.teds import aligned, teds
from hyocr_core.evaluation.scores.result import EvalResult, PageResult
from hyocr_core.report.diff import Piece, diff
from hyocr_core.report.formula_image import formula_image

EXAMPLES = 3
"""Pages of each metric."""
ROWS, COLUMNS, LETTERS = 40, 20, 200
"""Of a table, and of a cell or formula, that are shown."""

Kind = Literal["same", "changed", "missing", "added"]


@dataclass(frozen=True)
class ShownCell:
    """A cell beside what it should be. pieces: how its text differs."""

    kind: Kind
    pieces: Sequence[Piece]
    columns: int
    rows: int


@dataclass(frozen=True)
class ShownTable:
    """Rows of cells. more: rows that are left out."""

    rows: Sequence[Sequence[ShownCell]]
    more: int


@dataclass(frozen=True)
class ShownFormula:
    """A formula. image: a data URI; None where Matplotlib cannot draw it. pieces: how its source differs."""

    image: str | None
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Side:
    """What one of them has there: the transcript, the baseline or the model. note: what is broken on the page."""

    role: str
    table: ShownTable | None = None
    formula: ShownFormula | None = None
    note: str = ""


@dataclass(frozen=True)
class Example:
    """A page by one metric. number, before: the model's and the baseline's."""

    page: PageResult
    number: float
    before: float | None
    sides: Sequence[Side]
    note: str
    baseline_note: str


@dataclass(frozen=True)
class Part:
    """A metric and the pages that lost most by it."""

    metric: MetricRecord
    examples: Sequence[Example]


def parts(result: EvalResult) -> list[Part]:
    """The metrics by which some page lost, or is broken, with the worst of these pages."""
    found = [Part(metric, list(_examples(result, name, metric))) for name, metric in result.metrics.items()]
    return [part for part in found if part.examples]


def _examples(result: EvalResult, name: str, metric: MetricRecord) -> Iterator[Example]:
    sign = 1 if metric.better == "smaller" else -1
    ranked = []
    for place, page in enumerate(result.pages):
        number, before = page.metrics.get(name), page.baseline_metrics.get(name)
        if number is None:
            continue
        lost = sign * (number - before) if before is not None else 0.0
        if lost > 0 or name in page.notes or (before is None and sign * number > min(sign, 0)):
            ranked.append((lost, sign * number, -place, page))
    for *_, page in sorted(ranked, key=lambda rank: rank[:3], reverse=True)[:EXAMPLES]:
        yield Example(
            page,
            page.metrics[name],
            page.baseline_metrics.get(name),
            _sides(page, name.rpartition(":")[2]),
            page.notes.get(name, ""),
            page.baseline_notes.get(name, ""),
        )


def _sides(page: PageResult, metric: str) -> list[Side]:
    """The table or formula of the page that the model read worst, as each has it."""
    known = {"reference": page.reference, "baseline": page.baseline_text, "model": page.text}
    texts = {role: text for role, text in known.items() if text is not None}
    if len(texts) < 2:
        return []
    if metric in ("teds", "teds-structure"):
        return list(_tables(texts))
    return list(_formulas(texts)) if metric in ("formula", "formula-exact") else []


def _tables(texts: Mapping[str, str]) -> Iterator[Side]:
    tables = {role: find_tables(text) for role, text in texts.items()}
    first, *others = tables
    expected = tables[first]
    if not expected:
        return
    paired = {role: dict(pair_tables(expected, tables[role])) for role in others}
    read = paired["model"]
    worst = min(
        range(len(expected)),
        key=lambda place: teds(expected[place], tables["model"][read[place]]) if place in read else -1.0,
    )
    yield Side(first, shown_table(expected[worst], expected[worst]))
    for role in others:
        place = paired[role].get(worst)
        yield Side(role, None if place is None else shown_table(expected[worst], tables[role][place]))


def shown_table(expected: Table, found: Table) -> ShownTable:
    """A table with the cells marked that are not those of another."""
    rows = [_row(old, new) for old, new in aligned(expected.rows, found.rows)]
    return ShownTable([row[:COLUMNS] for row in rows[:ROWS]], max(0, len(rows) - ROWS))


def _row(expected: tuple[Cell, ...] | None, found: tuple[Cell, ...] | None) -> list[ShownCell]:
    return [_cell(old, new) for old, new in aligned(expected or (), found or ())]


def _cell(expected: Cell | None, found: Cell | None) -> ShownCell:
    shape = found or expected or Cell()
    columns, rows = (min(max(span, 1), COLUMNS) for span in (shape.columns, shape.rows))
    old, new = ("" if cell is None else cell.text[:LETTERS] for cell in (expected, found))
    kind: Kind = "same" if expected == found else "changed"
    if expected is None or found is None:
        kind = "added" if expected is None else "missing"
    return ShownCell(kind, diff(old, new), columns, rows)


def _formulas(texts: Mapping[str, str]) -> Iterator[Side]:
    formulas = {role: find_formulas(text) for role, text in texts.items()}
    first, *others = formulas
    expected = formulas[first]
    if not expected:
        return
    words = {role: [latex_tokens(formula) for formula in found] for role, found in formulas.items()}
    paired = {role: pair_formulas(words[first], words[role]) for role in others}
    read = {old: far for old, _, far in paired["model"]}
    worst = max(range(len(expected)), key=lambda place: read.get(place, 2.0))
    yield Side(first, formula=_formula(expected[worst], expected[worst]))
    for role in others:
        place = next((new for old, new, _ in paired[role] if old == worst), None)
        yield Side(role, formula=None if place is None else _formula(expected[worst], formulas[role][place]))


def _formula(expected: str, found: str) -> ShownFormula:
    return ShownFormula(formula_image(found), diff(expected[:LETTERS], found[:LETTERS]))
