"""Ranks in one process, for tests: threads that take turns, so that only one of them computes at any time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from torch import Tensor

from hyocr_core.ranks.ranks import Ranks

Item = TypeVar("Item")
Result = TypeVar("Result")


class Meeting:
    """What threads share: their turn, and what each has brought to where all meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.turn = threading.Lock()
        self.brought: list[Any] = [None] * size
        self.posts: SimpleQueue[Any] = SimpleQueue()
        self.met = threading.Barrier(size, timeout=100)

    def exchange(self, rank: int, value: Item) -> list[Item]:
        self.brought[rank] = value
        self.wait(self.met.wait)
        found = list(self.brought)
        self.wait(self.met.wait)
        return found

    def wait(self, until: Callable[[], Result]) -> Result:
        """Let the others have their turn meanwhile."""
        self.turn.release()
        try:
            return until()
        finally:
            self.turn.acquire()


class InThreads(Ranks):
    """One of them. Each is dealt every so-manieth piece, as if all were equally fast."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        self.rank, self.size, self.local_size = rank, meeting.size, meeting.size
        self._meeting = meeting

    def exchange(self, payload: bytes) -> list[bytes]:
        return self._meeting.exchange(self.rank, payload)

    def reduce(self, tensor: Tensor, rule: str) -> Tensor:
        first, *others = self._meeting.exchange(self.rank, tensor.clone())
        for other in others:
            first = first + other if rule == "sum" else torch.maximum(first, other)
        return first

    def deal(self, count: int) -> Iterator[int]:
        return iter(range(self.rank, count, self.size))

    def collected(self, items: Iterable[Item]) -> Iterator[Item]:
        if self.rank:
            for item in items:
                self._meeting.posts.put([item])
            self._meeting.posts.put([])
            return
        yield from items
        waiting = self.size - 1
        while waiting:
            found = self._meeting.wait(self._meeting.posts.get)
            yield from found
            waiting -= not found

    @contextmanager
    def working(self, ranks: int) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(threads * self.size // ranks)
        yield
        torch.set_num_threads(threads)


def in_threads(size: int, work: Callable[[Ranks], Result]) -> tuple[list[Result], list[float]]:
    """What each of so many ranks makes, and the seconds of its thread. Raises what the first that fails raises."""
    meeting = Meeting(size)
    results: dict[int, Result] = {}
    seconds: dict[int, float] = {}
    failed: list[BaseException] = []

    def run(rank: int) -> None:
        with meeting.turn:
            start = time.thread_time()
            try:
                results[rank] = work(InThreads(rank, meeting))
            except BaseException as error:
                failed.append(error)
                meeting.met.abort()
                meeting.posts.put([])
            seconds[rank] = time.thread_time() - start

    threads = [threading.Thread(target=run, args=[rank]) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [results[rank] for rank in range(size)], [seconds[rank] for rank in range(size)]
