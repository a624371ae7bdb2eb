"""Measured speeds on a page of their own."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.checkpoint.output_file import check_output, write_output
from hyocr_core.evaluation.scores.speeds import BenchResult
from hyocr_core.report import figures
from hyocr_core.report.rendered import MARKS, rendered

LABELS = {"baseline": "baseline", "model": "model"}


def check_speed_page(path: Path) -> None:
    """Raise OutputError if something else lies there, or nothing can be written."""
    check_output(path, *MARKS)


def write_speed_page(result: BenchResult, path: Path) -> Path:
    """Write the page; return where it is.

    Raises OutputError as `check_speed_page`, RunError when it cannot be written.
    """
    check_speed_page(path)
    context = {"bench": result, "labels": LABELS, "plots": {"throughput": figures.throughput(result, LABELS)}}
    write_output(path, rendered("bench.html.j2", context))
    return path
