"""A run that dies like a machine without power, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import torch

from hyocr_core.settings.run_config import RunConfig

SCRIPT = """
import os, sys, torch
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

torch.set_num_threads(int(sys.argv[4]))
add = StagedCheckpoint.add_part

def dying(self, name, tensors):
    sha256 = add(self, name, tensors)
    if name == sys.argv[2]:
        os._exit(9)
    return sha256

StagedCheckpoint.add_part = dying
quantize(RunConfig.model_validate_json(sys.argv[1]), resume=sys.argv[3] == "resume")
"""


def kill_after(part: str, run: RunConfig, *, resume: bool = False) -> None:
    """Begin a run, or go on with it, until this part is on the disk, which its journal does not know yet."""
    arguments = [run.model_dump_json(), part, "resume" if resume else "begin", str(torch.get_num_threads())]
    assert subprocess.run([sys.executable, "-c", SCRIPT, *arguments], check=False).returncode == 9
