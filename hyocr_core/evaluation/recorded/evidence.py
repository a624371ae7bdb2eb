"""Everything that is known of a quantized checkpoint: what was done to it and how it reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyocr_core.checkpoint.quant_report import FILE_NAME, QuantReport, read_report
from hyocr_core.errors import CheckpointError
from hyocr_core.evaluation.recorded.record_folder import load_commands, load_evaluation
from hyocr_core.evaluation.scores.result import EvalResult


@dataclass(frozen=True)
class Evidence:
    """name: of the folder. evaluation: None when none is recorded there."""

    folder: Path
    name: str
    report: QuantReport
    evaluation: EvalResult | None
    commands: dict[str, str]


def gather(folder: Path) -> Evidence:
    """Read the evidence of a checkpoint that hyocr wrote; CheckpointError when it is none or its files are damaged."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; name one that `hyocr quant` wrote")
    if not (folder / FILE_NAME).is_file():
        raise CheckpointError(f"{folder}: has no {FILE_NAME}; name a folder that `hyocr quant` wrote")
    report = read_report(folder)
    return Evidence(folder, folder.resolve().name, report, load_evaluation(folder), load_commands(folder))
