"""Open files that come from outside: regular ones only, since a pipe, a socket or a device may never end."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 1 << 28
"""Of a file that is read as a whole: tokenizers, the largest, have some 30 MB."""

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class IrregularFileError(OSError):
    """What was to be opened is no regular file, or has too many bytes; `strerror` says which."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file, or what a link leads to, for reading.

    Raises IrregularFileError for a pipe, a socket or a device, without waiting for it, and OSError as `open` does.
    """
    check_regular(path)
    # Looked at once more, since another may lie there by now; without O_NONBLOCK a pipe would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """All bytes of a file. Raises as `open_regular`, and IrregularFileError for one that has more than `most` bytes."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise _too_large(path, most)
    return data


def read_text(path: Path, encoding: str = "utf-8", most: int = MOST_BYTES) -> str:
    """The text of a file, its line breaks as `\\n`. Raises as `read_regular`, and UnicodeDecodeError."""
    return io.TextIOWrapper(io.BytesIO(read_regular(path, most)), encoding).read()


def check_regular(path: Path) -> None:
    """Raise as `open_regular`: for a file that a library opens by its name."""
    _check(path.stat().st_mode, path)


def check_folder(folder: Path, whole: tuple[str, ...] = ()) -> None:
    """Raise IrregularFileError, with the path as `filename`, for what lies in a folder and is neither file nor folder.

    For a folder that libraries read by themselves. Hidden entries are not looked at, nor links to nothing.
    whole: suffixes of files that are read as a whole, and so may not have more than MOST_BYTES.
    """
    for entry in _entries(folder):
        try:
            found = entry.stat()
        except OSError:
            continue
        if not stat.S_ISDIR(found.st_mode):
            _check(found.st_mode, entry)
        if entry.name.endswith(whole) and found.st_size > MOST_BYTES:
            raise _too_large(entry, MOST_BYTES)


def _entries(folder: Path) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if not entry.name.startswith("."))


def _check(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise IrregularFileError(errno.EINVAL, f"it is {kind}, not a file", str(path))


def _too_large(path: Path, most: int) -> IrregularFileError:
    return IrregularFileError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
