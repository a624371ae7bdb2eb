"""Official prompts by name, and the conversation that carries them."""

from __future__ import annotations

import hashlib

import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.prompts import (
    DEFAULT_PROMPT,
    TASKS,
    chat,
    for_endpoint,
    prompt_of,
    system_of,
    task_prompt,
    with_system,
    with_task,
)
from hyocr_core.pages.sources import open_source

CLIENTS = (
    "doc_parse",
    "structured_parse",
    "spotting_json",
    "spotting_hunyuan",
    "layout",
    "layout_parse",
    "chart_parse",
    "formula",
    "table",
    "doc_trans_en2zh",
    "trans_other2en",
    "trans_other2zh",
)
"""The names in `inference/utils/tasks.py` of HunyuanOCR 1.5, in its order."""


def record(question: str | None = None, system: str | None = None, answer: str | None = None) -> Record:
    return Record("page", question, answer, open_source("synthetic:1")[0].open_image, system)


def test_the_twelve_tasks_are_called_as_the_official_clients_call_them() -> None:
    assert tuple(TASKS)[:12] == CLIENTS
    assert set(TASKS) - set(CLIENTS) == {"extraction", "subtitles"}


def test_the_wording_is_official() -> None:
    """Character by character: the digest is that of the prompts in the official file, joined by line breaks."""
    wording = "\n".join(TASKS[name]["zh"] for name in CLIENTS)
    assert (
        hashlib.sha256(wording.encode()).hexdigest()
        == "17f7c3075df7b01b2bf687f4294f203af0a6e884fb990868fe4438601bf4044b"
    )


def test_every_task_has_its_own_wording_in_the_languages_that_it_is_published_in() -> None:
    assert {name for name in TASKS if "en" not in TASKS[name]} == {
        "spotting_json",
        "layout",
        "layout_parse",
        "doc_trans_en2zh",
        "trans_other2zh",
    }
    prompts = {name: [task_prompt(f"{name}:{language}") for language in TASKS[name]] for name in TASKS}
    assert all(not chinese.isascii() for chinese, *_ in prompts.values())
    assert all(english.isascii() for _, *rest in prompts.values() for english in rest)
    assert len({each for both in prompts.values() for each in both}) == 14 + 9


def test_the_default_is_document_parsing_in_chinese() -> None:
    assert DEFAULT_PROMPT == task_prompt("doc_parse") == task_prompt("doc_parse:zh")
    assert DEFAULT_PROMPT == (
        "提取文档图片中正文的所有信息用markdown格式表示，其中页眉、页脚部分忽略，表格用html格式表达，"
        "文档中公式用latex格式表示，按照阅读顺序组织进行解析。"
    )
    assert task_prompt("subtitles") == "提取图片中的字幕。"
    assert task_prompt("table:en") == "Parse the table in the image into HTML."


def test_extraction_takes_fields() -> None:
    wanted = "Extract the content of the fields: ['total', 'due date'] from the image and return it in JSON format."
    assert task_prompt("extraction:en=total, due date") == wanted
    assert task_prompt("extraction=单价") == "提取图片中的: ['单价'] 的字段内容，并按照 JSON 格式返回。"
    assert "['name', 'date', 'number', 'amount']" in task_prompt("extraction:en")


@pytest.mark.parametrize(
    "task", ["", "parse", "table:fr", "Table", ":zh", "table:", "table=total", "extraction=", "parsing", "layout:en"]
)
def test_an_unknown_task_is_refused(task: str) -> None:
    with pytest.raises(CalibrationError, match=r"task ") as caught:
        task_prompt(task)
    assert caught.value.exit_code == 2


def test_what_can_be_asked_is_listed() -> None:
    with pytest.raises(
        CalibrationError, match=r"unknown task 'ocr'; give one of doc_parse, structured_parse, spotting_"
    ):
        task_prompt("ocr")
    with pytest.raises(CalibrationError, match=r"'layout:en': the model has no official English prompt for it"):
        task_prompt("layout:en")


def test_a_question_of_its_own_stays() -> None:
    asked, silent = with_task([record("How much?"), record()], "spotting_hunyuan")
    assert prompt_of(asked) == "How much?"
    assert prompt_of(silent) == TASKS["spotting_hunyuan"]["zh"]


def test_without_a_task_the_default_is_asked() -> None:
    (silent,) = with_task([record()], None)
    assert silent.question is None
    assert prompt_of(silent) == DEFAULT_PROMPT


def test_a_system_message_is_for_all_or_of_the_page() -> None:
    assert [system_of(each) for each in with_system([record(), record(system="Be exact.")], None)] == ["", "Be exact."]
    assert [system_of(each) for each in with_system([record(), record("Read.")], "Be quick.")] == ["Be quick."] * 2


@pytest.mark.parametrize("own", ["Be exact.", ""])
def test_a_system_message_beside_those_of_the_pages_is_refused(own: str) -> None:
    with pytest.raises(
        CalibrationError, match=r"^page: brings a system message of its own; take it out of the data, or"
    ):
        with_system([record(), record(system=own)], "Be quick.")


def test_the_conversation_is_that_of_the_official_clients() -> None:
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": DEFAULT_PROMPT}]}
    assert chat(record(answer="abc"), with_answer=False) == [{"role": "system", "content": ""}, user]
    assert chat(record(answer="abc", system="Be exact."), with_answer=True) == [
        {"role": "system", "content": "Be exact."},
        user,
        {"role": "assistant", "content": "abc"},
    ]


def test_an_endpoint_is_sent_the_pixels_in_the_place_of_the_image() -> None:
    assert for_endpoint(chat(record("Read."), with_answer=False), "data:image/png;base64,AA==") == [
        {"role": "system", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "text", "text": "Read."},
            ],
        },
    ]
