"""What a checkpoint must be before it is given to others."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.checkpoint.quant_report import FILE_NAME, QuantReport, read_report
from hyocr_core.errors import CheckpointError
from hyocr_core.progress import Progress
from hyocr_core.verification.verify import verify

ANYWAY = "--force uploads it all the same"


def refuse_unfit(folder: Path, progress: Progress | None = None) -> None:
    """Raise CheckpointError for a checkpoint that has no report of its own, failed its gate, or is not sound."""
    faults = verify(folder, progress=progress).faults
    if not (folder / FILE_NAME).is_file():
        raise CheckpointError(f"{folder}: has no {FILE_NAME}, which says what was done to it; {ANYWAY}")
    _refuse_rejected(folder, read_report(folder))
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise CheckpointError(f"{folder}: not sound: {faults[0].place}: {faults[0].problem}{more}; {ANYWAY}")


def _refuse_rejected(folder: Path, report: QuantReport) -> None:
    if report.gate is not None and not report.gate.accepted:
        failed = ", ".join(figure.metric for figure in report.gate.figures if not figure.passed)
        raise CheckpointError(
            f"{folder}: has failed its gate ({failed}); quantize it anew, or evaluate it with a gate that it passes "
            f"(hyocr eval --record --gate); {ANYWAY}"
        )
