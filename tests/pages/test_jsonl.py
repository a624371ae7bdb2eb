"""Rows of a JSONL file, good and bad."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.sources import open_source

Picture = Callable[..., Path]
GOOD = {"img_path": "page.png", "question": "Read.", "answer": "abc"}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


IMAGE = {"type": "image", "image": "page.png"}


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def read(folder: Path, *rows: Any) -> list[Record]:
    path = folder / "data.jsonl"
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return open_source(str(path))


def refused(folder: Path, row: Any) -> str:
    """The message for a bad second row."""
    with pytest.raises(CalibrationError) as caught:
        read(folder, GOOD, row)
    message = str(caught.value)
    assert message.startswith("data.jsonl:2: ")
    assert "\n" not in message
    return message


def test_flat_rows(tmp_path: Path, picture: Picture) -> None:
    picture("page.png", color="blue")
    extra = {"id": 7, "meta": [1], "system_prompt": "Be exact."}
    bare, full = read(tmp_path, {"img_path": "page.png"}, GOOD | extra)
    assert (bare.name, bare.question, bare.answer, bare.system) == ("data.jsonl:1", None, None, None)
    assert (full.name, full.question, full.answer, full.system) == ("data.jsonl:2", "Read.", "abc", "Be exact.")
    assert full.open_image().getpixel((0, 0)) == (0, 0, 255)


def test_texts_survive_exactly_but_for_line_breaks(tmp_path: Path) -> None:
    answer = " 表格\t½ \r\n e\u0301 \n\r"
    assert read(tmp_path, GOOD | {"answer": answer})[0].answer == answer.replace("\r\n", "\n")
    assert read(tmp_path, GOOD | {"answer": ""})[0].answer == ""


def test_an_empty_question_is_none_and_the_mark_of_the_image_is_dropped(tmp_path: Path) -> None:
    empty, marked = read(tmp_path, GOOD | {"question": ""}, GOOD | {"question": "<image>\nRead this."})
    assert empty.question is None
    assert marked.question == "Read this."


def test_blank_lines_keep_the_numbering_and_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    found = read(tmp_path, b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), b"", b"  \r", GOOD)
    assert [record.name for record in found] == ["data.jsonl:1", "data.jsonl:4"]


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image", "image": "page.png"},
        {"type": "image", "url": "page.png"},
        {"type": "image", "path": "page.png"},
        {"type": "image_url", "image_url": {"url": "page.png"}},
        {"type": "image_url", "image_url": "page.png"},
    ],
)
def test_chats_in_the_forms_in_use(tmp_path: Path, picture: Picture, image: dict[str, Any]) -> None:
    picture("page.png")
    messages = [
        {"role": "system", "content": "Be exact."},
        user(image, text("Read "), text("this.")),
        {"role": "assistant", "content": [text("abc")]},
    ]
    (record,) = read(tmp_path, {"messages": messages})
    assert (record.system, record.question, record.answer) == ("Be exact.", "Read this.", "abc")
    assert record.open_image().size == (64, 32)


def test_a_chat_needs_neither_text_nor_answer(tmp_path: Path) -> None:
    (record,) = read(tmp_path, {"messages": [user(IMAGE)]})
    assert (record.system, record.question, record.answer) == (None, None, None)


def test_images_may_lie_in_the_folder_images(tmp_path: Path, picture: Picture) -> None:
    picture("images/sub/page.png", color="red")
    (record,) = read(tmp_path, {"img_path": "sub/page.png"})
    assert record.open_image().getpixel((0, 0)) == (255, 0, 0)


def test_an_absolute_path_inside_the_folder_is_taken(tmp_path: Path, picture: Picture) -> None:
    path = picture("pages/page.png", color="red")
    (record,) = read(tmp_path, {"img_path": str(path.absolute())})
    assert record.open_image().getpixel((0, 0)) == (255, 0, 0)


def test_an_absolute_path_to_the_folder_beside_is_not(tmp_path: Path, picture: Picture) -> None:
    path = picture("data-beside/page.png")
    (tmp_path / "data").mkdir()
    assert "leads outside the file's folder" in refused(tmp_path / "data", {"img_path": str(path)})


def test_a_missing_image_shows_when_it_is_opened(tmp_path: Path) -> None:
    (record,) = read(tmp_path, GOOD)
    with pytest.raises(CalibrationError, match=r"^page\.png: no such file$"):
        record.open_image()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{'img_path': 1}", "not JSON: key must be a string at column 2"),
        (b'{"img_path": "a.png"', "not JSON: EOF while parsing an object at column 20"),
        (b'{"img_path": "\xff"}', "not UTF-8 (byte 14 of the line)"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"img_path": ' + b"1" * 5000 + b"}", "a number is too long"),
        ([GOOD], "expected a JSON object, found a list"),
        ("text", "expected a JSON object, found text"),
        (None, "expected a JSON object, found null"),
        ({}, "'img_path' is missing"),
        ({"question": "Read."}, "'img_path' is missing"),
        ({"img_path": None}, "img_path: expected text, found null"),
        ({"img_path": ""}, "img_path is empty"),
        ({"img_path": 3}, "img_path: expected text, found a number"),
        (GOOD | {"answer": ["abc"]}, "answer: expected text, found a list"),
        (GOOD | {"question": True}, "question: expected text, found true or false"),
        (GOOD | {"system_prompt": {}}, "system_prompt: expected text, found an object"),
        (GOOD | {"answer": "\ud800"}, "not JSON: half a character"),
        ({"image_path": "a.png"}, "unknown key 'image_path'; did you mean 'img_path'?"),
        ({"img_path": "a.png", "anwser": "x"}, "unknown key 'anwser'; did you mean 'answer'?"),
        ({"message": []}, "unknown key 'message'; did you mean 'messages'?"),
        ({"messages": "hello"}, "messages: expected a list of objects"),
        ({"messages": ["hello"]}, "messages: expected a list of objects"),
        ({"messages": []}, "expected one user turn"),
        ({"messages": [user(IMAGE), user(IMAGE)]}, "found user, user"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "found ['user']"),
        ({"messages": [{"content": "x"}]}, "found None"),
        ({"messages": [user(text("Read."))]}, "expected one image, found 0"),
        ({"messages": [{"role": "user", "content": "Read."}]}, "expected one image, found 0"),
        ({"messages": [user(IMAGE, IMAGE)]}, "expected one image, found 2"),
        ({"messages": [{"role": "system", "content": [IMAGE]}, user(IMAGE)]}, "an image in the system's turn"),
        ({"messages": [{"role": "user", "content": None}]}, "the user's content: expected text or a list of parts"),
        ({"messages": [user(IMAGE, {"type": "video", "video": "a.mp4"})]}, 'found {"type": "video"'),
        ({"messages": [user(IMAGE, {"type": "text", "text": 5})]}, 'found {"type": "text", "text": 5}'),
        ({"messages": [user("Read.", IMAGE)]}, "found Read."),
        ({"messages": [user({"type": "image"})]}, "an image part without a file"),
        ({"messages": [user({"type": "image_url", "image_url": {"detail": "low"}})]}, "an image part without a file"),
        ({"img_path": "https://example.com/a.png"}, "nothing is downloaded"),
        ({"img_path": "file:///etc/a.png"}, "nothing is downloaded"),
        ({"img_path": "data:image/png;base64," + "A" * 9999}, "nothing is downloaded"),
        ({"img_path": "/etc/a.png"}, "leads outside the file's folder"),
        ({"img_path": "../a.png"}, "must stay in the file's folder, without '..'"),
        ({"img_path": "images/../../a.png"}, "must stay in the file's folder, without '..'"),
        ({"img_path": "a\0.png"}, "not a path that can be followed"),
        ({"img_path": "a" * 5000 + ".png"}, "not a path that can be followed"),
    ],
)
def test_a_bad_row_is_named_with_its_reason(tmp_path: Path, row: Any, reason: str) -> None:
    message = refused(tmp_path, row)
    assert reason in message
    assert len(message) < 300


@pytest.mark.parametrize("key", ["id", "question_id", "source", "prompt", "width"])
def test_other_keys_are_ignored(tmp_path: Path, key: str) -> None:
    assert len(read(tmp_path, GOOD | {key: 1})) == 1


@pytest.mark.parametrize("content", [b"", b"\n \n\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(CalibrationError, match=r"data\.jsonl: no row in this file"):
        open_source(str(tmp_path / "data.jsonl"))


@pytest.mark.parametrize("as_folder", [False, True], ids=["linked file", "linked folder"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, picture: Picture, as_folder: bool) -> None:
    outside = picture("outside/page.png")
    data = tmp_path / "data"
    data.mkdir()
    (data / "link").symlink_to(outside.parent if as_folder else outside, target_is_directory=as_folder)
    message = refused(data, {"img_path": "link/page.png" if as_folder else "link"})
    assert "leads outside the file's folder" in message


def test_a_link_that_leaves_by_the_folder_images_is_refused(tmp_path: Path, picture: Picture) -> None:
    outside = picture("outside/sub.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(outside.parent, target_is_directory=True)
    assert "leads outside" in refused(tmp_path / "data", {"img_path": "sub.png"})


def test_a_link_within_the_folder_is_followed(tmp_path: Path, picture: Picture) -> None:
    picture("real/page.png")
    (tmp_path / "page.png").symlink_to("real/page.png")
    assert read(tmp_path, GOOD)[0].open_image().size == (64, 32)


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert re.search("not a path that can be followed", refused(tmp_path, {"img_path": "a.png"}))


def test_a_data_folder_that_is_itself_a_link_is_used(tmp_path: Path, picture: Picture) -> None:
    picture("real/page.png")
    (tmp_path / "linked").symlink_to("real", target_is_directory=True)
    assert read(tmp_path / "linked", GOOD)[0].open_image().size == (64, 32)
