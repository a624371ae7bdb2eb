"""Files that survive a crash: they are on the disk before they are visible under their name. Imports no torch."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from hyocr_core.errors import RunError

LONGEST_NAME = 255
"""Bytes of the name of a file or folder, on every file system that is common."""

_AT_ONCE = 8


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses (no space, no permission) into a RunError of one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"cannot write {path}: {error}; what was done so far is kept: repair this and give the same command again"
        ) from error


def try_lock(path: Path) -> int | None:
    """Lock the file `path`, made if it is missing; return its open descriptor, None when another process holds it.

    The lock lasts until the descriptor is closed. Raises OSError when the file cannot be opened.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who held the lock may have finished, and deleted the folder, since.
        if os.fstat(lock).st_ino == path.stat().st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush all files of a folder, and its entries, to the disk, which takes many at once as fast as one."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(sync, folder.iterdir()))
    sync(folder)


def save_bytes(path: Path, data: bytes) -> None:
    """Write a file and flush it."""
    path.write_bytes(data)
    sync(path)


def copy_file(source: Path, path: Path) -> None:
    """Copy the bytes of `source` (of what it links to) and flush them; the mode is that of a new file."""
    shutil.copyfile(source, path)
    sync(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a flushed file to make; when the body succeeds it takes the place of `path` atomically."""
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    partial.replace(path)
    sync(path.parent)
