"""How ranks learn of each other's end, and of what they have made."""

from __future__ import annotations

import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

import pytest

from hyocr_core.ranks.lifeline import End, Lifeline, open_lifelines, reach_lifeline

SECONDS = 20


class Pair:
    """The first rank's lifeline, which listens, and that of rank 1. ended: who was told of an end."""

    def __init__(self) -> None:
        published: SimpleQueue[bytes] = SimpleQueue()
        found: SimpleQueue[Connection] = SimpleQueue()
        reach = threading.Thread(target=lambda: found.put(reach_lifeline("127.0.0.1", 1, published.get())), daemon=True)
        reach.start()
        ends = open_lifelines("127.0.0.1", 2, lambda _key, value: published.put(value))
        self.connection = found.get(timeout=SECONDS)
        self.ended: SimpleQueue[int] = SimpleQueue()
        self.first = Lifeline(ends, {1: "rank 1 (process 7 on a)"}, 0)
        self.other = Lifeline({0: self.connection}, {0: "rank 0 (process 6 on a)"}, 1)
        self.first.watch(lambda: self.ended.put(0))


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_what_is_posted_arrives(pair: Pair) -> None:
    pair.other.post(["page", 1])
    assert pair.first.posts.get(timeout=SECONDS) == ["page", 1]


def test_a_failure_is_told_with_its_reason(pair: Pair) -> None:
    pair.other.fail(End(2, "rank 1: no such page"))
    assert pair.ended.get(timeout=SECONDS) == 0
    assert pair.first.end == End(2, "rank 1: no such page")


def test_the_first_ends_all_without_a_word(pair: Pair) -> None:
    pair.other.watch(lambda: pair.ended.put(1))
    pair.first.close(2)
    assert pair.ended.get(timeout=SECONDS) == 1
    assert pair.other.end == End(2, "")


def test_a_death_is_seen(pair: Pair) -> None:
    pair.connection.close()
    assert pair.ended.get(timeout=SECONDS) == 0
    assert pair.first.end == End(1, "rank 1 (process 7 on a) died")


def test_who_has_left_has_not_died(pair: Pair) -> None:
    pair.other.close(None)
    pair.connection.close()
    assert not pair.first.known.wait(0.2)
    assert pair.first.end is None
