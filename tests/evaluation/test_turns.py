"""In which order checkpoints are loaded, warmed up and measured, by a backend that notes what is asked of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from PIL import Image

from hyocr_core.contract.backend import ModelToRead, PageAnswer, PageToRead, Serving, ServingBackend, TimedAnswer
from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import RunError
from hyocr_core.evaluation.reading.texts import TextReader
from hyocr_core.evaluation.turns import Course, Subject
from hyocr_core.progress import Silent
from hyocr_core.settings.bench_load import BenchLoad

PAGES = [PageToRead(index, f"{index}.png", [], None, None, lambda: Image.new("RGB", (64, 2))) for index in range(2)]
DECODING = Decoding(repetition_penalty=None, max_new_tokens=8, stop_loops=True)


class Noting(ServingBackend):
    """Says what it is asked, and takes so many seconds for a page, of a clock that it sets itself."""

    api_version: ClassVar[int] = 1

    def __init__(self, name: str, seconds: float, events: list[str]) -> None:
        super().__init__(None, ModelToRead(name, None, None, DECODING, None))
        self.name, self.seconds, self.events = name, seconds, events
        self.breaks: Exception | None = None

    def read(self, pages: Sequence[PageToRead], say: Callable[[str], None]) -> Iterator[PageAnswer]:
        raise NotImplementedError

    @contextmanager
    def serve(
        self, pages: Sequence[PageToRead], at_once: int, say: Callable[[str], None], *, first_token: bool
    ) -> Iterator[Serving]:
        del pages, at_once, say, first_token
        self.events.append(f"load {self.name}")
        yield Noted(self)
        self.events.append(f"end {self.name}")


class Noted(Serving):
    def __init__(self, backend: Noting) -> None:
        self._backend = backend

    def read(self, pages: Sequence[PageToRead], at_once: int) -> Iterator[TimedAnswer]:
        self._backend.events.append(f"{self._backend.name} {len(pages)} by {at_once}")
        if self._backend.breaks is not None and len(pages) > 1:
            raise self._backend.breaks
        for number, page in enumerate(pages):
            asked = number * self._backend.seconds
            yield TimedAnswer(page.index, 3, asked, None, asked + self._backend.seconds)


def subject(name: str, seconds: float, events: list[str]) -> Subject:
    return Subject(TextReader(f"plugin {name}", name, Noting(name, seconds, events), name, None, DECODING))


def run(*subjects: Subject, **load: Any) -> None:
    Course(subjects, PAGES, BenchLoad(first_token=False, **load), Silent()).run()


def test_two_that_are_loaded_are_measured_alternately() -> None:
    """And each begins as often as the other, so that what comes after the other has no better part of it."""
    events: list[str] = []
    old, new = subject("old", 0.5, events), subject("new", 0.5, events)
    run(old, new, at_once=(1, 2), repetitions=2)
    warm = ["load old", "old 1 by 1", "load new", "new 1 by 1", "old 2 by 1", "new 2 by 1", "old 4 by 2", "new 4 by 2"]
    first = ["old 2 by 1", "new 2 by 1", "old 4 by 2", "new 4 by 2"]
    second = ["new 2 by 1", "old 2 by 1", "new 4 by 2", "old 4 by 2"]
    assert events == [*warm, *first, *second, "end new", "end old"]
    assert [len(each.noted.answers[at_once]) for each in (old, new) for at_once in (1, 2)] == [2] * 4
    assert len(old.noted.ready) == 1


def test_one_at_a_time_is_one_at_a_time() -> None:
    events: list[str] = []
    run(subject("old", 0.5, events), subject("new", 0.5, events), at_once=(1,), turns=2, repetitions=1, together=False)
    alone = [[f"load {name}", f"{name} 1 by 1", *[f"{name} 2 by 1"] * 2, f"end {name}"] for name in ("old", "new")]
    assert events == [*alone[0], *alone[1]] * 2


@pytest.mark.parametrize("order", [(0.02, 0.5), (0.5, 0.02)])
def test_the_faster_one_reads_long_enough_and_the_other_as_much(order: tuple[float, float]) -> None:
    events: list[str] = []
    old, new = (subject(name, seconds, events) for name, seconds in zip(("old", "new"), order, strict=True))
    run(old, new, at_once=(1,), repetitions=1)
    assert [len(each.noted.answers[1][0]) for each in (old, new)] == [50, 50], "a second of pages of 0.02 s"


def test_whose_error_it_is_is_said() -> None:
    events: list[str] = []
    old, new = subject("old", 0.5, events), subject("new", 0.5, events)
    assert isinstance(old.reader.backend, Noting)
    old.reader.backend.breaks = LookupError("no such thing")
    with pytest.raises(RunError, match=r"^plugin old: LookupError: no such thing$"):
        run(old, new, at_once=(1,), repetitions=1)
