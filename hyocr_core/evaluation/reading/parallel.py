"""Several pages at once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def as_done(work: Callable[[Job], Result], jobs: Iterable[Job], most: int) -> Generator[Result]:
    """Yield `work(job)` of every job in the order in which they are done, `most` at a time.

    A job is taken, in the caller's thread, when there is room for it. Raises what the work raises. An interrupted
    caller waits for no work: the threads are daemons, unlike those of an executor.
    """
    waiting: SimpleQueue[Job | None] = SimpleQueue()
    done: SimpleQueue[Future[Result]] = SimpleQueue()

    def serve() -> None:
        while (job := waiting.get()) is not None:
            future: Future[Result] = Future()
            try:
                future.set_result(work(job))
            except BaseException as error:  # raised again where it is waited for
                future.set_exception(error)
            done.put(future)

    for _ in range(most):
        Thread(target=serve, daemon=True, name="hyocr-page").start()
    pending = 0
    try:
        for job in jobs:
            waiting.put(job)
            pending += 1
            if pending == most:
                pending -= 1
                yield done.get().result()
        for _ in range(pending):
            yield done.get().result()
    finally:
        for _ in range(most):
            waiting.put(None)
