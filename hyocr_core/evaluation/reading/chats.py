"""What an OpenAI-compatible endpoint is asked about pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyocr_core.contract.backend import ModelToRead, PageToRead
from hyocr_core.runtimes.chat_requests import chat_body
from hyocr_core.runtimes.endpoint import Completion, Endpoint


@dataclass(frozen=True)
class Chats:
    """Requests to an endpoint for pages. served: the name of the model there. further: fields of every request."""

    endpoint: Endpoint
    model: ModelToRead
    served: str
    further: Mapping[str, Any]

    def body(self, page: PageToRead) -> dict[str, Any]:
        """What is asked about a page."""
        return chat_body(self.served, page.messages, page.open_image(), self.model.room(page), self.further)

    def warning(self, page: PageToRead, found: Completion) -> str | None:
        """What to say of an answer whose prompt has another length there than here."""
        if page.prompt_tokens in (None, found.usage.prompt_tokens):
            return None
        return (
            f"warning: {page.name}: the endpoint makes {found.usage.prompt_tokens} tokens of the prompt, the "
            f"checkpoint's processor {page.prompt_tokens}: template, image processor or tokenizer are others there"
        )
