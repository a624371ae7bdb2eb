"""Official prompts by name."""

from __future__ import annotations

import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.prompts import DEFAULT_PROMPT, TASKS, prompt_of, task_prompt, with_task
from hyocr_core.pages.sources import open_source


def record(question: str | None) -> Record:
    return Record("page", question, None, open_source("synthetic:1")[0].open_image)


def test_the_tasks_of_the_model_are_there_in_two_languages() -> None:
    assert {"parsing", "spotting", "extraction", "subtitle", "translation"} <= set(TASKS)
    prompts = [task_prompt(f"{name}:{language}") for name in TASKS for language in ("en", "zh")]
    assert len(set(prompts)) == 2 * len(TASKS)
    assert [prompt.isascii() for prompt in prompts] == [True, False] * len(TASKS)


def test_english_is_the_language_when_none_is_given() -> None:
    assert task_prompt("text") == DEFAULT_PROMPT
    assert task_prompt("parsing") == task_prompt("parsing:en")
    assert task_prompt("subtitle:zh") == "提取图片中的字幕。"
    assert task_prompt("parsing").startswith("Extract all information from the main body of the document image")


def test_extraction_takes_fields() -> None:
    wanted = "Extract the content of the fields: ['total', 'due date'] from the image and return it in JSON format."
    assert task_prompt("extraction=total, due date") == wanted
    assert task_prompt("extraction:zh=单价") == "提取图片中的: ['单价'] 的字段内容，并按照 JSON 格式返回。"
    assert "['name', 'date', 'number', 'amount']" in task_prompt("extraction")


@pytest.mark.parametrize("task", ["", "parse", "parsing:fr", "Parsing", ":zh", "parsing=total", "extraction="])
def test_an_unknown_task_is_refused(task: str) -> None:
    with pytest.raises(CalibrationError, match=r"task ") as caught:
        task_prompt(task)
    assert caught.value.exit_code == 2


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(CalibrationError, match=r"unknown task 'ocr'; give one of text, parsing, spotting, extraction"):
        task_prompt("ocr")


def test_a_question_of_its_own_stays() -> None:
    asked, silent = with_task([record("How much?"), record(None)], "spotting:zh")
    assert prompt_of(asked) == "How much?"
    assert prompt_of(silent) == TASKS["spotting"]["zh"]


def test_without_a_task_the_default_is_asked() -> None:
    (silent,) = with_task([record(None)], None)
    assert silent.question is None
    assert prompt_of(silent) == DEFAULT_PROMPT
