"""What lies in a model's folder, looked at before libraries read it by themselves. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.errors import CheckpointError
from hyocr_core.outside.regular import check_folder

_WHOLE = (".json", ".jinja", ".model", ".txt", ".md")
"""Of files that are read as a whole; weights are not."""


def check_files(folder: Path) -> None:
    """Raise CheckpointError for a pipe, a socket or a device in the folder, or a text too large to be one of a model.

    Reading a pipe waits for whoever writes it, and a device may never end.
    """
    try:
        check_folder(folder, _WHOLE)
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}") from error
