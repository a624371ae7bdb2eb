"""Real commands in processes of their own, which die when and where they are told to."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.soak.operations import Operations

WORK = "work"
"""The folder, in that of a trial, which a command writes in."""


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: its exit code, None if it was killed. operations: on files, if it was not."""

    code: int | None
    seconds: float
    operations: int
    said: str


def run_command(
    arguments: Sequence[str], folder: Path, *, kill_at: int | None = None, kill_after: float | None = None
) -> Ended:
    """Run `hyocr` in a fork of this process, so that what takes long to import is there.

    folder: of the trial. kill_at: the number of the operation on a file, from zero, before which it dies.
    kill_after: seconds after which it is killed.
    """
    _import_all()
    count = folder / "operations"
    count.unlink(missing_ok=True)
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        _become(arguments, folder, kill_at)
    code = os.waitstatus_to_exitcode(_wait(child, kill_after))
    seconds, said = time.perf_counter() - start, (folder / "said").read_text(errors="replace")
    if code not in (0, 1, 2, -signal.SIGKILL):
        raise AssertionError(f"exit code {code}: {said}")
    operations = int(count.read_text()) if count.is_file() else 0
    return Ended(None if code < 0 else code, seconds, operations, said)


def _import_all() -> None:
    import matplotlib.font_manager  # noqa: F401 - its cache takes seconds to make
    import torch
    import transformers.models.hunyuan_vl.modeling_hunyuan_vl  # noqa: F401

    import hyocr_core.cli.quant
    import hyocr_core.report.page
    import hyocr_core.run.quantize
    import hyocr_core.terminal.quantization_table  # noqa: F401

    # The threads of a pool would be missing in a fork.
    torch.set_num_threads(1)


def _become(arguments: Sequence[str], folder: Path, kill_at: int | None) -> NoReturn:
    code = 70
    try:
        # Flushed line by line: a kill leaves what was said before it.
        sys.stdout = sys.stderr = (folder / "said").open("w", buffering=1)
        os.environ["XDG_CACHE_HOME"] = str(folder / WORK / "cache")
        operations = Operations(folder / WORK, kill_at)
        operations.install()
        code = _call(arguments)
        (folder / "operations").write_text(str(operations.number))
    finally:
        os._exit(code)


def _call(arguments: Sequence[str]) -> int:
    from hyocr_core.cli.main import main

    try:
        main(list(arguments), prog_name="hyocr")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 70
    except BaseException:
        import traceback

        traceback.print_exc()
    return 70


def _wait(child: int, kill_after: float | None) -> int:
    """The status of a process, which is killed when its time is up."""
    end = None if kill_after is None else time.monotonic() + kill_after
    while end is not None and time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status
        time.sleep(0.005)
    if end is not None:
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
