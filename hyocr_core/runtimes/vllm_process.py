"""A checkpoint in vLLM, in a process of its own, whose interpreter need not be hyocr's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, cast

import torch
from pydantic import ValidationError

from hyocr_core.contract.config import FrozenModel
from hyocr_core.errors import RunError, one_line
from hyocr_core.pages.images import png_base64

if TYPE_CHECKING:
    from PIL.Image import Image

RUNNER = Path(__file__).with_name("vllm_runner.py")
_EXCEPTION = re.compile(r"(\(.*\) *)?(\[\w+\]: *)?[\w.]+(Error|Exception)\b")
"""How the last line of a traceback begins, behind the name of the process that vLLM may put there."""
_SECONDS_TO_LEAVE = 30
_AHEAD = 2
"""Requests that vLLM is given for each that it reads at once, so that it need not wait for the next one."""


@dataclass(frozen=True)
class VllmRequest:
    """A page to read, greedily.

    prompt: what the chat template wrote, with one image token. timed: the answer is to have its times.
    """

    prompt: str
    image: Image
    max_tokens: int
    repetition_penalty: float = 1.0
    stop_token_ids: Sequence[int] = ()
    timed: bool = False

    def line(self, number: int) -> bytes:
        """The request as the runner takes it; its answer bears the number."""
        told = {
            "number": number,
            "prompt": self.prompt,
            "image": png_base64(self.image),
            "max_tokens": self.max_tokens,
            "repetition_penalty": self.repetition_penalty,
            "stop_token_ids": list(self.stop_token_ids),
            "timed": self.timed,
        }
        return json.dumps(told).encode() + b"\n"


class VllmAnswer(FrozenModel):
    """What vLLM wrote for a page.

    number: the place of its request, from 0. prompt: the tokens it made of prompt and image. ended: not cut at the
    limit. seconds: since the answer before, or since it was asked if there was nothing else to do. times: when it was
    asked, its first token was there and it was done, by `time.monotonic()`; None unless that was asked for.
    """

    number: int
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    ended: bool
    seconds: float
    times: tuple[float, float, float] | None = None


class VllmProcess:
    """A running vLLM, inside `with`. See `vllm_runner` for how it is set up.

    python: its interpreter; None for this one. max_tokens: the most that prompt and answer have together.
    at_once: the most pages to read at the same time. fast: it may take longer to be ready, and read faster then.
    Raises RunError with vLLM's own reason once it fails.
    """

    def __init__(
        self, folder: Path, python: Path | None, max_tokens: int, at_once: int = 1, *, fast: bool = False
    ) -> None:
        how = ["fast"] if fast else []
        self._command = [python or sys.executable, RUNNER, folder.resolve(), str(max_tokens), str(at_once), *how]
        self._at_once = at_once

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

    def read(self, requests: Iterable[VllmRequest]) -> Iterator[VllmAnswer]:
        """Read pages; yield the answers as they are done. A request is taken when there is room for it."""
        lines = (request.line(number) for number, request in enumerate(requests))
        yield from self._exchange(lines, _AHEAD * self._at_once)

    def timed(self, requests: Sequence[VllmRequest], at_once: int) -> Iterator[VllmAnswer]:
        """Read pages, so many at once and never more; all requests are written before the first is handed over."""
        yield from self._exchange([request.line(number) for number, request in enumerate(requests)], at_once)

    @property
    def number(self) -> int:
        """The id of the process."""
        return self._process.pid

    def _exchange(self, lines: Iterable[bytes], most: int) -> Iterator[VllmAnswer]:
        waiting = 0
        for line in lines:
            self._ask(line)
            waiting += 1
            if waiting == most:
                waiting -= 1
                yield self._answer()
        for _ in range(waiting):
            yield self._answer()

    def _ask(self, line: bytes) -> None:
        requests = cast("IO[bytes]", self._process.stdin)
        try:
            requests.write(line)
            requests.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _answer(self) -> VllmAnswer:
        line = cast("IO[bytes]", self._process.stdout).readline()
        if not line.endswith(b"\n"):
            raise self._failure()
        try:
            return VllmAnswer.model_validate_json(line)
        except ValidationError as error:
            self._process.kill()
            raise RunError(f"vLLM: what it answers is rubbish: {one_line(error)}") from error

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
