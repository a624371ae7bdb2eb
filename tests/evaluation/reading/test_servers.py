"""`hyocr eval` through several endpoints of one model, of which some fail."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evaluation.asking import COUNT, error, run, unwrapped
from tests.evaluation.endpoint import Reply, Server, completion

TEXTS = [f"text {index}" for index in range(COUNT)]


@pytest.fixture
def other() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def read_with(servers: list[str], folder: Path, *arguments: object) -> tuple[int, list[str], str]:
    """Exit code, texts and what was said."""
    result = run("ocr", "--backend", ",".join(servers), "--data", folder, "--keep-duplicates", "--json", *arguments)
    texts = [page["text"] for page in json.loads(result.stdout)["pages"]] if result.stdout else []
    return result.exit_code, texts, unwrapped(result) if result.exit_code == 0 else error(result)


def nobody() -> str:
    """The URL of a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_pages_are_shared(server: Server, other: Server, folder: Path) -> None:
    """Each server answers only once both are asked."""
    both = threading.Barrier(2)

    def reply(page: int, _attempt: int) -> Reply:
        both.wait(20)
        return 200, completion(f"text {page}")

    server.reply = other.reply = reply
    code, texts, said = read_with([server.url, other.url], folder, "--batch-size", 1)
    assert (code, texts) == (0, TEXTS), said
    assert sum(server.asked.values()) == sum(other.asked.values()) == COUNT // 2


def test_the_pages_of_one_that_fails_go_to_the_other_and_it_is_named_once(
    server: Server, other: Server, folder: Path
) -> None:
    def reply(_page: int, _attempt: int) -> Reply:
        other.served = {}
        return 500, None

    other.reply = reply
    code, texts, said = read_with([server.url, other.url], folder)
    assert (code, texts) == (0, TEXTS), said
    assert said.count(f"warning: {other.url}: it cannot be reached") == 1
    assert said.count("the other servers read its pages") == 1
    assert sum(server.asked.values()) == COUNT


def test_one_that_is_not_there_is_left_out(server: Server, folder: Path) -> None:
    code, texts, said = read_with([nobody(), server.url], folder)
    assert (code, texts) == (0, TEXTS)
    assert said.count("it cannot be reached") == said.count("the other servers read its pages") == 1


def test_a_page_that_one_server_cannot_read_does_not_end_the_server(
    server: Server, other: Server, folder: Path
) -> None:
    """Nobody reads page 1: both are asked for it, and go on."""
    server.reply = other.reply = lambda page, _: (500, b"") if page == 1 else (200, completion(f"text {page}"))
    code, texts, said = read_with([server.url, other.url], folder)
    assert (code, texts) == (1, [*TEXTS[:1], *TEXTS[2:]])
    assert f"1 of {COUNT} pages were not read, the first is 1.png: " in said
    assert server.asked[1] == other.asked[1] == 4


def test_all_failing_fails(server: Server, other: Server, folder: Path) -> None:
    server.reply = other.reply = lambda _page, _attempt: (500, None)
    code, _, said = read_with([server.url, other.url], folder)
    assert code == 1
    assert f"none of {COUNT} pages could be read; 0.png: http://127.0.0.1:" in said


def test_none_that_answers_is_refused(folder: Path) -> None:
    code, _, said = read_with([nobody(), nobody()], folder)
    assert code == 2
    assert "it cannot be reached" in said


def test_servers_of_different_models_are_refused(server: Server, other: Server, folder: Path) -> None:
    other.served = {"object": "list", "data": [{"id": "another", "object": "model"}]}
    code, _, said = read_with([server.url, other.url], folder)
    assert code == 2
    assert f"{other.url} does not serve ocr; it serves another" in said


def test_a_server_that_stands_there_twice_is_refused(server: Server, folder: Path) -> None:
    code, _, said = read_with([server.url, f"{server.url}/"], folder)
    assert (code, said) == (2, f"hyocr: error: backend {server.url}: stands there twice; give each server once")


def test_a_baseline_on_one_of_the_servers_is_refused(server: Server, other: Server, folder: Path) -> None:
    arguments = ("--baseline", "ocr", "--baseline-backend", other.url)
    code, _, said = read_with([server.url, other.url], folder, *arguments)
    assert code == 2
    assert f"model and baseline are both ocr at {other.url}" in said
