"""How to ask a server for the text of a page, as the card prints it: on a command line and in Python."""

from __future__ import annotations

import json
import shlex
import textwrap
from typing import Any

from hyocr_core.pages.prompts import DEFAULT_PROMPT, SYSTEM, conversation, for_endpoint

CURL = """\
(printf %s {before}; base64 < page.png | tr -d '\\n'; printf %s {after}) |
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d @-"""
"""The page goes through the pipe: it is too long for an argument."""

OPENAI = """\
import base64
from pathlib import Path

from openai import OpenAI

page = base64.b64encode(Path("page.png").read_bytes()).decode()
client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
answer = client.chat.completions.create(
    model={model},
    messages={messages},
    temperature=0,
    extra_body={further},
)
print(answer.choices[0].message.content)"""

_PAGE = "{page}"
"""Stands for the pixels while the request around them is written."""
_URL = f"data:image/png;base64,{_PAGE}"


def with_curl(model: str, penalty: float) -> str:
    """A request for the text of page.png. model: the name of what is served."""
    body = {"model": model, "temperature": 0, **_further(penalty), "messages": _messages()}
    before, after = json.dumps(body, ensure_ascii=False).split(_PAGE)
    return CURL.format(before=shlex.quote(before), after=shlex.quote(after))


def with_openai(model: str, penalty: float) -> str:
    """The same through OpenAI's package. Python writes texts, numbers, lists and objects as JSON does."""
    messages = textwrap.indent(json.dumps(_messages(), ensure_ascii=False, indent=4), 4 * " ").lstrip()
    messages = messages.replace(json.dumps(_URL), f"f{json.dumps(_URL)}")
    return OPENAI.format(model=json.dumps(model), messages=messages, further=json.dumps(_further(penalty)))


def _messages() -> list[dict[str, Any]]:
    return for_endpoint(conversation(SYSTEM, DEFAULT_PROMPT), _URL)


def _further(penalty: float) -> dict[str, float]:
    return {"repetition_penalty": penalty}
