"""The layouts of rows that trainers and servers use, brought to the keys of hyocr's own: img_path, question, answer.

`messages` is OpenAI's and Hugging Face's form, with the image as a part of the user's content, or that of ms-swift and
LLaMA-Factory, with `images` beside; `conversations` is that of ShareGPT and LLaVA; `instruction` and `query` are those
of Alpaca and of ms-swift before its third version.
"""

from __future__ import annotations

import json
import re
from typing import Any

from hyocr_core.errors import CalibrationError

Row = dict[str, Any]

MARK = "<image>"
"""Where texts made for other trainers have the image. Here it is a part of its own, before the text."""

_IMAGE_KEYS = ("image", "image_url", "url", "path")
_TURNS = (["user"], ["user", "assistant"], ["system", "user"], ["system", "user", "assistant"])
_ROLES = {"human": "user", "gpt": "assistant"}
_KEYS = ("img_path", "question", "answer", "system_prompt", "messages")
_TYPO = 2  # letters: `anwser` and `image_path` are meant, `question_id` is a key of its own
_OTHER_MEDIA = ("videos", "video", "audios", "audio")
_PAIRS = {"instruction": "output", "query": "response"}
"""Key of the question -> key of the answer."""

# On a line of its own, or right at the text: in a sentence it has spaces around it.
_LEADING = re.compile(rf"\A\s*{MARK}(?:[^\S\n]*(?:\n|\Z)|(?=\S))")
_TRAILING = re.compile(rf"(?:(?:\A|\n)[^\S\n]*|(?<=\S)){MARK}\s*\Z")


def own_keys(row: Row) -> Row:
    """The row by hyocr's own keys, of which its values are not checked yet. Raises CalibrationError naming a key."""
    if "messages" in row:
        return _from_turns(row, "messages")
    if "img_path" in row:
        return _from_own(row)
    if "conversations" in row:
        return _from_turns(row, "conversations")
    for question, answer in _PAIRS.items():
        if question in row:
            return _from_pair(row, question, answer)
    return _from_own(row)


def _from_own(row: Row) -> Row:
    _check_keys(row)
    question = row.get("question")
    return row | {"question": without_mark(question)} if isinstance(question, str) else row


def _check_keys(row: Row) -> None:
    from rapidfuzz.distance import OSA

    absent = [key for key in _KEYS if key not in row]
    for key in row:
        near = [meant for meant in absent if OSA.distance(key, meant) <= _TYPO]
        if key not in _KEYS and near:
            raise CalibrationError(f"unknown key {key!r}; did you mean {near[0]!r}?")
    listed = next((key for key in ("images", "image") if key in row), None)
    if "img_path" not in row and listed is not None:
        raise CalibrationError(
            f"{listed}: is read beside messages, conversations, instruction or query; beside question and answer write "
            "img_path"
        )
    if "img_path" not in row:
        raise CalibrationError("the key 'img_path' is missing; a row needs 'img_path' or 'messages'")


def without_mark(text: str) -> str:
    """The text without the image's mark on a line before or after it; in a sentence it is a word like any other.

    Raises CalibrationError for more than one.
    """
    left = _without_one(text)
    if left != text and _without_one(left) != left:
        raise CalibrationError(f"the question has more than one mark {MARK}, for 1 image")
    return left


def _without_one(text: str) -> str:
    match = _LEADING.search(text) or _TRAILING.search(text)
    return text if match is None else text[: match.start()] + text[match.end() :]


def _from_turns(row: Row, key: str) -> Row:
    """A chat. Its images are parts of the user's content, or listed beside it, with marks in the text."""
    turns = [_turn(turn) for turn in _list(row[key], key)]
    if isinstance(row.get("system"), str) and row["system"]:
        turns = [{"role": "system", "content": row["system"]}, *turns]
    roles = [turn["role"] for turn in turns]
    if roles not in _TURNS:
        raise CalibrationError(
            f"{key}: expected one user turn, with an optional system turn before and an optional assistant turn "
            f"after it; found {', '.join(map(str, roles)) or 'none'}"
        )
    flat: Row = {}
    for turn in turns:
        texts, images = _parts(turn, key)
        if images and turn["role"] != "user":
            raise CalibrationError(f"{key}: an image in the {turn['role']}'s turn; only the user's may hold one")
        if turn["role"] == "user":
            flat |= _user(row, "".join(texts), images, key)
        else:
            flat[{"system": "system_prompt", "assistant": "answer"}[turn["role"]]] = "".join(texts)
    return flat


