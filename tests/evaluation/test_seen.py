"""A checkpoint evaluated on pages that it was calibrated on: the user is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyocr_core.checkpoint.quant_report import FILE_NAME, CalibrationRecord, MethodRecord, ModelRecord, QuantReport
from hyocr_core.evaluation.seen import seen_warning


def write_report(folder: Path, calibration: CalibrationRecord | None) -> None:
    report = QuantReport(
        hyocr="0",
        method=MethodRecord(name="toy", distribution="toy", version="0", config={}),
        model=ModelRecord(source="model", revision=None, sha256={}),
        calibration=calibration,
        ignored=(),
        rescaled=(),
        layers=(),
        output_sha256={},
        weight_bytes_before=2,
        weight_bytes_after=1,
        phases={},
        peak_rss_bytes=1,
        resumed_after_block=None,
        environment={},
    )
    (folder / FILE_NAME).write_text(report.model_dump_json())


def calibrated_on(*pages: str) -> CalibrationRecord:
    return CalibrationRecord(
        source="pages", seed=0, samples=len(pages), tokens=9, failures={}, sha256="-", page_sha256=list(pages)
    )


def test_shared_pages_are_counted(tmp_path: Path) -> None:
    write_report(tmp_path, calibrated_on("a", "b", "c"))
    line = seen_warning(tmp_path, ["c", "x", "a", "y"])
    assert line == "warning: calibration saw 2 of these 4 pages; held-out pages would say more"


def test_held_out_pages_are_not_warned_of(tmp_path: Path) -> None:
    write_report(tmp_path, calibrated_on("a", "b"))
    assert seen_warning(tmp_path, ["x", "y"]) is None


@pytest.mark.parametrize("content", [None, "no JSON", "{}"])
def test_without_a_report_nothing_is_known(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / FILE_NAME).write_text(content)
    assert seen_warning(tmp_path, ["a"]) is None


def test_a_method_without_calibration_has_seen_nothing(tmp_path: Path) -> None:
    write_report(tmp_path, None)
    assert seen_warning(tmp_path, ["a"]) is None
