"""What a page is asked for in OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hyocr_core.pages.images import png_base64
from hyocr_core.pages.prompts import for_endpoint

if TYPE_CHECKING:
    from PIL.Image import Image


def chat_body(
    served: str, messages: Iterable[Mapping[str, Any]], image: Image, max_tokens: int, further: Mapping[str, Any]
) -> dict[str, Any]:
    """The request, greedy. further: fields that are the server's own."""
    url = f"data:image/png;base64,{png_base64(image)}"
    return {
        "model": served,
        "messages": for_endpoint(messages, url),
        "temperature": 0,
        "max_tokens": max_tokens,
        **further,
    }


def llama_fields(penalty: float, max_tokens: int) -> dict[str, Any]:
    """llama.cpp's own: the penalty on all tokens that may have been written, and nothing read off what it kept."""
    fields: dict[str, Any] = {"cache_prompt": False}
    return fields if penalty == 1 else fields | {"repeat_penalty": penalty, "repeat_last_n": max_tokens}
