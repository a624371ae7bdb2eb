"""Several quantizations of one model as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from hyocr_core.evaluation.recorded.comparison import Candidate, Several
from hyocr_core.evaluation.scores.numbers import count, measured, number, percent, points, signed_span, size, span
from hyocr_core.pages.sources import source_name


def several_table(several: Several) -> Table:
    """One row per checkpoint; of those marked * no other is both smaller and better."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    pages = f"{count(several.pages, 'page')} of {source_name(several.data)}"
    table.title = f"{pages}; * no other is smaller and better"
    table.add_column("", no_wrap=True)
    table.add_column("checkpoint", overflow="fold")
    for title in (
        "method",
        "size",
        "CER",
        "95 %",
        "to baseline",
        "95 %",
        "to best",
        "95 %",
        "agreement",
        "KL",
        "loops",
    ):
        table.add_column(title, justify="left" if title == "method" else "right")
    for title in ("pages/s", *(metric.title for metric in several.metrics.values())):
        table.add_column(title, justify="right")
    table.add_column("runtime")
    for row in several.candidates:
        metrics = (measured(row.metrics.get(name), each.unit) for name, each in several.metrics.items())
        table.add_row("*" if row.front else "", row.name, *_cells(row), *metrics, row.runtime)
    return table


def _cells(row: Candidate) -> tuple[str, ...]:
    return (
        ", ".join(filter(None, (row.method, row.format))),
        size(row.weight_bytes),
        percent(row.cer),
        span(row.cer_interval),
        points(row.cer_difference),
        signed_span(row.cer_difference_interval),
        points(row.behind_best),
        signed_span(row.behind_best_interval),
        percent(row.agreement),
        number(row.kl),
        percent(row.loop_rate),
        number(row.pages_per_second),
    )
