"""Pages with what a checkpoint read there, as rows of JSONL with their images beside them: a source of pages."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hyocr_core.checkpoint.output_file import check_output
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import OutputError, RunError
from hyocr_core.outside.home import expanded


@dataclass
class Rows:
    """path: of the file. images: folder beside it. count: rows that it has."""

    path: Path
    images: Path
    file: IO[bytes]
    count: int = 0

    def add(self, record: Record, text: str, **more: Any) -> None:
        """Write a page; it is on the disk when this returns. more: keys for whoever corrects it.

        Raises RunError when it cannot be written.
        """
        image = self.images / f"{self.count + 1:05d}.png"
        row = {"img_path": f"{self.images.name}/{image.name}", "page": record.name}
        row |= {"question": record.question} if record.question is not None else {}
        row |= {"system_prompt": record.system} if record.system is not None else {}
        line = json.dumps(row | {"answer": text} | more, ensure_ascii=False)
        with _writing(self.path):
            record.open_image().save(image)
            self.file.write(line.encode("utf-8", "replace") + b"\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        self.count += 1


@contextmanager
def new_rows(path: Path) -> Iterator[Rows]:
    """A new file and, for the images, a new folder `NAME-pages`; without a row both are gone at the end.

    Raises OutputError where one of them is there already, or cannot be written.
    """
    path = expanded(path)
    images = path.with_name(f"{path.stem}-pages")
    for place in (path, images):
        if place.exists():
            raise OutputError(f"{place} is there already, perhaps with somebody's corrections; give a new file")
    check_output(path, b"")
    with _writing(path):
        images.mkdir()
    try:
        with path.open("wb") as file:
            rows = Rows(path, images, file)
            yield rows
    finally:
        if not any(images.iterdir()):
            images.rmdir()
            path.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; the rows before are kept") from error
