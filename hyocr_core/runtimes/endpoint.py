"""A client of OpenAI-compatible endpoints, as `vllm serve` is one: which models are served, and chat with one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from time import sleep
from typing import Annotated, Any, TypeVar

import httpx2
from pydantic import BaseModel, Field, ValidationError

from hyocr_core.errors import BadInputError
from hyocr_core.outside.json_text import parse_json
from hyocr_core.runtimes.bounded_http import BoundedClient, TooLongError, reason
from hyocr_core.shown import message

RETRIES = 3
PAUSE = 1.0
"""Seconds before the first retry; twice as long before each further one."""
MOST_PAUSE = 60.0
_KEYS = ("HYOCR_API_KEY", "OPENAI_API_KEY")
_SECONDS_TO_CONNECT = 10.0
_AGAIN = frozenset({httpx2.codes.REQUEST_TIMEOUT, httpx2.codes.TOO_MANY_REQUESTS})
_WRONG = frozenset({httpx2.codes.BAD_REQUEST, httpx2.codes.UNPROCESSABLE_CONTENT})
_SECRET = frozenset({httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN})

_LAST = b"[DONE]"
"""What a stream ends with."""

Count = Annotated[int, Field(ge=0)]


class Served(BaseModel):
    """A model of the endpoint. root: where a vLLM server has it from."""

    id: str
    root: str | None = None


class _Models(BaseModel):
    data: list[Served]


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class Usage(BaseModel):
    """Tokens of the prompt, and of the answer with its end."""

    prompt_tokens: Count
    completion_tokens: Count


class Completion(BaseModel):
    """An answer of `/chat/completions`; of its choices the first counts."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: Usage

    @property
    def text(self) -> str:
        return self.choices[0].message.content

    @property
    def ended(self) -> bool:
        """Whether the model ended by itself, before the limit of tokens."""
        return self.choices[0].finish_reason == "stop"


class _Delta(BaseModel):
    content: str | None = None


class _Piece(BaseModel):
    delta: _Delta


class _Chunk(BaseModel):
    choices: list[_Piece] = []
    usage: Usage | None = None

    @property
    def writes(self) -> bool:
        """Whether it brings text."""
        return any(choice.delta.content for choice in self.choices)


@dataclass(frozen=True)
class Timed:
    """When an answer was asked for, its first text was there and it was whole, by `time.monotonic()`, and its tokens.

    first: None where the answer came in one piece.
    """

    tokens: int
    asked: float
    first: float | None
    done: float


Answer = TypeVar("Answer", Completion, _Models)
Sent = TypeVar("Sent")


class NoAnswerError(Exception):
    """The endpoint gives no answer to use; the message is one line without any secret.

    after: the seconds to wait before asking again, None if that is no use. bad_request: the endpoint says that what was
    asked is wrong.
    """

    def __init__(self, reason: str, after: float | None, *, bad_request: bool = False) -> None:
        super().__init__(message(reason))
        self.after = after
        self.bad_request = bad_request


