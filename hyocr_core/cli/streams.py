"""Standard output and standard error as the commands use them: a broken one ends in one line, or in none."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from hyocr_core.errors import RunError

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Stream(io.FileIO):
    """A standard stream. What it cannot take after that is dropped, so that nothing is left to fail at the exit."""

    def __init__(self, descriptor: int, *, told: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._told = told

    def write(self, data: Buffer, /) -> int:
        """Write; for the first bytes that cannot be written raise RunError, unless nobody is to be told."""
        try:
            return super().write(data)
        except OSError as error:
            broken, self._told = self._told, False
            if broken:
                raise RunError(f"cannot write to stdout: {error.strerror}") from error
            return memoryview(data).nbytes


def own_streams() -> None:
    """Take the place of the process's streams, also of those that it was started without.

    Streams that somebody has put there, as a test does, stay.
    """
    _occupy()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(sys.stdout, _Stream(1, told=True))
    if sys.stderr is sys.__stderr__:
        # Nobody is left to be told, and the work is worth more than what is said of it.
        sys.stderr = _text(sys.stderr, _Stream(2, told=False))


def _occupy() -> None:
    """Open what is closed of the three, for reading: else the next file would be taken for it, and written into."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)


def _text(stream: TextIO | None, raw: _Stream) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    # What a terminal has no letter for is no reason to stop.
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=raw.isatty())
