"""Where pages come from: a folder of images, a JSONL file, or rendered text."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from hyocr_core.calibration.images import SUFFIXES, load_image
from hyocr_core.calibration.jsonl import read_jsonl
from hyocr_core.calibration.records import Record
from hyocr_core.calibration.synthetic import DEFAULT_PAGES, MAX_PAGES, synthetic_records
from hyocr_core.errors import CalibrationError

__all__ = ["FORMS", "Record", "open_source", "select"]

FORMS = "a folder of images, a JSONL file or synthetic[:N]"


def open_source(spec: str) -> list[Record]:
    """List the pages of a source, always in the same order; images are read only when a record is used.

    spec: `synthetic[:N]`, a folder (searched in depth, sorted by relative path; hidden files and folders are left
    out, links to folders not followed; `page.txt` beside `page.png` is its transcript) or a JSONL file. A folder whose
    name is `synthetic` is given as `./synthetic`.
    Raises CalibrationError naming the source, and the file and line where there is one.
    """
    kind, colon, count = spec.partition(":")
    if kind == "synthetic":
        return synthetic_records(_pages(spec, count) if colon else DEFAULT_PAGES)
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise CalibrationError(f"{spec or 'empty source'}: no such file or folder; give {FORMS}")
    if path.suffix.lower() in SUFFIXES:
        raise CalibrationError(f"{spec}: is a single image; give {FORMS}")
    return read_jsonl(path)


def select(records: Sequence[Record], num_samples: int, seed: int) -> list[Record]:
    """Draw `num_samples` records without replacement, in their original order; all of them if there are no more."""
    if num_samples < 1:
        raise CalibrationError(f"{num_samples} samples asked for; ask for at least 1")
    if num_samples >= len(records):
        return list(records)
    drawn = random.Random(seed).sample(range(len(records)), num_samples)  # noqa: S311 - no secret
    return [records[index] for index in sorted(drawn)]


def _pages(spec: str, count: str) -> int:
    pages = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
    if not 1 <= pages <= MAX_PAGES:
        raise CalibrationError(f"{spec}: synthetic:N takes a number of pages from 1 to {MAX_PAGES}")
    return pages


def _read_folder(folder: Path) -> list[Record]:
    paths = {path.relative_to(folder).as_posix(): path for path in _images_below(folder)}
    if not paths:
        raise CalibrationError(f"{folder}: no image in this folder; looked for {' '.join(sorted(SUFFIXES))}")
    return [Record(name, None, _transcript(path), partial(load_image, path)) for name, path in sorted(paths.items())]


def _images_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent, name)


def _refuse(error: OSError) -> NoReturn:
    raise CalibrationError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _transcript(image: Path) -> str | None:
    """The text beside an image, without the line break that ends a text file."""
    path = image.with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path}: the transcript is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        _refuse(error)
