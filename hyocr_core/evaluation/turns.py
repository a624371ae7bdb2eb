"""A turn of a measurement of speed: checkpoints are loaded, warmed up, and read with alternately by the clock."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from hyocr_core.contract.backend import PageToRead, Serving, ServingBackend, TimedAnswer
from hyocr_core.errors import HyocrError, RunError, one_line
from hyocr_core.evaluation.reading.texts import TextReader
from hyocr_core.progress import Progress
from hyocr_core.runtimes.concurrency import unlike
from hyocr_core.runtimes.server_memory import Held, watching
from hyocr_core.settings.bench_load import BenchLoad

if TYPE_CHECKING:
    from PIL.Image import Image

ROUNDS = 2
"""Every page that is read at once is followed by another one at least, or none would be read beside others' tokens."""

SECONDS = 1.0
"""That a measurement takes at least, about. Many short ones tell more than few long ones of the same time: a moment in
which the machine is busy spoils one of them."""
MOST_ROUNDS = 64


@dataclass
class Noted:
    """What was measured of one checkpoint so far.

    ready: seconds of each turn. answers: of each repetition, by how many pages are at once.
    """

    held: Held = field(default_factory=Held)
    ready: list[float] = field(default_factory=list)
    answers: dict[int, list[Sequence[TimedAnswer]]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Subject:
    """A checkpoint that is measured: what reads with it, and what was measured."""

    reader: TextReader
    noted: Noted = field(default_factory=Noted)


@dataclass(frozen=True)
class _Ready:
    """One that is loaded."""

    subject: Subject
    serving: Serving

    def read(self, pages: Sequence[PageToRead], at_once: int, rounds: int = 1) -> list[TimedAnswer]:
        """All pages, so often."""
        asked = [replace(page, open_image=partial(_unlike, page)) for _ in range(rounds) for page in pages]
        with _blamed(self.subject.reader.who):
            answers = list(self.serving.read(asked, at_once))
        if len(answers) != len(asked):
            raise RunError(f"{len(asked) - len(answers)} of {len(asked)} pages were not read")
        return answers

    def measure(self, pages: Sequence[PageToRead], at_once: int, rounds: int) -> None:
        """Read by the clock, once."""
        noted = self.subject.noted
        with watching(self.serving.processes, noted.held):
            noted.answers[at_once].append(self.read(pages, at_once, rounds))


class Course:
    """The turns of a measurement. In all of them, and by all subjects, pages are read in the same number of rounds."""

    def __init__(
        self, subjects: Sequence[Subject], pages: Sequence[PageToRead], load: BenchLoad, progress: Progress
    ) -> None:
        self._subjects = subjects
        self._pages = pages
        self._load = load
        self._progress = progress
        self._rounds: dict[int, int] = {}

    def run(self) -> None:
        """Measure all subjects, which then hold what was found."""
        load = self._load
        steps = load.turns * (1 + len(load.at_once) * load.repetitions)
        self._progress.start("measure", steps * len(self._subjects))
        crews = [self._subjects] if load.together else [[subject] for subject in self._subjects]
        for _ in range(load.turns):
            for crew in crews:
                self._take_turn(crew)

    def _take_turn(self, crew: Sequence[Subject]) -> None:
        """Load these, and measure them by turns, so that whatever slows the machine down slows all of them."""
        with ExitStack() as stack:
            ready = [self._load_one(subject, stack.enter_context) for subject in crew]
            for at_once in self._load.at_once:
                self._warm(ready, at_once)
            for repetition in range(self._load.repetitions):
                for at_once in self._load.at_once:
                    for each in ready if repetition % 2 == 0 else reversed(ready):
                        each.measure(self._pages, at_once, self._rounds[at_once])
                        self._progress.step(f"{each.subject.reader.model}: {at_once} at once")

    def _load_one(self, subject: Subject, enter: Callable[..., Serving]) -> _Ready:
        start = time.monotonic()
        ready = _Ready(subject, enter(_serving(subject.reader, self._pages, self._load, self._progress)))
        ready.read(self._pages[:1], 1)
        subject.noted.ready.append(time.monotonic() - start)
        self._progress.step(f"{subject.reader.model}: loaded")
        return ready

    def _warm(self, crew: Sequence[_Ready], at_once: int) -> None:
        """Read for nothing, but to know, the first time, in how many rounds all of them take SECONDS."""
        least = -(-ROUNDS * at_once // len(self._pages))
        seconds = min(wall(each.read(self._pages, at_once, least)) for each in crew)
        wanted = math.ceil(least * SECONDS / max(seconds, 1e-3))
        self._rounds.setdefault(at_once, max(least, min(wanted, MOST_ROUNDS)))


def wall(answers: Sequence[TimedAnswer]) -> float:
    """Seconds from the first request to the last answer."""
    return max(answer.done for answer in answers) - min(answer.asked for answer in answers)


@contextmanager
def _serving(reader: TextReader, pages: Sequence[PageToRead], load: BenchLoad, progress: Progress) -> Iterator[Serving]:
    assert isinstance(reader.backend, ServingBackend)  # noqa: S101 - whoever measures has seen to it
    with (
        _blamed(reader.who),
        reader.backend.serve(pages, load.at_once[-1], progress.say, first_token=load.first_token) as serving,
    ):
        yield serving


@contextmanager
def _blamed(who: str) -> Iterator[None]:
    """Name whose error it is, if it is not ours."""
    try:
        yield
    except HyocrError:
        raise
    except (Exception, SystemExit) as error:
        raise RunError(f"{who}: {one_line(error, named=True)}") from error


def _unlike(page: PageToRead) -> Image:
    return unlike(page.open_image())
