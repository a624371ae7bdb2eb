"""Measured speeds as a CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hyocr_core.checkpoint.output_file import check_output
from hyocr_core.evaluation.recorded.csv_file import write_rows
from hyocr_core.evaluation.scores.speeds import BenchResult
from hyocr_core.shown import spreadsheet

BENCH_MARK = b"role,model,runtime,at_once,repetition,"
"""What a CSV file of speeds begins with."""


def check_bench_csv(path: Path) -> None:
    """Raise OutputError if `path` cannot become such a file."""
    check_output(path, BENCH_MARK)


def write_bench_csv(result: BenchResult, path: Path) -> None:
    """Write one row for each repetition, replacing the file as a whole; what was not measured is empty.

    Raises OutputError as `check_bench_csv`, RunError when it cannot be written.
    """
    check_bench_csv(path)
    rows = list(_rows(result))
    write_rows(path, list(rows[0]), rows)


def _rows(result: BenchResult) -> Iterator[dict[str, object]]:
    for role, served in result.served.items():
        for level in served.levels:
            for number, pages in enumerate(level.pages_per_second):
                yield {
                    "role": role,
                    "model": spreadsheet(served.model),
                    "runtime": spreadsheet(served.runtime),
                    "at_once": level.at_once,
                    "repetition": number + 1,
                    "pages_per_second": pages,
                    "tokens_per_second": level.tokens_per_second[number],
                    "first_token_seconds": _at(level.first_token_seconds, number),
                    "token_seconds": _at(level.token_seconds, number),
                    "memory_bytes": served.memory_bytes,
                    "gpu_memory_bytes": served.gpu_memory_bytes,
                }


def _at(values: tuple[float, ...], place: int) -> float | None:
    return values[place] if place < len(values) else None
