"""Rows in the layouts of trainers and servers say the same as a row of hyocr's own."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.sources import open_source

Picture = Callable[..., Path]

OWN = {"img_path": "page.png", "question": "Read this.", "answer": "abc", "system_prompt": "Be exact."}


def chat(
    question: Any, *, by: tuple[str, str] = ("role", "content"), roles: str = "system user assistant"
) -> list[Any]:
    texts = ("Be exact.", question, "abc")
    return [dict(zip(by, turn, strict=True)) for turn in zip(roles.split(), texts, strict=True)]


SHARE_GPT: dict[str, Any] = {"by": ("from", "value"), "roles": "system human gpt"}

LAYOUTS: dict[str, dict[str, Any]] = {
    "ms-swift": {"messages": chat("<image>Read this."), "images": ["page.png"]},
    "ms-swift, no mark": {"messages": chat("Read this."), "images": ["page.png"]},
    "ms-swift, objects": {"messages": chat("<image>\nRead this."), "images": [{"path": "page.png", "bytes": None}]},
    "ms-swift 2": {"system": "Be exact.", "query": "<image>Read this.", "response": "abc", "images": ["page.png"]},
    "LLaMA-Factory": {"messages": chat("Read this.<image>"), "images": ["page.png"], "videos": []},
    "ShareGPT": {
        "conversations": chat("<image>\nRead this.", **SHARE_GPT)[1:],
        "system": "Be exact.",
        "images": ["page.png"],
    },
    "LLaVA": {"id": "1", "image": "page.png", "conversations": chat("<image>\nRead this.", **SHARE_GPT)},
    "LLaVA, last": {"id": "1", "image": "page.png", "conversations": chat("Read this.\n<image>", **SHARE_GPT)},
    "Alpaca": {
        "instruction": "<image>Read this.",
        "input": "",
        "output": "abc",
        "system": "Be exact.",
        "images": "page.png",
        "history": [],
    },
    "TRL": {
        "messages": chat([{"type": "image"}, {"type": "text", "text": "Read this."}]),
        "images": ["page.png"],
    },
    "OpenAI": {
        "messages": chat(
            [{"type": "image_url", "image_url": {"url": "page.png"}}, {"type": "text", "text": "Read this."}]
        )
    },
    "own": OWN | {"question": "<image>\nRead this."},
    "own, last": OWN | {"question": "Read this.\n<image>\n"},
    "own, glued": OWN | {"question": "<image>Read this."},
}


def read(folder: Path, row: dict[str, Any]) -> Record:
    (folder / "data.jsonl").write_text(json.dumps(row) + "\n")
    (record,) = open_source(str(folder / "data.jsonl"))
    return record


def refused(folder: Path, row: dict[str, Any]) -> str:
    with pytest.raises(CalibrationError) as caught:
        read(folder, row)
    line = str(caught.value)
    assert line.startswith("data.jsonl:1: ")
    return line.removeprefix("data.jsonl:1: ")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_says_what_a_row_of_hyocrs_own_says(tmp_path: Path, picture: Picture, layout: str) -> None:
    picture("page.png", color="red")
    plain, record = read(tmp_path, OWN), read(tmp_path, LAYOUTS[layout])
    assert (record.question, record.answer, record.system) == (plain.question, plain.answer, plain.system)
    assert np.array_equal(np.asarray(record.open_image()), np.asarray(plain.open_image()))


def test_a_json_list_is_read_as_its_rows(tmp_path: Path, picture: Picture) -> None:
    """LLaVA and LLaMA-Factory write such files."""
    picture("page.png")
    path = tmp_path / "data.json"
    path.write_text("\ufeff" + json.dumps(list(LAYOUTS.values()), indent=2), encoding="utf-8")
    found = open_source(str(path))
    assert [record.name for record in found] == [f"data.json:{place}" for place in range(1, len(LAYOUTS) + 1)]
    assert {(record.question, record.answer, record.system) for record in found} == {("Read this.", "abc", "Be exact.")}
    for text, message in (
        ("[]", r"data\.json: no row in this file"),
        ('[{"img_path": "page.png"}, 7]', r"^data\.json:2: expected a JSON object, found a number"),
        ('[{"img_path": "page.png"},\n {]', r"data\.json: not JSON: .* at line 2 column 3"),
    ):
        path.write_text(text)
        with pytest.raises(CalibrationError, match=message):
            open_source(str(path))


@pytest.mark.parametrize(
    "question",
    [
        "What does the tag <image> do in this page?",
        "Copy the words <image> and </image>.",
        "Is there an <image>",
        "<image> is which tag?",
        "Read.\nThen copy <image> too.\nThat is all.",
        "  Read this,\n\n  as it is. ",
    ],
)
def test_a_question_stays_as_it_was_written(tmp_path: Path, question: str) -> None:
    assert read(tmp_path, OWN | {"question": question}).question == question
    marked = f"<image>\n{question}"
    assert read(tmp_path, OWN | {"question": marked}).question == question
    parts = [{"type": "image", "image": "page.png"}, {"type": "text", "text": question}]
    assert read(tmp_path, {"messages": chat(parts)}).question == question


def test_a_mark_alone_is_no_question(tmp_path: Path) -> None:
    for mark in ("<image>", "<image>\n", " <image> "):
        assert read(tmp_path, OWN | {"question": mark}).question is None
        assert read(tmp_path, {"messages": chat(mark), "images": ["page.png"]}).question is None


def test_line_breaks_are_those_of_unix_in_every_text(tmp_path: Path) -> None:
    crlf = {"question": "<image>\r\nRead\r\nthis.", "answer": "a\r\nb\rc", "system_prompt": "Be\r\nexact."}
    record = read(tmp_path, OWN | crlf)
    assert (record.question, record.answer, record.system) == ("Read\nthis.", "a\nb\rc", "Be\nexact.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (OWN | {"question": "<image>\n<image>\nRead."}, "the question has more than one mark <image>, for 1 image"),
        (OWN | {"question": 100_000 * "<image>"}, "the question has more than one mark <image>, for 1 image"),
        (OWN | {"question": "<image>\nRead.\n<image>"}, "the question has more than one mark <image>, for 1 image"),
        (
            {"messages": chat("<image><image>Read."), "images": ["page.png"]},
            "images: names 1 image, and the question has 2 marks <image>",
        ),
        (
            {"messages": chat("Look at <image> and read."), "images": ["page.png"]},
            "images: <image> is inside a sentence; the model sees the image before the text: put it first",
        ),
        ({"messages": chat("Read."), "images": ["a.png", "b.png"]}, "images: expected one image, found 2"),
        ({"messages": chat("Read."), "images": []}, "messages: expected one image, found 0"),
        (
            {"messages": chat([{"type": "image", "image": "a.png"}]), "images": ["b.png"]},
            "images: the messages name images of their own; leave one of both out",
        ),
        (
            {"messages": chat("Read."), "images": [{"bytes": "iVBOR"}]},
            'images: expected paths of images beside the file, found {"bytes": "iVBOR"}',
        ),
        ({"messages": chat("Read."), "images": ["page.png"], "videos": ["a.mp4"]}, "videos: HunyuanOCR reads images"),
        ({"image": "page.png", "conversations": "Read."}, "conversations: expected a list of objects with 'from' and"),
        (
            {"conversations": chat("Read.", by=("from", "value"), roles="human gpt human"), "image": "page.png"},
            "conversations: expected one user turn, with an optional system turn before and an optional assistant turn "
            "after it; found user, assistant, user",
        ),
        (
            {"instruction": "Read.", "output": "abc", "images": ["page.png"], "history": [["a", "b"]]},
            "history: expected one question and one answer",
        ),
        ({"instruction": "Read.", "output": "abc"}, "instruction: a row with this key names its image in images"),
        ({"question": "Read.", "images": ["page.png"]}, "images: is read beside messages, conversations, instruction"),
        ({"query": 7, "response": "abc", "images": ["page.png"]}, "query: expected text, found a number"),
        ({"query": "Read.", "response": 7, "images": ["page.png"]}, "answer: expected text, found a number"),
    ],
)
def test_what_is_not_understood_is_refused_by_its_key(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    assert refused(tmp_path, row).startswith(message)


@pytest.mark.parametrize(("named", "saved"), [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("below", ["", "images/"])
def test_an_image_is_found_however_unicode_spells_its_name(
    tmp_path: Path, picture: Picture, named: Any, saved: Any, below: str
) -> None:
    name = "Rechnungen für März/Größe é ガ.png"
    picture(below + unicodedata.normalize(saved, name), color="red")
    record = read(tmp_path, OWN | {"img_path": unicodedata.normalize(named, name)})
    assert record.open_image().getpixel((0, 0)) == (255, 0, 0)


def test_an_absolute_path_in_a_folder_that_unicode_spells_otherwise_is_inside(tmp_path: Path, picture: Picture) -> None:
    folder = unicodedata.normalize("NFD", "März")
    picture(f"{folder}/page.png", color="red")
    absolute = tmp_path / unicodedata.normalize("NFC", folder) / "page.png"
    record = read(tmp_path / folder, OWN | {"img_path": str(absolute)})
    assert record.open_image().getpixel((0, 0)) == (255, 0, 0)
