"""The source `folder`: images, each with its transcript beside it, and PDF files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, NoReturn

from hyocr_core.contract.page_source import Record, Source
from hyocr_core.errors import CalibrationError
from hyocr_core.pages import pdf
from hyocr_core.pages.images import SUFFIXES, load_image

LOOKED_FOR = SUFFIXES | {pdf.SUFFIX}
"""Endings of the names of files that hold pages."""


class FolderSource(Source):
    """A folder of images and PDF files, searched in depth; `page.txt` beside `page.png` is its transcript."""

    api_version: ClassVar[int] = 1

    def records(self) -> list[Record]:
        """As `read_folder`."""
        return read_folder(Path(self.place).expanduser())

    @property
    def label(self) -> str:
        """The folder's own name, whichever way it was given."""
        return Path(self.place).expanduser().resolve().name


def read_folder(folder: Path) -> list[Record]:
    """List the pages below a folder, in depth, sorted by relative path; `page.txt` beside `page.png` is its transcript.

    Hidden files and folders are left out, links to folders not followed.
    Raises CalibrationError naming the folder without a page, or the PDF file or transcript that cannot be read.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in _pages_below(folder)}
    if not paths:
        raise CalibrationError(f"{folder}: no image in this folder; looked for {' '.join(sorted(LOOKED_FOR))}")
    return [record for name, path in sorted(paths.items()) for record in read_file(path, name)]


def read_file(path: Path, name: str) -> list[Record]:
    """The pages of an image or a PDF file, named after it. Raises as `read_folder`."""
    if path.suffix.lower() == pdf.SUFFIX:
        return pdf.read_pdf(path, name)
    return [Record(name, None, _transcript(path), partial(load_image, path))]


def _pages_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in LOOKED_FOR:
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
