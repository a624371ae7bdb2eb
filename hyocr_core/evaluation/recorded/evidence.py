"""Everything that is known of a quantized checkpoint: what was done to it, how it reads and how fast it is served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyocr_core.checkpoint.quant_report import FILE_NAME, QuantReport, read_report
from hyocr_core.errors import CheckpointError
from hyocr_core.evaluation.recorded.bench_record import load_bench
from hyocr_core.evaluation.recorded.record_folder import Recorded, load_commands, load_evaluations
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.evaluation.scores.speeds import BenchResult


@dataclass(frozen=True)
class Evidence:
    """name: of the folder. evaluations: those recorded there, that of most pages first. command: of `quant`.

    bench: the newest measurement of its speed.
    """

    folder: Path
    name: str
    report: QuantReport
    evaluations: tuple[Recorded, ...]
    command: str | None
    bench: BenchResult | None = None
    bench_command: str | None = None

    @property
    def recorded(self) -> Recorded | None:
        """The evaluation that the page tells of, with what lies beside it."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def evaluation(self) -> EvalResult | None:
        """The evaluation that the page tells of; None when none is recorded."""
        return None if self.recorded is None else self.recorded.result


def gather(folder: Path) -> Evidence:
    """Read the evidence of a checkpoint that hyocr wrote; CheckpointError when it is none or its files are damaged."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; name one that `hyocr quant` wrote")
    if not (folder / FILE_NAME).is_file():
        raise CheckpointError(f"{folder}: has no {FILE_NAME}; name a folder that `hyocr quant` wrote")
    report = read_report(folder)
    commands = load_commands(folder)
    return Evidence(
        folder,
        folder.resolve().name,
        report,
        load_evaluations(folder),
        commands.get("quant"),
        load_bench(folder),
        commands.get("bench"),
    )
