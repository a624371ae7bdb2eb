"""Serve checkpoints in turn, let them read pages, and measure how fast they are."""

from __future__ import annotations

import math
import platform
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import psutil

from hyocr_core._version import __version__
from hyocr_core.contract.backend import PageToRead, Serving, ServingBackend, TimedAnswer
from hyocr_core.errors import BadInputError, HyocrError, RunError, one_line
from hyocr_core.evaluation.evaluate import notices
from hyocr_core.evaluation.reading.choice import ChosenBackend, choose_backends
from hyocr_core.evaluation.reading.participants import Participants, gather
from hyocr_core.evaluation.reading.texts import TextReader, to_read
from hyocr_core.evaluation.scores.result import Role
from hyocr_core.evaluation.scores.speeds import BenchResult, ServedSpeed, SpeedAt
from hyocr_core.models.parts import stored_bytes
from hyocr_core.pages.checked import check_pages
from hyocr_core.pages.sources import draw_pages
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import processor
from hyocr_core.runtimes.concurrency import unlike
from hyocr_core.runtimes.server_memory import Held, watching
from hyocr_core.settings.bench_load import BenchLoad
from hyocr_core.settings.eval_config import EvalConfig

if TYPE_CHECKING:
    from PIL.Image import Image

ROUNDS = 2
"""Every page that is read at once is followed by another one at least, or none would be read beside others' tokens."""

SECONDS = 2.0
"""That a measurement takes at least, about: shorter ones tell of the machine's moods."""
MOST_ROUNDS = 64


@dataclass
class _Noted:
    """What was measured of one checkpoint so far.

    ready: seconds of each turn. rounds: in which all pages are read, by how many are at once. answers: of each
    repetition.
    """

    held: Held = field(default_factory=Held)
    ready: list[float] = field(default_factory=list)
    rounds: dict[int, int] = field(default_factory=dict)
    answers: dict[int, list[Sequence[TimedAnswer]]] = field(default_factory=lambda: defaultdict(list))


def measure_speed(config: EvalConfig, load: BenchLoad, progress: Progress | None = None) -> BenchResult:
    """Measure how fast checkpoints are served as `config` says, one after the other, in so many turns.

    In a turn a checkpoint is loaded, or asked for where it is served already, reads pages that count nowhere, and then
    reads all pages as often as it takes, so many at once, in every repetition. No page is the same to it twice.
    Raises BadInputError, before anything is loaded, for what cannot be measured; RunError when a runtime fails.
    """
    progress = progress or Silent()
    chosen = choose_backends(config)
    for backend in chosen.values():
        _check_serves(backend)
    records = draw_pages(
        config.data, config.task, config.system, config.num_samples, config.seed, keep_duplicates=True,
        say=progress.say,
    ).records  # fmt: skip
    participants = gather(config.model_copy(update={"batch_size": 1, "cross_runtime": True}), chosen)
    for line in notices(participants, config):
        progress.say(line)
    most = {"max_tokens": participants.max_tokens, "max_pixels": config.max_pixels}
    checked = check_pages(records, participants.processor, progress, **most)
    pages = [to_read(checked.text(index)) for index in range(len(checked.records))]
    noted = {role: _Noted() for role in _in_turn(participants)}
    progress.start("measure", load.turns * len(noted) * (1 + len(load.at_once) * load.repetitions))
    for _ in range(load.turns):
        for role in noted:
            _measure(participants.texts[role], pages, load, noted[role], progress)
    return _result(config, load, participants, len(pages), noted)


def _check_serves(backend: ChosenBackend) -> None:
    if not issubclass(backend.cls, ServingBackend):
        raise BadInputError(
            f"{backend.who}: is no server, so that its speed would tell nothing of one; give --backend vllm or "
            "llama.cpp, or the URL of an OpenAI-compatible endpoint"
        )


def _in_turn(participants: Participants) -> list[Role]:
    order: tuple[Role, ...] = ("baseline", "model")
    return [role for role in order if role in participants.texts]


def _measure(
    reader: TextReader, pages: Sequence[PageToRead], load: BenchLoad, noted: _Noted, progress: Progress
) -> None:
    """One turn of one checkpoint."""
    backend, start = reader.backend, time.monotonic()
    assert isinstance(backend, ServingBackend)  # noqa: S101 - `_check_serves` has seen to it
    try:
        with backend.serve(pages, load.at_once[-1], progress.say, first_token=load.first_token) as serving:
            _read(serving, pages[:1], 1)
            noted.ready.append(time.monotonic() - start)
            for at_once in load.at_once:
                _warm(serving, pages, at_once, noted)
            progress.step(f"{reader.model}: warm")
            for _ in range(load.repetitions):
                for at_once in load.at_once:
                    with watching(serving.processes, noted.held):
                        noted.answers[at_once].append(_read(serving, pages, at_once, noted.rounds[at_once]))
                    progress.step(f"{reader.model}: {at_once} at once")
    except HyocrError:
        raise
    except (Exception, SystemExit) as error:
        raise RunError(f"{reader.who}: {one_line(error, named=True)}") from error


