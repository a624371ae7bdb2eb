"""A checkpoint in llama.cpp: a server of its own, which is started on GGUF files and stopped."""

from __future__ import annotations

import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import torch

from hyocr_core.errors import CheckpointError, RunError
from hyocr_core.runtimes.llama_installed import LlamaProgram
from hyocr_core.shown import message

SECONDS_TO_LOAD = 600
_SECONDS_TO_ANSWER = 60
_SECONDS_TO_LEAVE = 10
_PAUSE = 0.1
_FAULT = re.compile(r"\b(error|failed|unknown|cannot|invalid)\b", re.IGNORECASE)
_ARCHITECTURE = "unknown model architecture"


@dataclass(frozen=True)
class GgufFiles:
    """What llama.cpp loads: the decoder with its tokenizer, and the vision tower."""

    text: Path
    vision: Path

    @classmethod
    def of(cls, folder: Path) -> GgufFiles:
        """Those of a folder, by any tool. Raises CheckpointError where there is not one of each."""
        found = [path for path in sorted(folder.glob("*.gguf")) if not path.name.startswith("imatrix")]
        vision = [path for path in found if path.name.startswith("mmproj")]
        text = [path for path in found if path not in vision]
        for kind, files, name in (("text model", text, "model-q4_0.gguf"), ("vision tower", vision, "mmproj-f16.gguf")):
            if len(files) != 1:
                named = ", ".join(path.name for path in files) or "none"
                raise CheckpointError(
                    f"{folder}: llama.cpp needs one GGUF file of the {kind}, such as {name}; there: {named}"
                )
        return cls(text[0], vision[0])


class LlamaServer:
    """A running server, inside `with`, on a port of its own that only this machine reaches.

    max_tokens: the most that prompt and answer have together. at_once: pages that it may read at the same time.
    Raises RunError with llama.cpp's own reason, CheckpointError for an architecture that it does not know.
    """

    def __init__(self, program: LlamaProgram, files: GgufFiles, max_tokens: int, at_once: int) -> None:
        self._program = program
        self._files = files
        self._max_tokens = max_tokens
        self._at_once = at_once

    def __enter__(self) -> Self:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        self._log = tempfile.TemporaryFile()
        options = {
            "--model": self._files.text,
            "--mmproj": self._files.vision,
            "--host": "127.0.0.1",
            "--port": port,
            "--parallel": self._at_once,
            "--ctx-size": self._max_tokens * self._at_once,
            "--threads": torch.get_num_threads(),
        }
        command = [*self._program.command, "--jinja", *(str(part) for option in options.items() for part in option)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    @property
    def number(self) -> int:
        """The id of the process."""
        return self._process.pid

    def reason(self) -> str:
        """Why it has ended, in its own words; empty while it runs."""
        return "" if self._process.poll() is None else self._failure()

    def _wait(self) -> None:
        """Until it has loaded."""
        deadline = time.monotonic() + SECONDS_TO_LOAD
        while not self._ready():
            if self._process.poll() is not None:
                reason = self._failure()
                error = CheckpointError if _ARCHITECTURE in reason else RunError
                raise error(f"llama.cpp: {self._files.text}: {reason}")
            if time.monotonic() > deadline:
                raise RunError(f"llama.cpp: {self._files.text}: is not loaded within {SECONDS_TO_LOAD} s")
            time.sleep(_PAUSE)

    def _ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health", timeout=_SECONDS_TO_ANSWER, trust_env=False).is_success
        except httpx2.HTTPError:
            return False

    def _failure(self) -> str:
        self._log.seek(0)
        return telling_fault(self._log.read().decode(errors="replace").splitlines())

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def telling_fault(output: Sequence[str]) -> str:
    """The line of a failed server's output that says why: the first that tells of a fault, else the last."""
    spoken = [line.strip() for line in output if line.strip()]
    unknown = [line for line in spoken if _ARCHITECTURE in line]
    faults = [line for line in spoken if _FAULT.search(line)]
    return message((unknown or faults or spoken[-1:] or ["it wrote nothing"])[0], 200)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
