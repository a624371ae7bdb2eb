"""A checkpoint in vLLM, in a process of its own, whose interpreter need not be hyocr's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, cast

import torch

from hyocr_core.contract.config import FrozenModel
from hyocr_core.errors import MissingRuntimeError, RunError
from hyocr_core.pages.images import png_base64

if TYPE_CHECKING:
    from PIL.Image import Image

RUNNER = Path(__file__).with_name("vllm_runner.py")
_PROBE = "import importlib.metadata as m; print(m.version(m.packages_distributions()['vllm'][0]))"
_EXCEPTION = re.compile(r"(\(.*\) *)?(\[\w+\]: *)?[\w.]+(Error|Exception)\b")
"""How the last line of a traceback begins, behind the name of the process that vLLM may put there."""
_SECONDS_TO_LEAVE = 30


class VllmAnswer(FrozenModel):
    """What vLLM wrote for a page. prompt: the tokens it made of prompt and image. ended: not cut at the limit."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    ended: bool
    seconds: float


def vllm_version(python: Path | None) -> str:
    """The version of the vLLM that this interpreter has (None: the one at work). Raises MissingRuntimeError."""
    path = python or Path(sys.executable)
    try:
        found = subprocess.run([path, "-c", _PROBE], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise MissingRuntimeError(f"{path} cannot be run: {error.strerror}") from error
    if found.returncode:
        raise MissingRuntimeError(f"{path} has no vllm; give the interpreter of an environment that does with --python")
    return found.stdout.decode().strip()


class VllmProcess:
    """A running vLLM, inside `with`. See `vllm_runner` for how it is set up.

    python: its interpreter; None for this one. max_tokens: the most that prompt and answer have together.
    Raises RunError with vLLM's own reason once it fails.
    """

    def __init__(self, folder: Path, python: Path | None, max_tokens: int) -> None:
        self._command = [python or sys.executable, RUNNER, folder.resolve(), str(max_tokens)]

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        )
        return self

    def read(
        self,
        prompt: str,
        image: Image,
        max_tokens: int,
        *,
        repetition_penalty: float = 1.0,
        stop_token_ids: Sequence[int] = (),
    ) -> VllmAnswer:
        """Read one page, greedily. prompt: what the chat template wrote, with one image token."""
        request = {
            "prompt": prompt,
            "image": png_base64(image),
            "max_tokens": max_tokens,
            "repetition_penalty": repetition_penalty,
            "stop_token_ids": list(stop_token_ids),
        }
        requests, answers = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        try:
            requests.write(json.dumps(request).encode() + b"\n")
            requests.flush()
        except BrokenPipeError:
            raise self._failure() from None
        line = answers.readline()
        if not line.endswith(b"\n"):
            raise self._failure()
        return VllmAnswer.model_validate_json(line)

    def _failure(self) -> RunError:
        self._process.wait()
        self._log.seek(0)
        return RunError(f"vLLM: {telling_line(self._log.read().decode(errors='replace').splitlines())}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        try:
            self._process.communicate(timeout=_SECONDS_TO_LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._log.close()


def telling_line(output: Sequence[str]) -> str:
    """The line of a failed program's output that says why: the last that names an exception, else the last."""
    spoken = [line.strip() for line in output if line.strip()]
    named = [line for line in spoken if _EXCEPTION.match(line)]
    return (named or spoken or ["it wrote nothing"])[-1]
