"""The source `folder`: images, PDF and multi-page TIFF files, each with its transcript beside it."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ClassVar, NoReturn

from hyocr_core.contract.page_source import Record, Source
from hyocr_core.errors import CalibrationError
from hyocr_core.outside.home import expanded
from hyocr_core.pages import image_kinds, pdf
from hyocr_core.pages.found import Found, files_lines
from hyocr_core.pages.images import load_image, page_frames
from hyocr_core.pages.transcripts import SUFFIX, transcript_beside, with_transcripts

_ROWS = (".jsonl", ".json")
_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini")


class FolderSource(Source):
    """A folder of images, PDF and TIFF files, searched in depth; `page.txt` beside `page.png` is its transcript."""

    api_version: ClassVar[int] = 1
    _left_out: Mapping[str, str] = {}

    def records(self) -> list[Record]:
        """As `read_folder`."""
        found = read_folder(expanded(self.place))
        self._left_out = found.files
        return found.records

    @property
    def left_out(self) -> Mapping[str, str]:
        """As `read_folder`."""
        return self._left_out

    @property
    def label(self) -> str:
        """The folder's own name, whichever way it was given."""
        return expanded(self.place).resolve().name


def read_folder(folder: Path) -> Found:
    """List the pages below a folder, in depth, sorted by relative path, and the files that are none.

    `page.txt` beside `page.png` is its transcript; beside a file of several pages it has one for each, separated by
    form feeds. Hidden files and folders are passed over, links to folders not followed.
    Raises CalibrationError naming the folder without a page, or the PDF file or transcript that cannot be read.
    """
    files = {path.relative_to(folder).as_posix(): path for path in _files_below(folder)}
    readable = image_kinds.suffixes() | {pdf.SUFFIX}
    pages = {name: path for name, path in sorted(files.items()) if path.suffix.lower() in readable}
    transcripts = {_alike(beside) for beside in map(transcript_beside, pages.values()) if beside is not None}
    others = {
        name: path for name, path in sorted(files.items()) if name not in pages and _alike(path) not in transcripts
    }
    left_out = {name: _why(path) for name, path in others.items()}
    if not pages:
        problem = f"{folder}: no image in this folder; looked for {' '.join(sorted(readable))}"
        # One reason alone, since all of them may be more than a line holds.
        raise CalibrationError("; ".join([problem, *islice(files_lines(left_out), 1)]))
    return Found([record for name, path in pages.items() for record in read_file(path, name)], left_out)


def _alike(path: Path) -> str:
    """The same for all spellings of a path, of which a file system may keep another than it was asked for."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def read_file(path: Path, name: str) -> list[Record]:
    """The pages of an image, PDF or TIFF file, with their transcripts."""
    suffix = path.suffix.lower()
    if suffix == pdf.SUFFIX:
        records = pdf.read_pdf(path, name)
    elif suffix in image_kinds.TIFF_SUFFIXES:
        records = _read_tiff(path, name)
    else:
        records = [Record(name, None, None, partial(load_image, path))]
    return with_transcripts(records, path)


def _read_tiff(path: Path, name: str) -> list[Record]:
    """`name` for a single page, else `name:1`, `name:2`, ...; a file that cannot be read says so when it is used."""
    try:
        frames = page_frames(path)
    except CalibrationError:
        frames = []
    if len(frames) < 2:
        return [Record(name, None, None, partial(load_image, path))]
    numbered = enumerate(frames, start=1)
    return [Record(f"{name}:{number}", None, None, partial(load_image, path, frame)) for number, frame in numbered]


def _why(path: Path) -> str:
    """Why a file is no page."""
    suffix = path.suffix.lower()
    if suffix == SUFFIX:
        return "no page of that name lies beside it"
    if suffix in _ROWS:
        return "rows are read where the file itself is given"
    return image_kinds.lacking(suffix) or "no image or PDF file by its name"


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and name.lower() not in _OF_THE_SYSTEM:
                yield Path(parent, name)


def _refuse(error: OSError) -> NoReturn:
    raise CalibrationError(f"{error.filename}: cannot be read: {error.strerror}") from error
