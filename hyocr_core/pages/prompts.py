"""What is asked about a page, as a chat: the record's own question, else the official prompt of a task.

The English wording is that of the table "Application-oriented Prompts" in the README of
https://github.com/Tencent-Hunyuan/HunyuanOCR, which is also the model card of tencent/HunyuanOCR v1.0. The Chinese
wording is that of HunyuanOCR 1.5, `inference/utils/tasks.py` in the same repository, which asks not to change it;
for subtitles and fields, which that file lacks, it is the table's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError

DEFAULT_PROMPT = "Extract the text in the image."

TASKS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "text": {"en": DEFAULT_PROMPT, "zh": "提取图中的文字。"},
        "parsing": {
            "en": "Extract all information from the main body of the document image and represent it in markdown "
            "format, ignoring headers and footers. Tables should be expressed in HTML format, formulas in the document "
            "should be represented using LaTeX format, and the parsing should be organized according to the reading "
            "order.",
            "zh": "提取文档图片中正文的所有信息用markdown格式表示，其中页眉、页脚部分忽略，表格用html格式表达，"
            "文档中公式用latex格式表示，按照阅读顺序组织进行解析。",
        },
        "spotting": {
            "en": "Detect and recognize text in the image, and output the text coordinates in a formatted manner.",
            "zh": "检测并识别图片中的文字，将文本坐标格式化输出。",
        },
        "extraction": {
            "en": "Extract the content of the fields: {fields} from the image and return it in JSON format.",
            "zh": "提取图片中的: {fields} 的字段内容，并按照 JSON 格式返回。",
        },
        "subtitle": {"en": "Extract the subtitles from the image.", "zh": "提取图片中的字幕。"},
        "translation": {
            "en": "First extract the text, then translate the text content into English. If it is a document, ignore "
            "the header and footer. Formulas should be represented in LaTeX format, and tables should be represented "
            "in HTML format.",
            "zh": "按照阅读顺序，提取图中文字，公式用latex格式表示，表格用markdown格式表示，再将文字内容翻译为英文。",
        },
    }
)
"""Task -> language of the prompt -> prompt. Both translate into English."""

_FIELDS = {"en": ("name", "date", "number", "amount"), "zh": ("名称", "日期", "编号", "金额")}
"""What `extraction` asks for when it is told no fields; the official prompt leaves a gap there."""

TASK_FORMS = f"{', '.join(TASKS)}, each with :zh for Chinese; extraction=FIELD,FIELD names the fields"

Message = dict[str, Any]


def task_prompt(task: str) -> str:
    """The official prompt of `NAME[:en|:zh][=FIELD,FIELD]`, such as `parsing`, `parsing:zh`, `extraction=total,date`.

    Raises CalibrationError for another name or language, and for fields of a task that takes none.
    """
    asked, equals, fields = task.partition("=")
    name, _, language = asked.partition(":")
    language = language or "en"
    if name not in TASKS or language not in TASKS[name]:
        raise CalibrationError(f"unknown task {task!r}; give one of {TASK_FORMS}")
    if name != "extraction":
        if equals:
            raise CalibrationError(f"task {task!r}: only extraction takes fields")
        return TASKS[name][language]
    keys = [field.strip() for field in fields.split(",")] if equals else _FIELDS[language]
    if not all(keys):
        raise CalibrationError(f"task {task!r}: a field without a name; write extraction=total,date")
    return TASKS[name][language].format(fields=list(keys))


def with_task(records: Iterable[Record], task: str | None) -> list[Record]:
    """The records, those without a question of their own asked that of `task`; None leaves them the default one."""
    if task is None:
        return list(records)
    prompt = task_prompt(task)
    return [replace(record, question=prompt) if record.question is None else record for record in records]


def prompt_of(record: Record) -> str:
    """The text the user's turn carries beside the image."""
    return DEFAULT_PROMPT if record.question is None else record.question


def chat(record: Record, *, with_answer: bool) -> list[Message]:
    """The conversation about a page, in the form every chat template takes.

    The image always comes before the text, as in the official prompts; its part is a placeholder without pixels.
    """
    messages: list[Message] = []
    if record.system is not None:
        messages.append({"role": "system", "content": [_text(record.system)]})
    messages.append({"role": "user", "content": [{"type": "image"}, _text(prompt_of(record))]})
    if with_answer and record.answer is not None:
        messages.append({"role": "assistant", "content": [_text(record.answer)]})
    return messages


def _text(text: str) -> Message:
    return {"type": "text", "text": text}
