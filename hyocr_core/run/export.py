"""Files that a method writes for a runtime which reads no safetensors, published with the checkpoint."""

from __future__ import annotations

import shutil

from hyocr_core.checkpoint.output_file import REPORT
from hyocr_core.checkpoint.quant_report import FILE_NAME
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.report.card import FILE_NAME as CARD_NAME
from hyocr_core.run.job import Job

WRITTEN_LATER = (FILE_NAME, CARD_NAME, REPORT)
"""What describes a checkpoint is made once it is whole."""


def export_files(job: Job, stage: StagedCheckpoint) -> dict[str, str]:
    """Let the method export the built checkpoint; return the SHA-256 of each file that came of it, by name.

    What an interrupted export left is made anew. Raises MethodError for a method that writes elsewhere.
    """
    if not job.main.method.implements("export"):
        return {}
    folder = stage.folder / "export"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    job.progress.detail("export")
    with job.watch.phase("export"):
        job.main.method.export(stage.checkpoint, folder, job.main.config)
    return stage.take_files(folder, WRITTEN_LATER)
