"""What is done before there are bars, on a line of the terminal that leaves nothing behind. Imports no rich."""

from __future__ import annotations

import os
import shutil
import sys

from hyocr_core.shown import message

_ERASE = "\r\x1b[2K"


class StatusLine:
    """Watches what is done: on a terminal the line is there at once, elsewhere nothing is written but what is said."""

    def __init__(self) -> None:
        self._shown = False

    def doing(self, text: str) -> None:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            room = shutil.get_terminal_size().columns - 2
            self._write(f"{_ERASE}{message(f'{text} ...')[:room]}")
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._shown = False
            self._write(_ERASE)

    def say(self, text: str) -> None:
        self.clear()
        self._write(f"{message(text)}\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
