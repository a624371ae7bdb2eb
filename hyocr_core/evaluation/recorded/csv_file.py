"""CSV files: the pages of an evaluation, and several quantizations beside each other."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from hyocr_core.checkpoint.output_file import check_output, write_output
from hyocr_core.evaluation.recorded.comparison import Candidate, Several
from hyocr_core.evaluation.scores.result import EvalResult, PageResult
from hyocr_core.shown import spreadsheet

_OF_COMPARISON = ("baseline_", "compared_", "agreeing_", "kl")


MARK = b"name,reference,text,errors,"
"""What a file of pages begins with."""
COMPARISON_MARK = b"name,kind,method,format,"
"""What one of checkpoints begins with."""


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
    write_rows(path, columns, rows)


def check_comparison_csv(path: Path) -> None:
    """Raise OutputError if `path` cannot become such a file."""
    check_output(path, COMPARISON_MARK)


def write_comparison_csv(several: Several, path: Path) -> None:
    """Write one row for each checkpoint, likewise.

    The columns are the fields of Candidate, both ends of an interval as `cer_low` and `cer_high`, the metrics that were
    named, and whether it is the one that is recommended.
    """
    check_comparison_csv(path)
    rows = [_comparison_row(each, several) for each in several.candidates]
    write_rows(path, list(rows[0]), rows)


def _comparison_row(candidate: Candidate, several: Several) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, value in candidate.model_dump(exclude={"metrics", "metric_differences"}).items():
        if name.endswith("_interval"):
            low, high = value or (None, None)
            row |= {name.replace("_interval", "_low"): low, name.replace("_interval", "_high"): high}
        else:
            row[name] = spreadsheet(value) if isinstance(value, str) else value
    row |= {"recommended": candidate.name == several.recommendation.name}
    for name in several.metrics:
        apart = candidate.metric_differences.get(name)
        low, high = (apart and apart.interval) or (None, None)
        row |= {f"metric_{name}": candidate.metrics.get(name), f"metric_{name}_difference": apart and apart.value}
        row |= {f"metric_{name}_difference_low": low, f"metric_{name}_difference_high": high}
    return row


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    """Write these columns of rows, replacing the file as a whole. Raises RunError when it cannot be written."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_output(path, text.getvalue())


def _row(page: PageResult) -> dict[str, object]:
    fields = page.model_dump(exclude={"metrics", "baseline_metrics", "notes", "baseline_notes"})
    row = {name: spreadsheet(value) if isinstance(value, str) else value for name, value in fields.items()}
    for prefix, metrics, notes in (
        ("", page.metrics, page.notes),
        ("baseline_", page.baseline_metrics, page.baseline_notes),
    ):
        for name, value in metrics.items():
            # A metric may have the name of a field.
            row[f"{prefix}metric_{name}" if f"{prefix}{name}" in PageResult.model_fields else f"{prefix}{name}"] = value
        row |= {f"{prefix}note_{name}": spreadsheet(note) for name, note in notes.items()}
    return row
