"""Runtimes that are kept ready while their speed is measured: vLLM in a process, and endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from hyocr_core.contract.backend import PageToRead, Serving, TimedAnswer
from hyocr_core.errors import BadInputError, RunError
from hyocr_core.evaluation.reading.parallel import as_done
from hyocr_core.runtimes.endpoint import Endpoint, NoAnswerError, NoStreamError
from hyocr_core.runtimes.vllm_process import VllmProcess, VllmRequest


class _Asks(Protocol):
    def __call__(self, page: PageToRead, *, timed: bool) -> VllmRequest: ...


class VllmServing(Serving):
    """A running vLLM. request: what it is asked about a page."""

    def __init__(self, vllm: VllmProcess, request: _Asks, *, first_token: bool) -> None:
        self._vllm = vllm
        self._request = request
        self._first_token = first_token

    @property
    def processes(self) -> Sequence[int]:
        return (self._vllm.number,)

    def read(self, pages: Sequence[PageToRead], at_once: int) -> Iterator[TimedAnswer]:
        requests = [self._request(page, timed=True) for page in pages]
        for answer in self._vllm.timed(requests, at_once):
            if answer.times is None:
                raise RunError(f"vLLM: {pages[answer.number].name}: it does not say when it answered")
            asked, first, done = answer.times
            number = pages[answer.number].index
            yield TimedAnswer(number, len(answer.tokens), asked, first if self._first_token else None, done)


class EndpointServing(Serving):
    """An endpoint. body: what it is asked about a page. processes: those that serve it, if they are known."""

    def __init__(
        self,
        endpoint: Endpoint,
        body: Callable[[PageToRead], dict[str, Any]],
        processes: Sequence[int],
        *,
        first_token: bool,
    ) -> None:
        self._endpoint = endpoint
        self._body = body
        self._processes = processes
        self._first_token = first_token

    @property
    def processes(self) -> Sequence[int]:
        return self._processes

    def read(self, pages: Sequence[PageToRead], at_once: int) -> Iterator[TimedAnswer]:
        asked = [(page, self._body(page)) for page in pages]
        yield from as_done(self._ask, asked, at_once)

    def _ask(self, asked: tuple[PageToRead, dict[str, Any]]) -> TimedAnswer:
        page, body = asked
        try:
            found = self._endpoint.timed(body, first_token=self._first_token)
        except NoStreamError as error:
            raise BadInputError(
                f"{self._endpoint.url}: {error}: it does not stream, which the time to the first token is measured by; "
                "give --no-first-token"
            ) from error
        except NoAnswerError as error:
            raise RunError(f"{self._endpoint.url}: {page.name}: {error}") from error
        return TimedAnswer(page.index, found.tokens, found.asked, found.first, found.done)
