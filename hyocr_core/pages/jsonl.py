"""The source `jsonl`: rows of question, answer and img_path, or chats in the OpenAI or Hugging Face form."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.contract.page_source import Record, Source
from hyocr_core.errors import CalibrationError
from hyocr_core.outside.home import expanded
from hyocr_core.outside.json_text import parse_json
from hyocr_core.outside.regular import open_regular
from hyocr_core.pages.images import load_image

if TYPE_CHECKING:
    from PIL.Image import Image

Row = dict[str, Any]

_KEYS = ("img_path", "question", "answer", "system_prompt", "messages")
_MOST_BYTES = 1 << 24
"""Of a row, which is read as a whole."""
_TYPO = 2  # letters: `anwser` and `image_path` are meant, `question_id` is a key of its own
_IMAGE_KEYS = ("image", "image_url", "url", "path")
_TURNS = (["user"], ["user", "assistant"], ["system", "user"], ["system", "user", "assistant"])


class JsonlSource(Source):
    """A JSONL file: rows with `img_path`, `question` and `answer`, or with `messages`."""

    api_version: ClassVar[int] = 1

    def records(self) -> list[Record]:
        """As `read_jsonl`."""
        return read_jsonl(expanded(self.place))


def read_jsonl(path: Path) -> list[Record]:
    """Read one record per line; blank lines are skipped, unknown keys ignored unless they look like a misspelt one.

    Images are relative to the file, or to the folder `images` beside it, or absolute, and never outside the file's
    folder, links resolved. Whether an image can be read shows only when its record is used.
    Raises CalibrationError naming file and line.
    """
    records = []
    try:
        with open_regular(path) as lines:
            for number, line in enumerate(iter(partial(lines.readline, _MOST_BYTES), b""), start=1):
                if len(line) == _MOST_BYTES:
                    raise CalibrationError(f"{path.name}:{number}: a row of {_MOST_BYTES:,} bytes or more")
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    records.append(_read_line(text, f"{path.name}:{number}", path.parent))
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read: {error.strerror}") from error
    if not records:
        raise CalibrationError(f"{path}: no row in this file")
    return records


def _read_line(line: bytes, name: str, folder: Path) -> Record:
    try:
        return _record(_parse(line), name, folder)
    except CalibrationError as error:
        raise CalibrationError(f"{name}: {error}") from error


def _parse(line: bytes) -> Row:
    try:
        row = parse_json(line.rstrip().decode())
    except UnicodeDecodeError as error:
        raise CalibrationError(f"not UTF-8 (byte {error.start} of the line)") from error
    except ValueError as error:
        # It is one line, of the file's number.
        raise CalibrationError(f"not JSON: {str(error).replace('line 1 column', 'column')}") from error
    if not isinstance(row, dict):
        raise CalibrationError(f"expected a JSON object, found {_kind(row)}")
    return row


def _record(row: Row, name: str, folder: Path) -> Record:
    if "messages" in row:
        row = _flatten(row["messages"])
    else:
        _check_keys(row)
    image = _text(row, "img_path")
    if not image:
        raise CalibrationError("img_path is empty")
    question = _text(row, "question", optional=True)
    if question and "<image>" in question:
        # Data made for other trainers marks the image's place in the text; here the image is a part of its own.
        question = question.replace("<image>", "").strip()
    return Record(
        name,
        question or None,
        _text(row, "answer", optional=True),
        partial(_open, _locate(image, folder), image),
        _text(row, "system_prompt", optional=True),
    )


def _check_keys(row: Row) -> None:
    from rapidfuzz.distance import OSA

    absent = [key for key in _KEYS if key not in row]
    for key in row:
        near = [meant for meant in absent if OSA.distance(key, meant) <= _TYPO]
        if key not in _KEYS and near:
            raise CalibrationError(f"unknown key {key!r}; did you mean {near[0]!r}?")
    if "img_path" not in row:
        raise CalibrationError("the key 'img_path' is missing; a row needs 'img_path' or 'messages'")


def _text(row: Row, key: str, *, optional: bool = False) -> str | None:
    value = row.get(key)
    if optional and value is None:
        return None
    if not isinstance(value, str):
        raise CalibrationError(f"{key}: expected text, found {_kind(value)}")
    return value


def _flatten(messages: object) -> Row:
    """Turn a chat into the keys of the flat form."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise CalibrationError("messages: expected a list of objects with 'role' and 'content'")
    roles = [message.get("role") for message in messages]
    if roles not in _TURNS:
        raise CalibrationError(
            f"messages: expected one user turn, with an optional system turn before and an optional assistant turn "
            f"after it; found {', '.join(map(str, roles)) or 'none'}"
        )
    row: Row = {}
    for message in messages:
        texts, images = _parts(message)
        if images and message["role"] != "user":
            raise CalibrationError(f"messages: an image in the {message['role']}'s turn; only the user's may hold one")
        if message["role"] == "user":
            row |= {"question": "".join(texts), "img_path": _only(images)}
        else:
            row[{"system": "system_prompt", "assistant": "answer"}[message["role"]]] = "".join(texts)
    return row


def _parts(message: Row) -> tuple[list[str], list[str]]:
    """Split the content of a message into its texts and the paths of its images."""
    content = message.get("content")
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, list):
        raise CalibrationError(
            f"messages: the {message['role']}'s content: expected text or a list of parts, found {_kind(content)}"
        )
    texts, images = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            images.append(_image_of(part))
        else:
            raise CalibrationError(
                'messages: expected parts such as {"type": "text", "text": "..."} and '
                f'{{"type": "image", "image": "page.png"}}, found {_shorten(part)}'
            )
    return texts, images


def _image_of(part: Row) -> str:
    value = next((part[key] for key in _IMAGE_KEYS if key in part), None)
    if isinstance(value, dict):
        value = value.get("url")
    if not isinstance(value, str):
        raise CalibrationError('messages: an image part without a file; write {"type": "image", "image": "page.png"}')
    return value


def _only(images: list[str]) -> str:
    if len(images) != 1:
        raise CalibrationError(f"messages: expected one image, found {len(images)}")
    return images[0]


def _locate(image: str, folder: Path) -> Path:
    """Find an image by its path in a row, and refuse to leave `folder`."""
    if "://" in image or image.startswith("data:"):
        raise CalibrationError(f"img_path {_shorten(image)}: expected a file beside the data; nothing is downloaded")
    path = Path(image)
    if ".." in path.parts:
        raise CalibrationError(f"img_path {_shorten(image)}: must stay in the file's folder, without '..'")
    try:
        root = folder.resolve(strict=True)
        inside = (root / path).resolve()
        if not inside.exists() and (root / "images" / path).exists():
            inside = (root / "images" / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise CalibrationError(f"img_path {_shorten(image)}: not a path that can be followed") from error
    if not inside.is_relative_to(root):
        raise CalibrationError(f"img_path {_shorten(image)}: leads outside the file's folder")
    return inside


def _open(path: Path, shown: str) -> Image:
    try:
        return load_image(path)
    except CalibrationError as error:
        raise CalibrationError(f"{_shorten(shown)}: {error}") from error


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
