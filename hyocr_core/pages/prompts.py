"""What is asked about a page, and how: the conversation that HunyuanOCR's own clients send, its official questions.

The Chinese wording of the twelve tasks is that of HunyuanOCR 1.5, `inference/utils/tasks.py` in
https://github.com/Tencent-Hunyuan/HunyuanOCR, which has them in Chinese alone and asks not to change them. The English
wording, where there is one, and both of `extraction` and `subtitles` are that of the table "Application-oriented
Prompts" of version 1.0, in the README of the same repository and on the model card.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError

SYSTEM = ""
"""The system message of pages that bring none: the official clients send an empty one."""

TASKS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "doc_parse": {
            "zh": "提取文档图片中正文的所有信息用markdown格式表示，其中页眉、页脚部分忽略，表格用html格式表达，"
            "文档中公式用latex格式表示，按照阅读顺序组织进行解析。",
            "en": "Extract all information from the main body of the document image and represent it in markdown "
            "format, ignoring headers and footers. Tables should be expressed in HTML format, formulas in the document "
            "should be represented using LaTeX format, and the parsing should be organized according to the reading "
            "order.",
        },
        "structured_parse": {"zh": "提取图中的文字。", "en": "Extract the text in the image."},
        "spotting_json": {
            "zh": "检测并识别图中所有的文字行，请按从上到下、从左到右的阅读顺序进行识别。 "
            "输出格式为 JSON 数组，每个元素必须包含："
            '"box": [xmin, ymin, xmax, ymax]（坐标需归一化到 [0, 1000] 范围内）；"text": "识别出的文字内容"。 '
            "注意：请直接输出 JSON 数组，不要包含任何多余的描述性文字。"
        },
        "spotting_hunyuan": {
            "zh": "检测并识别图片中的文字，将文本坐标格式化输出。",
            "en": "Detect and recognize text in the image, and output the text coordinates in a formatted manner.",
        },
        "layout": {"zh": "按照阅读顺序解析图中的版式信息。"},
        "layout_parse": {
            "zh": "提取文档图片中所有内容用markdown格式表示，表格用html格式表达，文档中公式用latex格式表示，"
            "请按照阅读顺序组织进行全文解析，并输出版式分析信息。"
        },
        "chart_parse": {
            "zh": "解析图中的图表，对于流程图使用Mermaid格式表示，其他图表使用Markdown格式表示。",
            "en": "Parse the chart in the image; use Mermaid format for flowcharts and Markdown for other charts.",
        },
        "formula": {
            "zh": "识别图片中的公式，用LaTeX格式表示。",
            "en": "Identify the formula in the image and represent it using LaTeX format.",
        },
        "table": {"zh": "把图中的表格解析为HTML。", "en": "Parse the table in the image into HTML."},
        "doc_trans_en2zh": {
            "zh": "先解析文档，再将文档内容翻译为中文，其中页眉、页脚忽略，公式用latex格式表示，表格用html格式表示。"
        },
        "trans_other2en": {
            "zh": "按照阅读顺序，提取图中文字，公式用latex格式表示，表格用markdown格式表示，再将文字内容翻译为英文。",
            "en": "First extract the text, then translate the text content into English. If it is a document, ignore "
            "the header and footer. Formulas should be represented in LaTeX format, and tables should be represented "
            "in HTML format.",
        },
        "trans_other2zh": {
            "zh": "按照阅读顺序，提取图中文字，公式用latex格式表示，表格用markdown格式表示，再将文字内容翻译为中文。"
        },
        "extraction": {
            "zh": "提取图片中的: {fields} 的字段内容，并按照 JSON 格式返回。",
            "en": "Extract the content of the fields: {fields} from the image and return it in JSON format.",
        },
        "subtitles": {"zh": "提取图片中的字幕。", "en": "Extract the subtitles from the image."},
    }
)
"""Task -> language of the prompt -> prompt. The first twelve are called as the clients of version 1.5 call them."""

DEFAULT_PROMPT = TASKS["doc_parse"]["zh"]
"""What those clients ask when they are told nothing."""

_FIELDS = {"zh": ("名称", "日期", "编号", "金额"), "en": ("name", "date", "number", "amount")}
"""What `extraction` asks for when it is told no fields; the official prompt leaves a gap there."""

TASK_FORMS = f"{', '.join(TASKS)}; :en asks in English, extraction=FIELD,FIELD names the fields"

Message = dict[str, Any]


def task_prompt(task: str) -> str:
    """The official prompt of `NAME[:zh|:en][=FIELD,FIELD]`, such as `table`, `table:en`, `extraction=total,date`.

    Raises CalibrationError for another name, a language that it has no wording in, and fields of a task without any.
    """
    asked, equals, fields = task.partition("=")
    name, colon, language = asked.partition(":")
    language = language if colon else "zh"
    if name not in TASKS or language not in _FIELDS:
        raise CalibrationError(f"unknown task {task!r}; give one of {TASK_FORMS}")
    if language not in TASKS[name]:
        raise CalibrationError(f"task {task!r}: the model has no official English prompt for it; leave out :en")
    if name != "extraction":
        if equals:
            raise CalibrationError(f"task {task!r}: only extraction takes fields")
        return TASKS[name][language]
    keys = [field.strip() for field in fields.split(",")] if equals else _FIELDS[language]
    if not all(keys):
        raise CalibrationError(f"task {task!r}: a field without a name; write extraction=total,date")
    return TASKS[name][language].format(fields=list(keys))


def task_name(task: str) -> str:
    """The name of a task, without its language and fields. Raises as `task_prompt`."""
    task_prompt(task)
    return task.partition("=")[0].partition(":")[0]


def with_task(records: Iterable[Record], task: str | None) -> list[Record]:
    """The records, those without a question of their own asked that of `task`; None leaves them the default one."""
    if task is None:
        return list(records)
    prompt = task_prompt(task)
    return [replace(record, question=prompt) if record.question is None else record for record in records]


def with_system(records: Sequence[Record], system: str | None) -> list[Record]:
    """The records, each with this system message; None leaves each its own, or the default one.

    Raises CalibrationError naming the first record that brings its own where there is another for all.
    """
    if system is None:
        return list(records)
    own = next((record for record in records if record.system is not None), None)
    if own is not None:
        raise CalibrationError(
            f"{own.name}: brings a system message of its own; take it out of the data, or leave out system (--system)"
        )
    return [replace(record, system=system) for record in records]


def prompt_of(record: Record) -> str:
    """The text the user's turn carries beside the image."""
    return DEFAULT_PROMPT if record.question is None else record.question


