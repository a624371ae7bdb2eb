"""The memory that serving a checkpoint takes, as a table and lines."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from hyocr_core.evaluation.scores.numbers import count, size
from hyocr_core.models.fitting import Fit, ServingMemory


def memory_table(memory: ServingMemory) -> Table:
    """A row for each runtime that loads the checkpoint."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("served by", no_wrap=True)
    for title in ("weights", "KV cache", "of each page", "vision", "decoder", "rest", "at the peak"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in memory.runtimes:
        parts = (row.weights, row.kv_cache, row.kv_cache_per_page, row.vision, row.decoder, row.rest, row.total)
        table.add_row(row.name, *(size(part) for part in parts))
    return table


def memory_lines(memory: ServingMemory) -> Iterator[str]:
    """What was assumed, what is not shown, and whether it fits."""
    load, (width, height) = memory.load, memory.page
    yield (
        f"{count(load.pages_at_once, 'page')} at once, each {width}x{height}, {memory.image_tokens:,} image tokens; "
        f"{memory.page_tokens:,} tokens with an answer of at most {load.answer_tokens:,}"
    )
    yield memory.note
    for fit in memory.fits:
        yield from _fit_lines(fit)


def _fit_lines(fit: Fit) -> Iterator[str]:
    answer = "yes, it fits" if fit.fits else "no, it does not fit"
    yield f"{fit.runtime}: {answer}: {size(fit.total)} of {size(fit.limit)} that it may take"
    for change in fit.changes:
        yield f"  {change.what}: {size(change.total)}, {'fits' if change.fits else 'not enough'}"
