"""Endpoints whose answers never end, or unpack to more than there is memory for: one line, soon."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import pytest

from hyocr_core.errors import BadInputError
from hyocr_core.runtimes import endpoint
from hyocr_core.runtimes.endpoint import Endpoint, NoAnswerError
from tests.evaluation.asking import error, run
from tests.evaluation.endpoint import completion

HEAD = b"HTTP/1.1 200 OK\r\n"
SECONDS = 0.5


class RawServer:
    """Sends the same pieces to whoever connects, `pause` seconds apart, until the client has gone."""

    def __init__(self, pieces: Callable[[], Iterator[bytes]], pause: float = 0.0) -> None:
        self._pieces, self._pause = pieces, pause
        self.sent = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._send, args=(connection,), daemon=True).start()

    def _send(self, connection: socket.socket) -> None:
        with connection:
            connection.recv(1 << 16)
            try:
                for piece in self._pieces():
                    connection.sendall(piece)
                    self.sent += len(piece)
                    time.sleep(self._pause)
            except OSError:
                return


Serve = Callable[..., RawServer]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts servers; nothing is waited for between attempts."""
    monkeypatch.setattr(endpoint, "PAUSE", 0.0)
    started: list[RawServer] = []

    def start(pieces: Callable[[], Iterator[bytes]], pause: float = 0.0) -> RawServer:
        started.append(RawServer(pieces, pause))
        return started[-1]

    yield start
    for server in started:
        server.close()


def single(data: bytes) -> Iterator[bytes]:
    return (data[place : place + 1] for place in range(len(data)))


def dripping_body() -> Iterator[bytes]:
    yield HEAD + b"Content-Length: 999999\r\n\r\n"
    yield from repeat(b" ")


def dripping_head() -> Iterator[bytes]:
    yield HEAD
    yield from single(b"".join(b"X-%d: y\r\n" % number for number in range(99999)))


def informing() -> Iterator[bytes]:
    """Says over and over that it has received the request."""
    yield from repeat(b"HTTP/1.1 102 Processing\r\n\r\n")


@pytest.mark.parametrize("pieces", [dripping_body, dripping_head, informing])
def test_what_drips_is_given_up_after_the_time_for_all_of_it(
    pieces: Callable[[], Iterator[bytes]], serve: Serve
) -> None:
    """Each byte comes in time, if each were waited for alone."""
    asked = Endpoint(serve(pieces, 0.05).url, SECONDS)
    with pytest.raises(BadInputError, match=r"it does not answer within 0\.5 s"):
        asked.models()


def test_an_answer_that_comes_in_pieces_is_taken(serve: Serve) -> None:
    body = completion("text")
    server = serve(lambda: single(HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)), 0.0005)
    assert Endpoint(server.url, 30).chat({}).text == "text"


def endless() -> Iterator[bytes]:
    yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    yield from repeat(b"10000\r\n" + b" " * 65536 + b"\r\n")


def packed(data: bytes, coding: str) -> Iterator[bytes]:
    yield HEAD + f"Content-Encoding: {coding}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def bomb(times: int, layers: int = 1) -> bytes:
    """So many MiB of spaces in gzip, packed again where it is to have more layers."""
    packing = zlib.compressobj(9, wbits=31)
    data = b"".join([*(packing.compress(b" " * (1 << 20)) for _ in range(times)), packing.flush()])
    for _ in range(layers - 1):
        data = gzip.compress(data)
    return data


def test_a_body_without_end_is_given_up_after_the_bytes_of_an_answer(serve: Serve) -> None:
    server = serve(endless)
    with pytest.raises(NoAnswerError, match=r"^it answers with more than 16,777,216 bytes$") as caught:
        Endpoint(server.url, 60).chat({})
    assert caught.value.after is None, "asking again would bring the same"
    assert server.sent < 1 << 27


@pytest.mark.parametrize(("layers", "coding"), [(1, "gzip"), (2, "gzip, gzip")])
def test_a_bomb_is_not_unpacked(layers: int, coding: str, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb(1024, layers)
    assert len(data) < 1 << 21
    server = serve(lambda: packed(data, coding))
    with pytest.raises(NoAnswerError, match=r"^it answers with more than 16,777,216 bytes$"):
        Endpoint(server.url, 60).chat({})


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, deflate"])
def test_a_packed_answer_is_taken(coding: str, serve: Serve) -> None:
    data = completion("text \u65e5")
    for each in coding.split(", "):
        data = gzip.compress(data) if each == "gzip" else zlib.compress(data)
    assert Endpoint(serve(lambda: packed(data, coding)).url, 30).chat({}).text == "text \u65e5"


def test_what_is_no_gzip_is_one_line(serve: Serve) -> None:
    with pytest.raises(NoAnswerError, match="it cannot be reached: Error -3 while decompressing"):
        Endpoint(serve(lambda: packed(b"hello", "gzip")).url, 30).chat({})


@pytest.mark.parametrize(
    ("pieces", "pause", "seconds", "words"),
    [
        (endless, 0.0, 60, "it answers with more than 16,777,216 bytes"),
        (dripping_head, 0.05, SECONDS, "it does not answer within 0.5 s"),
    ],
)
def test_the_command_ends_in_one_line(
    pieces: Callable[[], Iterator[bytes]], pause: float, seconds: float, words: str, serve: Serve, folder: Path
) -> None:
    server = serve(pieces, pause)
    result = run("ocr", "--backend", server.url, "--data", folder, "--timeout", seconds)
    assert result.exit_code == 2
    assert f"{server.url}: {words}" in error(result)
