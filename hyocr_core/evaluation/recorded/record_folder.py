"""The evidence of a checkpoint: what evaluations found and the commands that were given. Imports no torch.

It lies in the checkpoint's sub folder `report`, which may show confidential pages and is never uploaded:

    run.json                 the settings of the run that made the checkpoint
    commands.json
    bench.json               the newest measurement of its speed, see `bench_record`
    evaluations/KEY/         one set of pages
        eval.json            the newest evaluation of it
        earlier-0001.json    those before, numbered as they came
        pages-DIGEST/        worst pages, 00007.webp by their index; DIGEST is that of the evaluation's file
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyocr_core.checkpoint.durable import replacing, save_bytes, sync
from hyocr_core.checkpoint.output_file import REPORT
from hyocr_core.contract.config import parse_config
from hyocr_core.errors import CalibrationError, CheckpointError, ConfigError, OutputError, RunError
from hyocr_core.evaluation.recorded.worst import worst_pages
from hyocr_core.evaluation.scores.result import SCHEMA, EvalResult
from hyocr_core.outside.json_text import read_object
from hyocr_core.outside.regular import read_regular

if TYPE_CHECKING:
    from PIL.Image import Image

    from hyocr_core.contract.page_source import Record

EVALUATIONS = "evaluations"
EVALUATION = "eval.json"
COMMANDS = "commands.json"
RUN = "run.json"
ORIGINAL = "original_folder"
"""Key in RUN of what no setting is."""
EARLIER = "earlier-*.json"
SHORT = 8
"""Characters of a key that tell sets of pages apart for a user."""

LONGEST_SIDE = 1200
"""Pixels of a kept page image: enough to read ten-point print of an A4 page."""


@dataclass(frozen=True)
class Recorded:
    """An evaluation. images: the folder of its worst pages. command: that gave it, if noted.

    key: of its set of pages. run: which of the evaluations of this set it is, from 1.
    """

    key: str
    run: int
    result: EvalResult
    images: Path
    command: str | None

    @property
    def name(self) -> str:
        """What `hyocr report --evaluation` calls it: `3fa29c01:2`."""
        return f"{self.key[:SHORT]}:{self.run}"


def check_recordable(folder: Path) -> None:
    """Raise OutputError unless evidence can be written into this folder, CheckpointError if some in it is damaged."""
    report = folder / REPORT
    target = report if report.exists() else folder
    if not folder.is_dir():
        raise OutputError(f"cannot record in {folder}: it is no local folder")
    if not target.is_dir():
        raise OutputError(f"cannot record in {folder}: {target} is in the way and no folder")
    if not os.access(target, os.W_OK | os.X_OK):
        raise OutputError(f"cannot record in {folder}: {target} is not writable")
    load_evaluations(folder)


def pages_key(result: EvalResult) -> str:
    """What names the set of pages of an evaluation: the same for all evaluations of it."""
    pages = [[page.name, page.reference] for page in result.pages]
    return hashlib.sha256(json.dumps([Path(result.data).name, pages]).encode()).hexdigest()[:16]


def save_run(folder: Path, settings: Mapping[str, Any], original: Path | None = None) -> None:
    """Note the settings of the run that made a checkpoint, and the local folder of what it was made from.

    Raises RunError when they cannot be written.
    """
    if original is not None:
        settings = {**settings, ORIGINAL: str(original.resolve())}
    path = folder / REPORT / RUN
    with recording(folder):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            save_bytes(partial, f"{json.dumps(settings, indent=2)}\n".encode())


def load_run(folder: Path) -> dict[str, Any] | None:
    """The settings that `save_run` noted; None if there are none. Raises CheckpointError when they cannot be read."""
    noted = _read_object(folder / REPORT / RUN)
    return None if noted is None else {key: value for key, value in noted.items() if key != ORIGINAL}


def load_original(folder: Path) -> Path | None:
    """The local folder of what a checkpoint was made from, if it is noted and there; raises CheckpointError."""
    noted = (_read_object(folder / REPORT / RUN) or {}).get(ORIGINAL)
    return Path(noted) if isinstance(noted, str) and Path(noted).is_dir() else None


def save_evaluation(folder: Path, result: EvalResult, records: Sequence[Record]) -> None:
    """Write an evaluation and its worst pages into a checkpoint folder; what was recorded there before stays.

    Of evaluations of the same pages this is the newest then, see `load_evaluations` and `load_earlier`.
    records: what was evaluated, in its order; pages that failed may be among them. An image that can no longer be read
    is left out. Raises RunError when the folder cannot be written.
    """
    place = folder / REPORT / EVALUATIONS / pages_key(result)
    text = result.model_dump_json(indent=2).encode()
    with recording(folder):
        place.mkdir(parents=True, exist_ok=True)
        images = _images(place, text)
        fresh = _save_images(place / ".pages.partial", _worst_records(result, records))
        shutil.rmtree(images, ignore_errors=True)
        fresh.rename(images)
        _keep_newest(folder, place, text)
        # After a crash there is the old evaluation with its images or the new one with its own.
        with replacing(place / EVALUATION) as partial:
            save_bytes(partial, text)
        known = {images, *(_images(place, read_regular(path)) for path in place.glob(EARLIER))}
        for other in place.glob("pages-*"):
            if other not in known:
                shutil.rmtree(other, ignore_errors=True)


def _keep_newest(folder: Path, place: Path, text: bytes) -> None:
    """Copy the newest evaluation of a set of pages to those before it, unless `text` is the same."""
    newest = place / EVALUATION
    if not newest.is_file() or (content := read_regular(newest)) == text:
        return
    earlier = sorted(place.glob(EARLIER))
    # A crash may have copied it already.
    if earlier and read_regular(earlier[-1]) == content:
        return
    number = 1 + max((_number(path) for path in earlier), default=0)
    with replacing(place / f"earlier-{number:04d}.json") as partial:
        save_bytes(partial, content)
    command = load_commands(folder).get(_of_eval(place.name))
    if command is not None:
        save_command(folder, f"{_of_eval(place.name)}:{number}", shlex.split(command))


def _number(path: Path) -> int:
    """`earlier-0012.json` -> 12; 0 for a file that somebody else has put there."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def load_evaluations(folder: Path) -> tuple[Recorded, ...]:
    """The newest evaluation of each set of pages: that of most pages first, of as many the one that was noted last.

    Raises CheckpointError when one cannot be read or was written by a version of hyocr with another schema.
    """
    commands = load_commands(folder)
    noted = list(commands)
    found = [_load(path, commands) for path in sorted((folder / REPORT / EVALUATIONS).glob(f"*/{EVALUATION}"))]
    newest = {each.key: noted.index(_of_eval(each.key)) if each.command else -1 for each in found}
    return tuple(sorted(found, key=lambda each: (-len(each.result.pages), -newest[each.key])))