def _user(row: Row, text: str, images: list[str | None], key: str) -> Row:
    """images: of the parts, None for one that only marks the place."""
    listed = _listed(row)
    if listed is None:
        if None in images:
            raise CalibrationError(
                f'{key}: an image part without a file; write {{"type": "image", "image": "page.png"}}, or name it in '
                "images"
            )
        return {"question": without_mark(text), "img_path": _only(images, key)}
    name, paths = listed
    if any(images):
        raise CalibrationError(f"{name}: the {key} name images of their own; leave one of both out")
    return {"question": _marked(text, name, len(images)), "img_path": _only(paths, name)}


def _from_pair(row: Row, question: str, answer: str) -> Row:
    """One question and one answer, with images beside."""
    if row.get("history"):
        raise CalibrationError("history: expected one question and one answer; leave the turns before out")
    name, paths = _listed(row) or (None, [])
    if name is None:
        raise CalibrationError(f"{question}: a row with this key names its image in images")
    texts = [row.get(question), row.get("input") if question == "instruction" else None]
    if not all(isinstance(text, str) for text in texts if text is not None):
        raise CalibrationError(f"{question}: expected text, found {kind(row[question])}")
    asked = "\n".join(text for text in texts if text)
    flat = {"question": _marked(asked, name, 0), "img_path": _only(paths, name), "answer": row.get(answer)}
    return flat | {"system_prompt": row.get("system") or None}


def _listed(row: Row) -> tuple[str, list[str]] | None:
    """The key that names images beside a text, and their paths; None without."""
    for key in _OTHER_MEDIA:
        if row.get(key):
            raise CalibrationError(f"{key}: HunyuanOCR reads images; leave such rows out")
    name = next((key for key in ("images", "image") if row.get(key)), None)
    if name is None:
        return None
    values = row[name] if isinstance(row[name], list) else [row[name]]
    return name, [_path(value, name) for value in values]


def _path(value: object, key: str) -> str:
    path: object = value
    if isinstance(value, dict):
        path = next((value[name] for name in _IMAGE_KEYS if value.get(name)), None)
    if not isinstance(path, str):
        raise CalibrationError(f"{key}: expected paths of images beside the file, found {shorten(value)}")
    return path


def _marked(text: str, key: str, placed: int) -> str:
    """The text without the mark of its one image. placed: parts that mark it too."""
    marks = text.count(MARK) + placed
    if marks > 1:
        raise CalibrationError(f"{key}: names 1 image, and the question has {marks} marks {MARK}")
    before, mark, after = text.partition(MARK)
    if mark and before.strip() and after.strip():
        raise CalibrationError(
            f"{key}: {MARK} is inside a sentence; the model sees the image before the text: put it first"
        )
    return (before.rstrip() + after.lstrip()) if mark else text


def _turn(turn: Row) -> Row:
    """A turn by role and content, whichever way it is written."""
    names = ("from", "value") if "from" in turn else ("role", "content")
    role, content = (turn.get(name) for name in names)
    return {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": content}


def _list(turns: object, key: str) -> list[Row]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        shape = "'role' and 'content'" if key == "messages" else "'from' and 'value'"
        raise CalibrationError(f"{key}: expected a list of objects with {shape}")
    return turns


def _parts(turn: Row, key: str) -> tuple[list[str], list[str | None]]:
    """Split the content of a turn into its texts and the paths of its images, None for one that is named elsewhere."""
    content = turn["content"]
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, list):
        raise CalibrationError(
            f"{key}: the {turn['role']}'s content: expected text or a list of parts, found {kind(content)}"
        )
    texts: list[str] = []
    images: list[str | None] = []
    for part in content:
        sort = part.get("type") if isinstance(part, dict) else None
        if sort == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif sort in ("image", "image_url"):
            images.append(_image_of(part, key))
        else:
            raise CalibrationError(
                f'{key}: expected parts such as {{"type": "text", "text": "..."}} and '
                f'{{"type": "image", "image": "page.png"}}, found {shorten(part)}'
            )
    return texts, images


def _image_of(part: Row, key: str) -> str | None:
    value: object = next((part[name] for name in _IMAGE_KEYS if name in part), None)
    if isinstance(value, dict):
        value = value.get("url")
    if value is not None and not isinstance(value, str):
        raise CalibrationError(f'{key}: an image part without a file; write {{"type": "image", "image": "page.png"}}')
    return value


def _only(images: list[Any], key: str) -> str:
    if len(images) != 1:
        raise CalibrationError(f"{key}: expected one image, found {len(images)}")
    return str(images[0])


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    return {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}.get(
        type(value), "a number"
    )


def shorten(value: object) -> str:
    """A JSON value for a message."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
