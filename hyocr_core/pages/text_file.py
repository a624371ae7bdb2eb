"""A file of text beside pages, read as a whole."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.errors import CalibrationError
from hyocr_core.outside.regular import read_regular


def read_utf8(path: Path, name: str) -> str:
    """Its text, without a byte order mark. name: what an error calls it.

    Raises CalibrationError for a file that cannot be read, or is not UTF-8.
    """
    try:
        return read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{name} is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise CalibrationError(f"{name} cannot be read: {error.strerror}") from error
