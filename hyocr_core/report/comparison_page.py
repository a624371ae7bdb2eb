"""Several quantizations of one model on one page: which one to take."""

from __future__ import annotations

from pathlib import Path

from hyocr_core._version import __version__
from hyocr_core.checkpoint.output_file import check_output, write_output
from hyocr_core.evaluation.recorded.comparison import Several
from hyocr_core.report import figures
from hyocr_core.report.rendered import MARKS, rendered


def check_comparison_page(path: Path) -> None:
    """Raise OutputError if something else lies there, or nothing can be written."""
    check_output(path, *MARKS)


def write_comparison_page(several: Several, path: Path) -> Path:
    """Write the page, which shows no page that was read, in the language that is spoken; return where it is.

    Raises OutputError as `check_comparison_page`, RunError when it cannot be written.
    """
    check_comparison_page(path)
    drawn = any(row.cer is not None for row in several.candidates)
    context = {
        "several": several,
        "ours": several.recommendation.name,
        "plots": {"beside": figures.beside(several)} if drawn else {},
        "version": __version__,
    }
    write_output(path, rendered("comparison.html.j2", context))
    return path
