"""The source `jsonl`: a JSON object in each line, or a list of them, in hyocr's own layout or another's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from hyocr_core.contract.page_source import Record, Source
from hyocr_core.errors import CalibrationError
from hyocr_core.outside.home import expanded
from hyocr_core.outside.json_text import parse_json
from hyocr_core.outside.regular import open_regular, read_regular
from hyocr_core.pages.images import load_image
from hyocr_core.pages.row_layouts import Row, kind, own_keys, shorten
from hyocr_core.pages.spellings import spellings

if TYPE_CHECKING:
    from PIL.Image import Image

_MARK = b"\xef\xbb\xbf"
"""Of the order of bytes, which some editors write into UTF-8."""

_MOST_BYTES = 1 << 24
"""Of a row, which is read as a whole."""


class JsonlSource(Source):
    """A JSONL file, or a JSON list: rows with `img_path`, `question` and `answer`, or in a layout of chats."""

    api_version: ClassVar[int] = 1

    def records(self) -> list[Record]:
        """As `read_jsonl`."""
        return read_jsonl(expanded(self.place))


def read_jsonl(path: Path) -> list[Record]:
    """Read one record per line, or of each object of a JSON list; blank lines are skipped, unknown keys ignored unless
    they look like a misspelt one.

    Images are relative to the file, or to the folder `images` beside it, or absolute, and never outside the file's
    folder, links resolved. Whether an image can be read shows only when its record is used.
    Raises CalibrationError naming file and line, or place in the list.
    """
    rows: list[tuple[int, object]]
    try:
        with open_regular(path) as lines:
            first = _line(lines).removeprefix(_MARK)
            if first.lstrip().startswith(b"["):
                rows = list(enumerate(_parse_list(read_regular(path).removeprefix(_MARK), path), start=1))
            else:
                rows = list(_numbered(path, chain([first], iter(partial(_line, lines), b""))))
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
    if not rows:
        raise CalibrationError(f"{path}: no row in this file")
    return [_read_row(row, f"{path.name}:{number}", path.parent) for number, row in rows]


def _read_row(row: object, name: str, folder: Path) -> Record:
    """row: a line of the file, or what it says."""
    try:
        value = _parse(row) if isinstance(row, bytes) else row
        if not isinstance(value, dict):
            raise CalibrationError(f"expected a JSON object, found {kind(value)}")
        return _record(value, name, folder)
    except CalibrationError as error:
        raise CalibrationError(f"{name}: {error}") from error


def _parse_list(data: bytes, path: Path) -> list[object]:
    try:
        value = _parse(data)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    return value if isinstance(value, list) else [value]


def _line(file: BinaryIO) -> bytes:
    return file.readline(_MOST_BYTES)


def _numbered(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, object]]:
    """The rows and their numbers."""
    for number, line in enumerate(lines, start=1):
        if len(line) == _MOST_BYTES:
            raise CalibrationError(f"{path.name}:{number}: a row of {_MOST_BYTES:,} bytes or more")
        if line.strip():
            yield number, line


def _parse(line: bytes) -> object:
    try:
        value: object = parse_json(line.rstrip().decode())
    except UnicodeDecodeError as error:
        raise CalibrationError(f"not UTF-8 (byte {error.start} of the line)") from error
    except ValueError as error:
        # Of a row, the line is the file's.
        raise CalibrationError(f"not JSON: {str(error).replace('line 1 column', 'column')}") from error
    return value


def _record(row: Row, name: str, folder: Path) -> Record:
    row = own_keys(row)
    image = _text(row, "img_path")
    if not image:
        raise CalibrationError("img_path is empty")
    return Record(
        name,
        _text(row, "question", optional=True) or None,
        _text(row, "answer", optional=True),
        partial(_open, _locate(image, folder), image),
        _text(row, "system_prompt", optional=True),
    )


def _text(row: Row, key: str, *, optional: bool = False) -> str | None:
    value = row.get(key)
    if optional and value is None:
        return None
    if not isinstance(value, str):
        raise CalibrationError(f"{key}: expected text, found {kind(value)}")
    return value


def _locate(image: str, folder: Path) -> Path:
    """Find an image by its path in a row, and refuse to leave `folder`."""
    if "://" in image or image.startswith("data:"):
        raise CalibrationError(f"img_path {shorten(image)}: expected a file beside the data; nothing is downloaded")
    path = Path(image)
    if ".." in path.parts:
        raise CalibrationError(f"img_path {shorten(image)}: must stay in the file's folder, without '..'")
    try:
        root = folder.resolve(strict=True)
        places = [place / spelled for place in (root, root / "images") for spelled in spellings(image)]
        inside = next((place for place in places if place.exists()), places[0]).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise CalibrationError(f"img_path {shorten(image)}: not a path that can be followed") from error
    if not inside.is_relative_to(root):
        raise CalibrationError(f"img_path {shorten(image)}: leads outside the file's folder")
    return inside


def _open(path: Path, shown: str) -> Image:
    try:
        return load_image(path)
    except CalibrationError as error:
        raise CalibrationError(f"{shorten(shown)}: {error}") from error
