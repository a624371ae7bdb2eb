"""Whose forward a vLLM computes, asked of its own interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.runtimes.vllm_pair import NATIVE
from hyocr_core.runtimes.vllm_process import RUNNER

SECONDS_TO_ANSWER = 300
"""It imports torch and Transformers."""

REMEDY = "pip install hyocr-vllm beside vLLM gives it the reference's"


def find_forward(version: str, python: Path | None) -> Forward | None:
    """What this interpreter's vLLM, of that version, computes; None where it does not say, or nobody knows it."""
    try:
        if Version(version) < NATIVE:
            return "reference"
    except InvalidVersion:
        return None
    try:
        done = subprocess.run(
            [python or sys.executable, RUNNER, "--forward"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=SECONDS_TO_ANSWER,
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return next((forward for forward in FORWARDS if forward == answer), None)