def load_earlier(folder: Path) -> tuple[Recorded, ...]:
    """The evaluations of sets of pages that were evaluated again since, the newest first; raises as above."""
    commands = load_commands(folder)
    paths = (folder / REPORT / EVALUATIONS).glob(f"*/{EARLIER}")
    found = [_load(path, commands, _number(path)) for path in sorted(paths) if _number(path)]
    return tuple(sorted(found, key=lambda each: -each.run))


def load_evaluation(folder: Path) -> EvalResult | None:
    """The first of `load_evaluations`; None if there is none."""
    return next((each.result for each in load_evaluations(folder)), None)


def _load(path: Path, commands: dict[str, str], number: int | None = None) -> Recorded:
    """number: of an earlier evaluation; None is the newest of its set of pages."""
    data, key = _read_object(path) or {}, path.parent.name
    if data.get("schema_version") != SCHEMA:
        raise CheckpointError(
            f"{path}: has schema {data.get('schema_version')!r}, this hyocr reads {SCHEMA}; evaluate again, "
            "and delete its folder before"
        )
    try:
        result = parse_config(EvalResult, data, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    command = commands.get(_of_eval(key) if number is None else f"{_of_eval(key)}:{number}")
    run = number or 1 + max(map(_number, path.parent.glob(EARLIER)), default=0)
    return Recorded(key, run, result, _images(path.parent, read_regular(path)), command)


def _images(place: Path, evaluation: bytes) -> Path:
    return place / f"pages-{hashlib.sha256(evaluation).hexdigest()[:16]}"


def save_eval_command(folder: Path, result: EvalResult, argv: Sequence[str]) -> None:
    """Note the command line that gave a recorded evaluation. Raises RunError when it cannot be written."""
    save_command(folder, _of_eval(pages_key(result)), argv)


def _of_eval(key: str) -> str:
    return f"eval {key}"


def save_command(folder: Path, name: str, argv: Sequence[str]) -> None:
    """Note a command line, such as that which made a checkpoint (`quant`), behind those noted before.

    Raises RunError when it cannot be written.
    """
    path = folder / REPORT / COMMANDS
    commands = {key: command for key, command in load_commands(folder).items() if key != name}
    commands[name] = shlex.join(argv)
    with recording(folder):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            save_bytes(partial, f"{json.dumps(commands, indent=2)}\n".encode())


def load_commands(folder: Path) -> dict[str, str]:
    """Name -> command line; empty if none were noted. Raises CheckpointError when the file cannot be read."""
    return {str(name): str(command) for name, command in (_read_object(folder / REPORT / COMMANDS) or {}).items()}


@contextmanager
def recording(folder: Path) -> Iterator[None]:
    """What the system says against writing there becomes a RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot record in {folder}: {error}") from error


def _read_object(path: Path) -> dict[str, Any] | None:
    return read_object(path, CheckpointError) if path.exists() else None


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
