"""The llama.cpp of this machine: the program `llama-server`, or the same server out of a package from PyPI."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hyocr_core.errors import MissingRuntimeError

PROGRAM = "llama-server"
PACKAGE = "xllamacpp"
INSTALL = "pip install 'hyocr-plugin-gguf[llama]'"
RUNNER = Path(__file__).with_name("llama_runner.py")
_SECONDS_TO_ANSWER = 60
_VERSION = re.compile(r"^version: (.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class LlamaProgram:
    """What starts llama.cpp's server: the command, to which its options are added, and what version it is."""

    command: tuple[str, ...]
    version: str


def find_llama_server(program: Path | None) -> LlamaProgram:
    """The program; None: that on the PATH, else the server of the package xllamacpp. Raises MissingRuntimeError."""
    found = shutil.which(program or PROGRAM)
    if found is not None:
        return LlamaProgram((str(found),), _asked_version(str(found)))
    if program is not None:
        raise MissingRuntimeError(f"llama.cpp: {program} is no program; name a {PROGRAM}, or none and {INSTALL}")
    try:
        return LlamaProgram((sys.executable, "-P", str(RUNNER)), f"{PACKAGE} {version(PACKAGE)}")
    except PackageNotFoundError:
        raise MissingRuntimeError(f"llama.cpp: there is no {PROGRAM} on the PATH, nor its package: {INSTALL}") from None


def _asked_version(program: str) -> str:
    try:
        done = subprocess.run(
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False, timeout=_SECONDS_TO_ANSWER,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingRuntimeError(f"llama.cpp: {program} cannot be run") from error
    told = _VERSION.search(done.stdout + done.stderr)
    if told is None:
        raise MissingRuntimeError(f"llama.cpp: {program} does not answer --version as {PROGRAM} does")
    return told[1]
