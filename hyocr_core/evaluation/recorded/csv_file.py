"""The pages of an evaluation as a CSV file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from hyocr_core.checkpoint.durable import replacing, save_bytes, writing
from hyocr_core.checkpoint.output_file import check_output
from hyocr_core.evaluation.scores.result import EvalResult, PageResult
from hyocr_core.outside.home import expanded
from hyocr_core.shown import spreadsheet

_OF_COMPARISON = ("baseline_", "compared_", "agreeing_", "kl")


MARK = b"name,reference,text,errors,"
"""What such a file begins with."""


def check_csv(path: Path) -> None:
    """Raise OutputError if `path` cannot become a file, before hours of reading depend on it."""
    check_output(path, MARK)


def write_csv(result: EvalResult, path: Path) -> None:
    """Write one row for each page (UTF-8, RFC 4180), replacing the file as a whole.

    The columns are the fields of PageResult, those of a baseline only when there is one, and the metrics that were
    named, such as `chrf` and `baseline_chrf`; what does not apply is empty. Texts are as `spreadsheet` gives them.
    Raises OutputError as `check_csv`, RunError when it cannot be written.
    """
    check_csv(path)
    rows = [_row(page) for page in result.pages]
    known = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in known if result.baseline is not None or not name.startswith(_OF_COMPARISON)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with writing(path), replacing(expanded(path).resolve()) as partial:
        save_bytes(partial, text.getvalue().encode())


def _row(page: PageResult) -> dict[str, object]:
    fields = page.model_dump(exclude={"metrics", "baseline_metrics"})
    row = {name: spreadsheet(value) if isinstance(value, str) else value for name, value in fields.items()}
    for prefix, metrics in (("", page.metrics), ("baseline_", page.baseline_metrics)):
        for name, value in metrics.items():
            # A metric may have the name of a field.
            row[f"{prefix}metric_{name}" if f"{prefix}{name}" in PageResult.model_fields else f"{prefix}{name}"] = value
    return row
