"""Count what a process does to the files of a folder, and kill it at one of these operations."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_TARGETS: dict[str, tuple[int, int | None]] = {
    "os.chmod": (0, None),
    "os.link": (1, 3),
    "os.mkdir": (0, 2),
    "os.remove": (0, 1),
    "os.rename": (1, 3),
    "os.rmdir": (0, 1),
    "os.symlink": (1, 2),
    "os.truncate": (0, None),
}
"""Events of Python's audit that change the disk -> which arguments are the path and the open folder it starts from."""


class Operations:
    """Lies below all that writes files, so that nothing goes past it: Python's audit, and `fsync`, which has no event.

    A file that safetensors writes is seen when it is flushed. number: of the operations in `folder` so far.
    """

    def __init__(self, folder: Path, kill_at: int | None) -> None:
        """kill_at: die, as of SIGKILL, before the operation of this number; None never."""
        self._folder = folder
        self._kill_at = kill_at
        self.number = 0

    def install(self) -> None:
        """For the rest of this process: an audit hook cannot be removed."""
        sys.addaudithook(self._hear)
        vars(os)["fsync"] = self._flushing(os.fsync)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITING:
                self._note(path)
        elif event in _TARGETS:
            path, start = _TARGETS[event]
            opened = None if start is None else arguments[start]
            self._note(arguments[path], opened)

    def _flushing(self, flush: Callable[[Any], None]) -> Callable[[Any], None]:
        def flush_counted(descriptor: Any) -> None:
            self._note(descriptor)
            flush(descriptor)

        return flush_counted

    def _note(self, path: object, opened: object = None) -> None:
        if isinstance(path, int):
            named = _opened(path)
        elif isinstance(path, str | os.PathLike):
            # `shutil.rmtree` gives names in a folder that it has opened.
            named = (_opened(opened) if isinstance(opened, int) and opened >= 0 else Path()) / os.fspath(path)
        else:
            return
        if not named.is_relative_to(self._folder):
            return
        if self.number == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.number += 1


def _opened(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()