def system_of(record: Record) -> str:
    """The text of the system turn, which may be empty, but is always there."""
    return SYSTEM if record.system is None else record.system


def chat(record: Record, *, with_answer: bool) -> list[Message]:
    """The conversation about a page, as `conversation` has it."""
    answer = record.answer if with_answer else None
    return conversation(system_of(record), prompt_of(record), answer)


def conversation(system: str, question: str, answer: str | None = None) -> list[Message]:
    """The messages as the official clients write them: plain strings, and parts in the user's turn alone.

    The image always comes before the text; its part is a placeholder without pixels.
    """
    messages: list[Message] = [
        {"role": "system", "content": system},
        {"role": "user", "content": [{"type": "image"}, text_part(question)]},
    ]
    return messages if answer is None else [*messages, {"role": "assistant", "content": answer}]


def text_part(text: str) -> Message:
    """A text as a part of a message."""
    return {"type": "text", "text": text}


def for_endpoint(messages: Iterable[Mapping[str, Any]], url: str) -> list[Message]:
    """The messages in OpenAI's form, as an endpoint takes them: the image at `url`, which may be a data URL."""
    image = {"type": "image_url", "image_url": {"url": url}}
    return [
        {**message, "content": [image if part == {"type": "image"} else part for part in message["content"]]}
        if isinstance(message["content"], list)
        else dict(message)
        for message in messages
    ]
