"""Pages read through an OpenAI-compatible endpoint, several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyocr_core.contract.backend import ModelToRead, PageAnswer, PageToRead
from hyocr_core.evaluation.reading.parallel import as_done
from hyocr_core.runtimes.chat_requests import chat_body
from hyocr_core.runtimes.endpoint import Completion, Endpoint, NoAnswerError


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

    def read(self, pages: Sequence[PageToRead], at_once: int, say: Callable[[str], None]) -> Iterator[PageAnswer]:
        """As `Backend.read`."""
        asked = ((page, self.body(page)) for page in pages)
        warned = False
        for page, found in as_done(lambda ask: (ask[0], self._ask(ask[1])), asked, at_once):
            if isinstance(found, str):
                yield PageAnswer(page.index, None, reason=found)
            else:
                warned = warned or _warn(page, found, say)
                yield PageAnswer(page.index, found.text, found.usage.completion_tokens, ended=found.ended)

    def _ask(self, body: dict[str, Any]) -> Completion | str:
        try:
            return self.endpoint.chat(body)
        except NoAnswerError as error:
            return f"{self.endpoint.url}: {error}"


def _warn(page: PageToRead, found: Completion, say: Callable[[str], None]) -> bool:
    """Whether the prompt has another length there than here, which is worth one line."""
    if page.prompt_tokens in (None, found.usage.prompt_tokens):
        return False
    say(
        f"warning: {page.name}: the endpoint makes {found.usage.prompt_tokens} tokens of the prompt, the "
        f"checkpoint's processor {page.prompt_tokens}: template, image processor or tokenizer are others there"
    )
    return True
