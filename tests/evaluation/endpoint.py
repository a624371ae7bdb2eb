"""An OpenAI-compatible endpoint on loopback that answers well, badly or not at all."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

from hyocr_core.runtimes.concurrency import TEXTS

Reply = tuple[int, bytes | None]
"""HTTP status and body; no body: the connection is closed without an answer."""


WHITE = 255
"""Of a trial page, what is the number of another."""
IMPOSSIBLE = b'{"error": {"message": "repetition_penalty must be greater than zero, got -1.0."}}'


PAUSE = 0.02
"""Seconds before each piece of a stream."""


def chunk(text: str | None = None, **more: Any) -> bytes:
    """A piece of a stream as vLLM and llama.cpp send it."""
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    return b"data: " + json.dumps({"choices": choices, **more}).encode() + b"\n\n"


TOKENS = 5
STREAM = [
    chunk("", usage=None),
    *(chunk(text) for text in ("a", "b", "c")),
    chunk(usage={"prompt_tokens": 55, "completion_tokens": TOKENS}),
    b"data: [DONE]\n\n",
]
"""The first piece says who speaks, the last one how much was said."""


def colour(index: int) -> tuple[int, int, int]:
    """By which the server recognizes a page."""
    return index, 9, 200


def completion(text: str, *, tokens: int = 3, finish: str = "stop", prompt: int = 55) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


class QuietHTTPServer(ThreadingHTTPServer):
    """Says nothing about a client that has gone."""

    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        pass


class Server:
    """Answers `text N` for page N, unless `reply` says otherwise; a reply may wait.

    Trial pages, which have no colour, are answered apart from that, by `trial(which, at_once)`; which: of the lines of
    text in the order in which they are seen first.
    """

    def __init__(self) -> None:
        self.trial: Callable[[int, int], Reply] = lambda which, _at_once: (200, completion(f"{which}" * 9))
        self.trials: list[dict[str, Any]] = []
        self._lines: Counter[bytes] = Counter()
        self._met = threading.Barrier(len(TEXTS))
        self.served: Any = {"object": "list", "data": [{"id": "ocr", "object": "model"}]}
        self.reply: Callable[[int, int], Reply] = lambda page, _attempt: (200, completion(f"text {page}"))
        self.asked: Counter[int] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.retry_after: str | None = None
        self.knows_penalty = True
        self.pieces: list[bytes] | None = STREAM
        """What it streams where it is asked to; None: it answers in one piece."""
        self.streamed: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._http = QuietHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _try(self, body: dict[str, Any]) -> Reply:
        """The first time a line comes alone, the second time all of them together, and so on."""
        line = picture(body).convert("L").point(lambda value: 255 * (value > 128)).tobytes()
        with self._lock:
            self.trials.append(body)
            self._lines[line] += 1
            which, together = list(self._lines).index(line), self._lines[line] % 2 == 0
        if together:
            self._met.wait(60)
        reply = self.trial(which, len(TEXTS) if together else 1)
        if reply[0] != HTTPStatus.OK:
            # The client gives up, and its next trial begins anew.
            self._lines.clear()
        return reply

    @contextmanager
    def reading(self, noted: list[dict[str, Any]], body: dict[str, Any]) -> Iterator[tuple[int, int]]:
        """Note a request while it is answered; the page, and how often it was asked for."""
        with self._lock:
            noted.append(body)
            page = page_of(body)
            self.asked[page] += 1
            attempt = self.asked[page]
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield page, attempt
        finally:
            with self._lock:
                self.at_once -= 1

    def answer(self, body: dict[str, Any], key: str | None) -> Reply:
        """To a request that does not ask for a stream, or gets none."""
        if body.get("repetition_penalty", 1) <= 0:
            return (400, IMPOSSIBLE) if self.knows_penalty else (200, completion("."))
        if page_of(body) == WHITE:
            return self._try(body)
        self.keys.add(key)
        with self.reading(self.bodies, body) as (page, attempt):
            return self.reply(page, attempt)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                assert self.path == "/v1/models"
                server.keys.add(self.headers["Authorization"])
                self._send(200, json.dumps(server.served).encode())

            def do_POST(self) -> None:
                assert self.path == "/v1/chat/completions"
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if body.get("stream") and server.pieces is not None:
                    with server.reading(server.streamed, body):
                        self._stream(server.pieces)
                else:
                    self._send(*server.answer(body, self.headers["Authorization"]))

            def _stream(self, pieces: list[bytes]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.close_connection = True
                self.end_headers()
                for piece in pieces:
                    time.sleep(PAUSE)
                    self.wfile.write(piece)
                    self.wfile.flush()

            def _send(self, status: int, body: bytes | None) -> None:
                if body is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if server.retry_after is not None:
                    self.send_header("Retry-After", server.retry_after)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def picture(body: dict[str, Any]) -> Image.Image:
    """The one image of a request, which must be a PNG."""
    urls = [part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
    assert len(urls) == 1
    kind, _, data = urls[0].partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)), formats=["PNG"])


def page_of(body: dict[str, Any]) -> int:
    pixel = picture(body).getpixel((3, 3))
    assert isinstance(pixel, tuple)
    return int(pixel[0])
