"""Where a command may write a file that it is asked for: only where nothing is lost by it. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from hyocr_core.checkpoint.durable import replacing, save_bytes, writing
from hyocr_core.errors import OutputError
from hyocr_core.outside.home import expanded
from hyocr_core.outside.regular import open_regular

REPORT = "report"
"""Folder of a checkpoint that is no part of it: its page, and how it reads."""


def check_output(path: Path, *marks: bytes) -> None:
    """Raise OutputError unless a file may be written to `path`: a new or empty one, or one of hyocr's of the same kind.

    So no input of a run is ever replaced, and no file of a checkpoint; in a checkpoint a file may be new only in its
    folder `report`. marks: one of them is what hyocr's files of this kind begin with. Tries to write beside it, and
    leaves nothing.
    """
    target = expanded(path).resolve()
    try:
        if target.exists():
            _check_replaceable(path, target, marks)
        _check_outside_of_checkpoints(path, target)
        trial = target.with_name(f".{target.name}.partial")
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def write_output(path: Path, text: str) -> None:
    """Write such a file, replacing it as a whole. Raises RunError when it cannot be written."""
    with writing(path), replacing(expanded(path).resolve()) as partial:
        save_bytes(partial, text.encode())


def _check_replaceable(path: Path, target: Path, marks: tuple[bytes, ...]) -> None:
    if not target.is_file():
        raise OutputError(f"cannot write {path}: it is there and no file")
    with open_regular(target) as file:
        begins = file.read(max(map(len, marks)))
    if begins and not begins.startswith(marks):
        raise OutputError(f"cannot write {path}: hyocr did not write what is there; give a new file")


def check_output_folder(path: Path) -> None:
    """Raise OutputError for a folder in a checkpoint, or a checkpoint itself: files in it would be taken for a part."""
    target = expanded(path).resolve()
    _check_outside_of_checkpoints(path, target / "any")


def _check_outside_of_checkpoints(path: Path, target: Path) -> None:
    for folder in target.parents:
        inside = target.relative_to(folder)
        own = len(inside.parts) == 2 and inside.parts[0] == REPORT and inside.suffix != ".json"
        if not own and (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
            raise OutputError(f"cannot write {path}: it would be taken for a part of the checkpoint {folder}")
