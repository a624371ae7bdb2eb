"""The files beside a recipe: all that was found, the curve, and a page that shows both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from hyocr_core.checkpoint.output_file import check_output, write_output
from hyocr_core.evaluation.recorded.csv_file import write_rows
from hyocr_core.report.rendered import MARKS as PAGE_MARK
from hyocr_core.report.search_page import Dot, write_search_page
from hyocr_core.search.search_result import CurvePoint, SearchResult
from hyocr_core.wording import tr

MARKS = {".json": (b'{\n  "schema_version": ',), ".csv": (b"kind,bytes,predicted_kl,",), ".html": PAGE_MARK}
"""Suffix of a file -> what it begins with."""

COLUMNS = ("kind", "bytes", "predicted_kl", "kl", "cer_difference", "agreement", "loop_rate", "within_budget")


def check_files(recipe: Path) -> None:
    """Raise OutputError where a file beside the recipe cannot be written, or is not hyocr's."""
    for suffix, marks in MARKS.items():
        check_output(recipe.with_suffix(suffix), *marks)


def write_files(recipe: Path, result: SearchResult) -> None:
    """Write what programs read. Raises RunError where a file cannot be written."""
    data = json.dumps(result.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    write_output(recipe.with_suffix(".json"), data)
    write_rows(recipe.with_suffix(".csv"), COLUMNS, list(_rows(result)))


def write_page(recipe: Path, result: SearchResult) -> None:
    """Write the page in the language that is spoken. Raises RunError when it cannot be written."""
    write_search_page(result.model_dump(), list(_dots(result)), recipe.with_suffix(".html"))


def _rows(result: SearchResult) -> Iterator[dict[str, object]]:
    """The points of the curve, those of one candidate for all, and the recipes that were tried."""
    kinds = [("curve", point) for point in result.curve]
    kinds += [(f"all {name}", point) for name, point in result.uniform.items()]
    for kind, point in kinds:
        yield _row(result, kind, point)
    for tried in result.tried:
        found = {} if tried.tried is None else tried.tried.model_dump()
        row = _row(result, "taken" if tried.taken else "tried", tried)
        yield row | {key: found.get(key) for key in COLUMNS if key in found}


def _row(result: SearchResult, kind: str, point: CurvePoint) -> dict[str, object]:
    row: dict[str, object] = {"kind": kind, "bytes": point.nbytes, "predicted_kl": point.kl}
    if "size" in result.budget:
        row["within_budget"] = point.nbytes <= result.budget["size"]
    if "kl" in result.budget:
        row["within_budget"] = point.kl <= result.budget["kl"]
    return row


def _dots(result: SearchResult) -> Iterator[Dot]:
    """What the page's plot shows beside the curve."""
    for name, point in result.uniform.items():
        yield Dot(tr("all {candidate}", candidate=name), point.nbytes / 1e6, point.kl, "uniform")
    for tried in result.tried:
        if tried.tried is not None:
            label = tr("taken, measured") if tried.taken else tr("tried, measured")
            yield Dot(label, tried.nbytes / 1e6, tried.tried.kl, "taken" if tried.taken else "tried")
