"""What is asked about a page: the record's own question, else a default, as a chat."""

from __future__ import annotations

from typing import Any

from hyocr_core.calibration.records import Record

DEFAULT_PROMPT = "Extract the text in the image."

Message = dict[str, Any]


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
