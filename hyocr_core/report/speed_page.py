"""Measured speeds on a page of their own."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.checkpoint.output_file import check_output, write_output
from hyocr_core.evaluation.scores.speeds import BenchResult
from hyocr_core.report import figures
from hyocr_core.report.rendered import MARKS, rendered
from hyocr_core.wording import tr


def check_speed_page(path: Path) -> None:
    """Raise OutputError if something else lies there, or nothing can be written."""
    check_output(path, *MARKS)


def write_speed_page(result: BenchResult, path: Path) -> Path:
    """Write the page in the language that is spoken; return where it is.

    Raises OutputError as `check_speed_page`, RunError when it cannot be written.
    """
    check_speed_page(path)
    labels = {"baseline": tr("baseline"), "model": tr("model")}
    context = {"bench": result, "labels": labels, "plots": {"throughput": figures.throughput(result, labels)}}
    write_output(path, rendered("bench.html.j2", context))
    return path
