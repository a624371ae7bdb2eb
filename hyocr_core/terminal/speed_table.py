"""Measured speeds as a table for the terminal, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from rich.table import Table

from hyocr_core.evaluation.scores.numbers import NONE, milliseconds, number, seconds, size, times
from hyocr_core.evaluation.scores.speeds import BenchResult, Measured

TITLES = ("at once", "", "pages/s", "spread", "tokens/s", "1st token", "further")


def speed_table(result: BenchResult) -> Table:
    """A row for each number of pages at once and each checkpoint: medians; of pages the least and the most too."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, title in enumerate(TITLES):
        table.add_column(title, justify="left" if place == 1 else "right", no_wrap=True)
    for at_once in result.load.at_once:
        for role, served in result.served.items():
            level = served.level(at_once)
            table.add_row(
                str(at_once),
                role,
                number(median(level.pages_per_second)),
                spread(level.pages_per_second),
                number(median(level.tokens_per_second)),
                milliseconds(median(level.first_token_seconds)) if level.first_token_seconds else NONE,
                milliseconds(median(level.token_seconds)) if level.token_seconds else NONE,
            )
    return table


def spread(values: Measured) -> str:
    """The least and the most."""
    return f"{number(min(values))} to {number(max(values))}"


def speed_lines(result: BenchResult) -> Iterator[str]:
    """A line on each checkpoint, and how much faster the model is."""
    for role, served in result.served.items():
        facts = {
            "weights": served.weight_bytes,
            "memory of the server": served.memory_bytes,
            "memory of the GPU": served.gpu_memory_bytes,
        }
        known = "".join(f"{size(count)} of {what}, " for what, count in facts.items() if count is not None)
        ready = f"ready after {seconds(served.ready_seconds)}"
        yield f"{role}: {served.model} in {served.runtime}, {known}{ready}"
    for at_once in result.load.at_once:
        faster = result.faster(at_once)
        if faster is not None:
            middle, least, most = map(times, faster)
            yield f"{at_once} at once: {middle} the pages per second of the baseline ({least} to {most})"