def _warm(serving: Serving, pages: Sequence[PageToRead], at_once: int, noted: _Noted) -> None:
    """Read for nothing, but to know, the first time, in how many rounds it takes SECONDS."""
    least = -(-ROUNDS * at_once // len(pages))
    seconds = _wall(_read(serving, pages, at_once, least))
    wanted = math.ceil(least * SECONDS / max(seconds, 1e-3))
    noted.rounds.setdefault(at_once, max(least, min(wanted, MOST_ROUNDS)))


def _read(serving: Serving, pages: Sequence[PageToRead], at_once: int, rounds: int = 1) -> list[TimedAnswer]:
    """All pages, so often."""
    asked = [replace(page, open_image=partial(_unlike, page)) for _ in range(rounds) for page in pages]
    answers = list(serving.read(asked, at_once))
    if len(answers) != len(asked):
        raise RunError(f"{len(asked) - len(answers)} of {len(asked)} pages were not read")
    return answers


def _unlike(page: PageToRead) -> Image:
    return unlike(page.open_image())


def _result(
    config: EvalConfig, load: BenchLoad, participants: Participants, pages: int, noted: Mapping[Role, _Noted]
) -> BenchResult:
    served = {role: _served(participants.texts[role], found) for role, found in noted.items()}
    return BenchResult(
        hyocr=__version__,
        data=config.data,
        pages=pages,
        max_new_tokens=participants.decoding.max_new_tokens,
        load=load,
        model=served["model"],
        baseline=served.get("baseline"),
        environment=_machine() | participants.identity,
    )


def _served(reader: TextReader, noted: _Noted) -> ServedSpeed:
    files = reader.files
    return ServedSpeed(
        model=reader.model if files is None else files.repo_id or str(files.folder),
        revision=None if files is None else files.revision,
        subfolder=None if files is None else files.subfolder,
        runtime=reader.runtime,
        forward=reader.backend.forward,
        weight_bytes=None if files is None else stored_bytes(files.folder)[0],
        ready_seconds=median(noted.ready),
        memory_bytes=noted.held.memory,
        gpu_memory_bytes=noted.held.gpu,
        levels=tuple(_level(at_once, answers) for at_once, answers in noted.answers.items()),
    )


def _level(at_once: int, repetitions: Sequence[Sequence[TimedAnswer]]) -> SpeedAt:
    walls = [_wall(answers) for answers in repetitions]
    tokens = [sum(answer.tokens for answer in answers) for answers in repetitions]
    return SpeedAt(
        at_once=at_once,
        tokens=round(median(tokens)),
        pages_per_second=tuple(len(each) / wall for each, wall in zip(repetitions, walls, strict=True)),
        tokens_per_second=tuple(count / wall for count, wall in zip(tokens, walls, strict=True)),
        first_token_seconds=tuple(_first_tokens(repetitions)),
        token_seconds=tuple(_between_tokens(repetitions)),
    )


def _wall(answers: Sequence[TimedAnswer]) -> float:
    return max(answer.done for answer in answers) - min(answer.asked for answer in answers)


def _first_tokens(repetitions: Sequence[Sequence[TimedAnswer]]) -> Iterator[float]:
    for answers in repetitions:
        waits = [answer.first - answer.asked for answer in answers if answer.first is not None]
        if waits:
            yield median(waits)


def _between_tokens(repetitions: Sequence[Sequence[TimedAnswer]]) -> Iterator[float]:
    """Of answers of two tokens or more."""
    for answers in repetitions:
        timed = [(answer.done - answer.first, answer.tokens - 1) for answer in answers if answer.first is not None]
        tokens = sum(count for _, count in timed if count > 0)
        if tokens:
            yield sum(seconds for seconds, count in timed if count > 0) / tokens


def _machine() -> dict[str, str]:
    """What computes, as far as it is here."""
    cores = f"{psutil.cpu_count(logical=False) or '?'} cores, {psutil.cpu_count() or '?'} threads"
    return {"hyocr-core": __version__, "processor": f"{processor()[0] or platform.machine()}, {cores}"}
