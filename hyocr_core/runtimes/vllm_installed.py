"""The vLLM of an interpreter, which is asked once: its versions, and whose forward it computes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

from packaging.version import InvalidVersion, Version

from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.contract.config import FrozenModel
from hyocr_core.errors import MissingRuntimeError
from hyocr_core.outside.json_text import parse_json
from hyocr_core.runtimes.vllm_pair import NATIVE, VllmPair
from hyocr_core.runtimes.vllm_process import RUNNER

SECONDS_TO_ANSWER = 300
"""It imports torch and Transformers."""


class InstalledVllm(FrozenModel):
    """The vLLM of an interpreter.

    distribution: what it comes from. packages: versions of what is beside it. forward: whose it computes; None where it
    does not say, or nobody knows it.
    """

    distribution: str
    version: str
    packages: dict[str, str]
    forward: Forward | None = None

    @property
    def build(self) -> Literal["cpu", "cuda"]:
        return "cpu" if "cpu" in self.distribution + self.version else "cuda"

    @property
    def pair(self) -> VllmPair:
        return VllmPair.among(self.version, self.packages)


def find_vllm(python: Path | None) -> InstalledVllm:
    """The vLLM that this interpreter has (None: the one at work), which is not imported.

    Raises MissingRuntimeError.
    """
    path = python or Path(sys.executable)
    said, _, forward = _ask(path).partition(b"\n")
    try:
        answer = parse_json(said)
        found = None if answer is None else InstalledVllm.model_validate(answer)
    except ValueError as error:
        raise MissingRuntimeError(f"{path} does not answer as an interpreter of Python does") from error
    if found is None:
        raise MissingRuntimeError(f"{path} has no vllm; give the interpreter of an environment that does with --python")
    return found.model_copy(update={"forward": _forward(found.version, forward)})


def _ask(path: Path) -> bytes:
    """What the runner says; only its first line where Transformers cannot be imported, or not in time."""
    command: list[str | Path] = [path, RUNNER, "--installed"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=SECONDS_TO_ANSWER
        )
    except subprocess.TimeoutExpired as error:
        return error.stdout or b""
    except OSError as error:
        raise MissingRuntimeError(f"{path} cannot be run: {error.strerror}") from error
    return done.stdout


def _forward(version: str, probed: bytes) -> Forward | None:
    """Whose forward a vLLM of that version computes, beside a Transformers that was probed."""
    try:
        if Version(version) < NATIVE:
            return "reference"
        answer = parse_json(probed)
    except (InvalidVersion, ValueError):
        return None
    return next((forward for forward in FORWARDS if forward == answer), None)
