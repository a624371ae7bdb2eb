"""The evidence of a checkpoint: what an evaluation found and the commands that were given. Imports no torch.

It lies in the checkpoint's sub folder `report`, which may show confidential pages and is never uploaded: `eval.json`,
`pages/00007.webp` (the worst pages, by their index in the evaluation) and `commands.json`.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyocr_core.checkpoint.durable import replacing, save_bytes, sync
from hyocr_core.contract.config import parse_config
from hyocr_core.errors import CalibrationError, CheckpointError, ConfigError, OutputError, RunError
from hyocr_core.evaluation.recorded.worst import worst_pages
from hyocr_core.evaluation.scores.result import SCHEMA, EvalResult

if TYPE_CHECKING:
    from PIL.Image import Image

    from hyocr_core.contract.page_source import Record

REPORT = "report"
EVALUATION = "eval.json"
PAGES = "pages"
COMMANDS = "commands.json"

LONGEST_SIDE = 1200
"""Pixels of a kept page image: enough to read ten-point print of an A4 page."""


def check_recordable(folder: Path) -> None:
    """Raise OutputError unless evidence can be written into this checkpoint folder."""
    report = folder / REPORT
    target = report if report.exists() else folder
    if not folder.is_dir():
        raise OutputError(f"cannot record in {folder}: it is no local folder")
    if not target.is_dir():
        raise OutputError(f"cannot record in {folder}: {target} is in the way and no folder")
    if not os.access(target, os.W_OK | os.X_OK):
        raise OutputError(f"cannot record in {folder}: {target} is not writable")


def save_evaluation(folder: Path, result: EvalResult, records: Sequence[Record]) -> None:
    """Write an evaluation into a checkpoint folder, in the place of an older one, with the images of its worst pages.

    records: what was evaluated, in its order; pages that failed may be among them. An image that can no longer be read
    is left out. Raises RunError when the folder cannot be written.
    """
    report = folder / REPORT
    with _recording(folder):
        report.mkdir(exist_ok=True)
        fresh = _save_images(report / f".{PAGES}.partial", _worst_records(result, records))
        # Removed first: after a crash there is no evaluation rather than one beside another's images.
        (report / EVALUATION).unlink(missing_ok=True)
        shutil.rmtree(report / PAGES, ignore_errors=True)
        fresh.replace(report / PAGES)
        with replacing(report / EVALUATION) as partial:
            save_bytes(partial, result.model_dump_json(indent=2).encode())


def load_evaluation(folder: Path) -> EvalResult | None:
    """The evaluation in a checkpoint folder; None if there is none.

    Raises CheckpointError when it cannot be read or was written by a version of hyocr with another schema.
    """
    data = _read_object(folder / REPORT / EVALUATION)
    if data is None:
        return None
    path = folder / REPORT / EVALUATION
    if data.get("schema_version") != SCHEMA:
        raise CheckpointError(
            f"{path}: has schema {data.get('schema_version')!r}, this hyocr reads {SCHEMA}; evaluate again"
        )
    try:
        return parse_config(EvalResult, data, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def save_command(folder: Path, name: str, argv: Sequence[str]) -> None:
    """Note the command line that made a checkpoint (`quant`) or its evaluation (`eval`), beside those noted before.

    Raises RunError when it cannot be written.
    """
    path = folder / REPORT / COMMANDS
    commands = load_commands(folder) | {name: shlex.join(argv)}
    with _recording(folder):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            save_bytes(partial, f"{json.dumps(commands, indent=2)}\n".encode())


def load_commands(folder: Path) -> dict[str, str]:
    """Name -> command line; empty if none were noted. Raises CheckpointError when the file cannot be read."""
    return {str(name): str(command) for name, command in (_read_object(folder / REPORT / COMMANDS) or {}).items()}


@contextmanager
def _recording(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot record in {folder}: {error}") from error


def _read_object(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: must hold a JSON object, not {type(data).__name__}")
    return data


def _worst_records(result: EvalResult, records: Sequence[Record]) -> Iterator[tuple[int, Record]]:
    """Index of a page -> its record. Pages are the records that did not fail, in their order."""
    remaining = iter(records)
    of_page = [next(record for record in remaining if record.name == page.name) for page in result.pages]
    for index in worst_pages(result):
        yield index, of_page[index]


def _save_images(folder: Path, pages: Iterator[tuple[int, Record]]) -> Path:
    """Write the images into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for index, record in pages:
        try:
            image = record.open_image()
        except CalibrationError:
            continue
        save_bytes(folder / f"{index:05d}.webp", _webp(image))
    sync(folder)
    return folder


def _webp(image: Image) -> bytes:
    data = io.BytesIO()
    small = image.convert("RGB")  # a copy: the record may keep its image
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    small.save(data, "webp", quality=80)
    return data.getvalue()
