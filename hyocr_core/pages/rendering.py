"""Render chat templates in a process of their own, which ends when one takes too much time or memory."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import IO, Any, cast

from hyocr_core.errors import RunError

SECONDS = 10.0
"""For one conversation, which takes milliseconds: a template may loop for years."""

BYTES = 1 << 29
"""Of memory, for one conversation."""

_PROGRAM = Path(__file__).with_name("template_renderer.py")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""More would take memory, and there is nothing for them to do."""


class RefusedError(Exception):
    """A template ended in an error: its message."""


class UnboundedError(Exception):
    """A template took more than there is for one page: the rest of a sentence that begins with it."""


class Renderer:
    """A process that renders: started when it is needed, and anew after it has ended. Threads take turns."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = Lock()
        atexit.register(self.close)

    def start(self) -> None:
        """Start the process and do not wait: loading Transformers takes it most of a second.

        Raises RunError if it cannot be started.
        """
        with self._turn:
            self._started()

    def render(self, template: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> str:
        """What a template writes of a conversation; variables: what else there is for it to ask for.

        Raises RefusedError and UnboundedError, and RunError if the process cannot be started.
        """
        arguments = {**variables, "conversations": [messages], "chat_template": template}
        asked = json.dumps({"seconds": SECONDS, "arguments": arguments}, default=str).encode() + b"\n"
        with self._turn:
            answer = self._exchange(asked)
            if "memory" in answer:
                self.close()
        if "memory" in answer:
            raise UnboundedError(f"takes more than {BYTES >> 20} MiB of memory for one page")
        if "error" in answer:
            raise RefusedError(answer["error"])
        return str(answer["text"])

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", _PROGRAM, str(BYTES)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=os.environ | _ONE_THREAD,
                )
            except OSError as error:
                raise RunError(f"cannot start the process that renders chat templates: {error.strerror}") from error
        return self._process

    def _exchange(self, asked: bytes) -> dict[str, Any]:
        process = self._started()
        try:
            line = _ask(process, asked)
        except BaseException:
            # An answer that nobody waited for would be taken for that of the next page.
            self.close()
            raise
        if not line.endswith(b"\n"):
            code = process.wait()
            self.close()
            raise _ended(code)
        answer: dict[str, Any] = json.loads(line)
        return answer


def _ask(process: subprocess.Popen[bytes], asked: bytes) -> bytes:
    """The line that answers; less of one if the process ends."""
    try:
        stdin = cast("IO[bytes]", process.stdin)
        stdin.write(asked)
        stdin.flush()
    except BrokenPipeError:
        return b""
    return cast("IO[bytes]", process.stdout).readline()


def _ended(code: int) -> UnboundedError | RunError:
    """Why there is no answer, by what the process returned."""
    if code == -signal.SIGALRM:
        return UnboundedError(f"is not done with one page after {SECONDS:g} s; it may loop")
    if code < 0:
        return UnboundedError(f"ends the process that renders it ({signal.Signals(-code).name})")
    return RunError(f"the process that renders chat templates ended with {code}: is Transformers whole?")


RENDERER = Renderer()
"""The one of this process."""
