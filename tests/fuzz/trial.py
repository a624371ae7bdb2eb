"""One command on one input: how it ended, and whether that is one of the ways in which a command may end."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import tempfile
import traceback
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn
from unittest import mock

from click.testing import CliRunner, Result

from hyocr_core.cli.main import main
from hyocr_core.runtimes import endpoint
from hyocr_core.shown import LONGEST
from tests.fuzz.served import Served
from tests.fuzz.targets import Case

CODES = (0, 1, 2)
SECONDS = 300
"""An input that takes longer hangs, also on a machine that is busy; most take half a second."""
BYTES = 4 << 30
"""Of addresses, beyond those that the process has when it starts."""
LINES = 60
"""On stderr, progress included."""


class Hung(BaseException):
    """A command took too long. No `except Exception` catches it."""


@dataclass(frozen=True)
class Ended:
    """code: the exit code. said: all that it printed. fault: what is wrong with how it ended, if anything is."""

    code: int
    said: str
    fault: str | None


def try_case(case: Case, world: Path, server: Served) -> Ended:
    """Run a case in a copy of the world."""
    with copied(world) as folder:
        for file, data in case.files.items():
            (folder / file).write_bytes(data)
        server.folder = folder / "served"
        return run(addressed(case.command, server), folder)


def addressed(command: Sequence[str], server: Served) -> list[str]:
    """The command with the endpoint's URL in its place."""
    return [server.url if part == "{url}" else part for part in command]


@contextlib.contextmanager
def copied(world: Path) -> Iterator[Path]:
    """A copy of the world, as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="hyocr-fuzz-") as name:
        yield shutil.copytree(world, Path(name) / "world")


def run(arguments: Sequence[str], folder: Path) -> Ended:
    """Run `hyocr` in a folder, where its caches are too, within bounds of time and memory."""
    places = {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    with (
        contextlib.chdir(folder),
        mock.patch.dict("os.environ", places),
        mock.patch.object(endpoint, "PAUSE", 0),
        contextlib.suppress(Hung),
        _bounded(),
    ):
        result = CliRunner().invoke(main, list(arguments))
        return Ended(result.exit_code, result.output, next(_faults(result), None))
    return Ended(-1, "", f"it takes longer than {SECONDS} s")


def _faults(result: Result) -> Iterator[str]:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        yield "".join(traceback.format_exception(result.exception))
    if result.exit_code not in CODES:
        yield f"exit code {result.exit_code}: {result.stderr}"
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith(("hyocr: error:", "Error:"))]
    if len(errors) != (0 if result.exit_code == 0 else 1) or len(lines) > LINES:
        yield f"{len(errors)} errors with exit code {result.exit_code}: {result.stderr}"
    if any(len(line) > LONGEST for line in errors):
        yield f"a line of {max(map(len, errors))} characters: {result.stderr}"
    shown = [mark for mark in result.stdout + "".join(errors) if unicodedata.category(mark) in ("Cc", "Cs")]
    if set(shown) - {"\n", "\t"}:
        yield f"control characters: {result.output!r}"


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Bounds of time and memory for the body."""
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _give_up(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Hung
