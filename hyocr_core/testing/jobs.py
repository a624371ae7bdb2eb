"""Whole runs of a method: to the end, stopped, and gone on in another process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hyocr_core.checkpoint.quant_report import FILE_NAME as REPORT
from hyocr_core.checkpoint.reader import digest
from hyocr_core.progress import Silent
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.bench import failing_in_one_line, require

RESUME = """
import sys, torch
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
torch.set_num_threads(int(sys.argv[2]))
quantize(RunConfig.model_validate_json(sys.argv[1]), resume=True)
"""


class StopAfterOneBlock(Silent):
    """What Ctrl-C does once the first decoder block is written."""

    def __init__(self) -> None:
        self._phase = ""

    def start(self, phase: str, total: int) -> None:  # noqa: ARG002
        self._phase = phase

    def step(self, detail: str = "") -> None:  # noqa: ARG002
        if self._phase == "blocks":
            raise KeyboardInterrupt


def quantize_in_one_line(run: RunConfig, **options: Any) -> None:
    """Quantize; what is meant for the user is shown as the user sees it."""
    from hyocr_core.run.quantize import quantize

    with failing_in_one_line():
        quantize(run, **options)


def file_digests(folder: Path) -> dict[str, str]:
    """File -> SHA-256; the report is left out, because it holds seconds."""
    return {path.name: digest(path) for path in folder.iterdir() if path.is_file() and path.name != REPORT}


def stop_after_one_block(run: RunConfig) -> None:
    """Begin a run and stop it as Ctrl-C does, once the first decoder block is written."""
    with pytest.raises(KeyboardInterrupt):
        quantize_in_one_line(run, progress=StopAfterOneBlock())


def resume_in_a_new_process(run: RunConfig) -> None:
    """Go on with a stopped run; fail when that fails."""
    command = [sys.executable, "-c", RESUME, run.model_dump_json(), str(torch.get_num_threads())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"the run cannot be resumed in a new process: {done.stderr.strip()[-500:]}")
