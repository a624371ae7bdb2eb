"""The pages of an evaluation as a CSV file."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from hyocr_core.checkpoint.durable import replacing, save_bytes, writing
from hyocr_core.errors import OutputError
from hyocr_core.evaluation.scores.result import EvalResult, PageResult

_OF_COMPARISON = ("baseline_", "compared_", "agreeing_", "kl")


def check_csv(path: Path) -> None:
    """Raise OutputError if `path` cannot become a file, before hours of reading depend on it."""
    folder = path.resolve().parent
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is there and no file")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = "is not writable" if folder.is_dir() else "does not exist"
        raise OutputError(f"cannot write {path}: the folder {folder} {reason}")


def write_csv(result: EvalResult, path: Path) -> None:
    """Write one row for each page (UTF-8, RFC 4180), replacing the file as a whole.

    The columns are the fields of PageResult, those of a baseline only when there is one, and the metrics that were
    named, such as `chrf` and `baseline_chrf`; what does not apply is empty.
    Raises RunError when it cannot be written.
    """
    rows = [_row(page) for page in result.pages]
    columns = [name for name in rows[0] if result.baseline is not None or not name.startswith(_OF_COMPARISON)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with writing(path), replacing(path.resolve()) as partial:
        save_bytes(partial, text.getvalue().encode())


def _row(page: PageResult) -> dict[str, object]:
    row = page.model_dump(exclude={"metrics", "baseline_metrics"})
    for prefix, metrics in (("", page.metrics), ("baseline_", page.baseline_metrics)):
        for name, value in metrics.items():
            # A metric may have the name of a field.
            row[f"{prefix}metric_{name}" if f"{prefix}{name}" in PageResult.model_fields else f"{prefix}{name}"] = value
    return row
