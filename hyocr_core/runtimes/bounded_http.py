"""An HTTP client whose every answer ends: within a time for the whole of it, and a number of bytes when unpacked.

The timeouts of a synchronous client hold for each read alone, so that a server which sends a byte now and then is
waited for without end; a task of an event loop can be ended wherever it waits.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from threading import Thread
from typing import Any

import httpx2

MOST_BYTES = 1 << 24
"""Of an answer, unpacked; the longest text that models write is some hundred thousand."""


class TooLongError(httpx2.HTTPError):
    """An answer has more than MOST_BYTES."""


@dataclass(frozen=True)
class Streamed:
    """An answer that came in lines: each with the `time.monotonic()` at which it was whole. asked: when it was."""

    response: httpx2.Response
    asked: float
    lines: list[tuple[float, bytes]]


class BoundedClient:
    """A client that any number of threads may use at once.

    seconds: for an answer, from the connection to the last byte. options: as of `httpx2.AsyncClient`.
    """

    def __init__(self, seconds: float, **options: Any) -> None:
        self._seconds = seconds
        self._client = httpx2.AsyncClient(**options)

    def request(self, verb: str, url: str, body: Any) -> httpx2.Response:
        """Ask, with `body` as JSON unless it is None, and wait for the whole answer.

        Raises httpx2.HTTPError: TimeoutException for one that is not there in time, TooLongError for one too long.
        """
        return asyncio.run_coroutine_threadsafe(self._request(verb, url, body), _loop()).result()

    async def _request(self, verb: str, url: str, body: Any) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._seconds), self._client.stream(verb, url, json=body) as response:
                return _whole(response, await _read(response))
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the answer is not whole") from error

    def streamed(self, url: str, body: Any) -> Streamed:
        """Post `body` as JSON, and note when each line of the answer came until it is whole. Raises as `request`."""
        return asyncio.run_coroutine_threadsafe(self._streamed(url, body), _loop()).result()

    async def _streamed(self, url: str, body: Any) -> Streamed:
        asked, lines, rest = time.monotonic(), list[tuple[float, bytes]](), b""
        try:
            async with asyncio.timeout(self._seconds), self._client.stream("POST", url, json=body) as response:
                async for piece in _pieces(response):
                    *whole, rest = (rest + piece).split(b"\n")
                    lines += [(time.monotonic(), line) for line in whole]
                return Streamed(_whole(response, b"\n".join([*(line for _, line in lines), rest])), asked, lines)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the answer is not whole") from error


def reason(error: BaseException) -> str:
    """What stopped a request: what the system said of a connection, else the client's own words."""
    said = str(error) or type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__ or cause.__context__
    return said


async def _read(response: httpx2.Response) -> bytes:
    """The body."""
    return b"".join([piece async for piece in _pieces(response)])


async def _pieces(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body as it comes; it is unpacked a piece at a time, so that a small one cannot fill the memory."""
    count = 0
    async for piece in response.aiter_bytes():
        count += len(piece)
        if count > MOST_BYTES:
            raise TooLongError(f"it answers with more than {MOST_BYTES:,} bytes")
        yield piece


def _whole(response: httpx2.Response, content: bytes) -> httpx2.Response:
    """The same answer with its body, which is not packed any more."""
    packed = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in packed]
    return httpx2.Response(response.status_code, headers=headers, content=content, extensions=response.extensions)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all clients, in a thread that ends with the process."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True, name="hyocr-http").start()
    return loop