class NoStreamError(NoAnswerError):
    """The endpoint answers in one piece, though it was asked to stream."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, None)


class LostConnectionError(NoAnswerError):
    """The connection ended before anything came back, as one does that was kept open and the server has given up."""


class Endpoint:
    """An endpoint. timeout: seconds to wait for a whole answer. Any number of threads may ask at once.

    The key comes from HYOCR_API_KEY or OPENAI_API_KEY and goes nowhere but into the header of requests to the endpoint.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url
        self._timeout = timeout
        self._key = _key()
        self._client = BoundedClient(
            timeout,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _SECONDS_TO_CONNECT)),
            # A proxy of the environment knows nothing of this machine's own servers.
            trust_env=not is_loopback(url),
        )

    def models(self) -> list[Served]:
        """What is served. Raises BadInputError of one line if the endpoint does not say; asks once."""
        try:
            return self._ask("GET", "models", _Models).data
        except NoAnswerError as error:
            raise BadInputError(f"{self.url}: {error}") from error

    def chat(self, body: dict[str, Any]) -> Completion:
        """One answer, asked for up to RETRIES times more. Raises NoAnswerError for the last attempt."""
        for pause in _pauses():
            try:
                return self._ask("POST", "chat/completions", Completion, body)
            except NoAnswerError as error:
                if error.after is None:
                    raise
                sleep(max(pause, min(error.after, MOST_PAUSE)))
        return self._ask("POST", "chat/completions", Completion, body)

    def timed(self, body: dict[str, Any], *, first_token: bool) -> Timed:
        """One answer and its times, without pauses and further attempts, unless a connection that was kept is lost.

        Raises NoAnswerError; NoStreamError where the first token is asked for and the answer comes in one piece.
        """
        try:
            return self._timed(body, first_token=first_token)
        except LostConnectionError:
            return self._timed(body, first_token=first_token)

    def _timed(self, body: dict[str, Any], *, first_token: bool) -> Timed:
        if first_token:
            return self._streamed(body)
        asked = time.monotonic()
        found = self._ask("POST", "chat/completions", Completion, body)
        return Timed(found.usage.completion_tokens, asked, None, time.monotonic())

    def _streamed(self, body: dict[str, Any]) -> Timed:
        asked_for = body | {"stream": True, "stream_options": {"include_usage": True}}
        found = self._send(lambda: self._client.streamed(f"{self.url}/chat/completions", asked_for))
        if not found.response.is_success:
            refusal = self._refusal(found.response, "POST chat/completions")
            raise NoStreamError(str(refusal)) if refusal.bad_request else refusal
        chunks = [(when, line[5:].strip()) for when, line in found.lines if line.startswith(b"data:")]
        if not chunks:
            raise NoStreamError("it answers in one piece")
        try:
            read = [(when, _Chunk.model_validate(parse_json(text))) for when, text in chunks if text != _LAST]
        except ValueError as error:
            raise NoAnswerError(f"what it streams is rubbish: {_why(error)}", None) from None
        usage = next((chunk.usage for _, chunk in reversed(read) if chunk.usage is not None), None)
        if usage is None:
            raise NoAnswerError("it streams an answer without saying how many tokens it has (usage)", None)
        first = next((when for when, chunk in read if chunk.writes), chunks[-1][0])
        return Timed(usage.completion_tokens, found.asked, first, chunks[-1][0])

    def refuses(self, body: dict[str, Any]) -> bool:
        """Whether a chat with this body is a bad request. Raises BadInputError if nothing of use comes back."""
        try:
            self.chat(body)
        except NoAnswerError as error:
            if error.bad_request:
                return True
            raise BadInputError(f"{self.url}: {error}") from error
        return False

    def _ask(self, verb: str, path: str, kind: type[Answer], body: dict[str, Any] | None = None) -> Answer:
        response = self._send(lambda: self._client.request(verb, f"{self.url}/{path}", body))
        if not response.is_success:
            raise self._refusal(response, f"{verb} {path}")
        try:
            return kind.model_validate(parse_json(response.content))
        except ValueError as error:
            raise NoAnswerError(f"what it answers to {verb} {path} is rubbish: {_why(error)}", 0) from None

    def _send(self, send: Callable[[], Sent]) -> Sent:
        try:
            return send()
        except httpx2.TimeoutException:
            raise NoAnswerError(f"it does not answer within {self._timeout:g} s", 0) from None
        except TooLongError as error:
            raise NoAnswerError(str(error), None) from None
        except httpx2.RemoteProtocolError as error:
            raise LostConnectionError(f"it cannot be reached: {self._safe(reason(error))}", 0) from None
        except httpx2.HTTPError as error:
            raise NoAnswerError(f"it cannot be reached: {self._safe(reason(error))}", 0) from None

    def _refusal(self, response: httpx2.Response, asked: str) -> NoAnswerError:
        reason = f"it answers {response.status_code} {response.reason_phrase} to {asked}"
        if response.status_code in _SECRET:
            # Such an answer may repeat the key.
            return NoAnswerError(f"{reason}; the key is taken from {' or '.join(_KEYS)}", None)
        said = self._safe(_message(response))
        again = response.is_server_error or response.status_code in _AGAIN
        wrong = response.status_code in _WRONG
        text = f"{reason}: {said}" if said else reason
        return NoAnswerError(text, _after(response) if again else None, bad_request=wrong)

    def _safe(self, text: str) -> str:
        # The key first: a line that was cut may hold a part of it.
        safe = text.replace(self._key, "***") if self._key else text
        return message(" ".join(safe.split()), 200)


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    wrong = error.errors()[0]
    return f"{'.'.join(map(str, wrong['loc']))} {wrong['msg']}"


def _pauses() -> Iterator[float]:
    return (PAUSE * 2**retry for retry in range(RETRIES))


def _key() -> str:
    for name in _KEYS:
        key = os.environ.get(name, "").strip()
        if key:
            if not (key.isascii() and key.isprintable()):
                raise BadInputError(f"{name} holds characters that no HTTP header may have")
            return key
    return ""


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine by its address."""
    host = httpx2.URL(url).host
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _after(response: httpx2.Response) -> float:
    """The seconds that `Retry-After` asks for; its form with a date counts as none."""
    try:
        return max(0.0, float(response.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _message(response: httpx2.Response) -> str:
    """What the body says went wrong, as OpenAI, vLLM and FastAPI write it."""
    try:
        body = parse_json(response.content)
    except ValueError:
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(body, dict) and key in body:
            body = body[key]
    return body if isinstance(body, str) else ""
