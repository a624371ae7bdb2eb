"""Proof that the files a long run reads from stay what they were when it began."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from hyocr_core.checkpoint.reader import CheckpointReader, digest
from hyocr_core.errors import CheckpointError, RunError

_Seen = tuple[int, ...]


class Unchanged:
    """The files of a checkpoint, as they were when this was made."""

    def __init__(self, reader: CheckpointReader) -> None:
        """Raises RunError for a file that is not there."""
        self._reader = reader
        self._seen = {path: _look(path) for path in (reader.folder / name for name in reader.file_names())}

    @cached_property
    def digests(self) -> dict[str, str]:
        """File name -> SHA-256; reads every file when it is asked for first."""
        return self._reader.digests()

    def check(self) -> None:
        """Look whether a file was touched, and read it if it was. Raises RunError naming one whose bytes changed."""
        for path, before in self._seen.items():
            now = _look(path)
            if now == before:
                continue
            if _digest(path) != self.digests[path.name]:
                raise RunError(
                    f"{path} was replaced while the run was going on: put back what it was and give the same "
                    "command again, or start anew with --fresh"
                )
            self._seen[path] = now

    def damaged(self) -> Path | None:
        """Read every file once more; return one whose bytes changed although nothing seems to have touched it."""
        return next((path for path in self._seen if _digest(path) != self.digests[path.name]), None)


def _look(path: Path) -> _Seen:
    """What changes when a file is replaced or written to, whatever the clock and its time stamps were set to."""
    try:
        stat = path.stat()
    except OSError as error:
        raise RunError(f"{path} cannot be read any more: {error.strerror}") from error
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _digest(path: Path) -> str:
    try:
        return digest(path)
    except CheckpointError as error:
        raise RunError(str(error)) from error
