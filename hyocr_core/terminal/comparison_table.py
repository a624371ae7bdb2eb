"""Several quantizations of one model as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.measure import Measurement
from rich.table import Table

from hyocr_core.evaluation.recorded.comparison import Candidate, Several
from hyocr_core.evaluation.scores.numbers import (
    agreed,
    apart,
    count,
    measured,
    number,
    percent,
    points,
    signed_span,
    size,
    span,
)
from hyocr_core.pages.sources import source_name
from hyocr_core.terminal.console import PlainConsole

Cells = Mapping[str, str]
"""Title -> text; a title that begins with a blank belongs to the one before."""

_NAME = 24
"""Characters of a checkpoint's name, at most, where it heads a column."""


def several_tables(several: Several, width: int) -> Iterator[Table]:
    """One row per checkpoint; where that is wider than `width`, a column for each, as many at a time as fit.

    Those marked * are beaten by no other.
    """
    rows = [_cells(candidate, several) for candidate in several.candidates]
    names = [_marked(candidate) for candidate in several.candidates]
    table = _flat(names, rows)
    if _width(table) > width:
        yield from _turned(names, rows, width)
    else:
        yield table


def heading(several: Several) -> str:
    """What was read, and what the mark means."""
    pages = f"{count(several.pages, 'page')} of {source_name(several.data)}"
    return f"{pages}; * beaten by no other: smaller and not measurably worse, or better at that size"


def _marked(candidate: Candidate) -> str:
    return f"{'*' if candidate.front else ' '} {candidate.name}"


def _flat(names: Sequence[str], rows: Sequence[Cells]) -> Table:
    table = _table("  checkpoint", *rows[0])
    for name, cells in zip(names, rows, strict=True):
        table.add_row(name, *cells.values())
    return table


def _turned(names: Sequence[str], rows: Sequence[Cells], width: int) -> Iterator[Table]:
    """Tables of as many checkpoints each as fit, one at least."""
    start = 0
    while start < len(rows):
        end = start + 1
        table = _columns(names[start:end], rows[start:end])
        while end < len(rows) and _width(wider := _columns(names[start : end + 1], rows[start : end + 1])) <= width:
            table, end = wider, end + 1
        yield table
        start = end


def _columns(names: Sequence[str], rows: Sequence[Cells]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", overflow="fold", max_width=_NAME)
    for title in rows[0]:
        table.add_row(title, *(cells[title] for cells in rows))
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(titles):
        table.add_column(title.strip() if place else title, justify="right" if place else "left", no_wrap=True)
    return table


def _width(table: Table) -> int:
    console = PlainConsole(width=10_000)
    return Measurement.get(console, console.options, table).maximum


def _cells(row: Candidate, several: Several) -> Cells:
    """What decides first."""
    cells = {
        "size": size(row.weight_bytes),
        "CER": percent(row.cer),
        "  95 %": span(row.cer_interval),
        "to baseline": points(row.cer_difference),
        "  95 % ": signed_span(row.cer_difference_interval),
        "KL": number(row.kl),
        "agreement": agreed(row.agreement, row.agreement_interval),
        "loops": percent(row.loop_rate),
        "to best": points(row.behind_best),
        "  95 %  ": signed_span(row.behind_best_interval),
    }
    for name, metric in several.metrics.items():
        cells[metric.title] = measured(row.metrics.get(name), metric.unit)
        if any(name in each.metric_differences for each in several.candidates):
            cells[f"  {metric.title}, to baseline"] = apart(row.metric_differences.get(name), metric.unit)
    method = ", ".join(filter(None, (row.method, row.format)))
    return cells | {"method": method, "runtime": row.runtime}
