"""Serve checkpoints in turn, let them read pages, and measure how fast they are."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

import psutil

from hyocr_core._version import __version__
from hyocr_core.contract.backend import ServingBackend, TimedAnswer
from hyocr_core.errors import BadInputError
from hyocr_core.evaluation.evaluate import notices
from hyocr_core.evaluation.reading.choice import ChosenBackend, choose_backends
from hyocr_core.evaluation.reading.participants import Participants, gather
from hyocr_core.evaluation.reading.texts import TextReader, to_read
from hyocr_core.evaluation.scores.result import Role
from hyocr_core.evaluation.scores.speeds import BenchResult, ServedSpeed, SpeedAt
from hyocr_core.evaluation.turns import Course, Noted, Subject, wall
from hyocr_core.models.parts import stored_bytes
from hyocr_core.pages.checked import check_pages
from hyocr_core.pages.sources import draw_pages
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import processor
from hyocr_core.settings.bench_load import BenchLoad
from hyocr_core.settings.eval_config import EvalConfig


def measure_speed(config: EvalConfig, load: BenchLoad, progress: Progress | None = None) -> BenchResult:
    """Measure how fast checkpoints are served as `config` says.

    In a turn checkpoints are loaded, or asked for where they are served already, read pages that count nowhere, and
    then read all pages alternately, as often as it takes, so many at once, in every repetition. No page is the same to
    them twice.
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
    subjects = {role: Subject(participants.texts[role]) for role in _in_order(participants)}
    Course(list(subjects.values()), pages, load, progress).run()
    return _result(config, load, participants, len(pages), subjects)


def _check_serves(backend: ChosenBackend) -> None:
    if not issubclass(backend.cls, ServingBackend):
        raise BadInputError(
            f"{backend.who}: is no server, so that its speed would tell nothing of one; give --backend vllm or "
            "llama.cpp, or the URL of an OpenAI-compatible endpoint"
        )


def _in_order(participants: Participants) -> list[Role]:
    order: tuple[Role, ...] = ("baseline", "model")
    return [role for role in order if role in participants.texts]


def _result(
    config: EvalConfig, load: BenchLoad, participants: Participants, pages: int, subjects: Mapping[Role, Subject]
) -> BenchResult:
    served = {role: _served(subject.reader, subject.noted) for role, subject in subjects.items()}
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


def _served(reader: TextReader, noted: Noted) -> ServedSpeed:
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
    walls = [wall(answers) for answers in repetitions]
    tokens = [sum(answer.tokens for answer in answers) for answers in repetitions]
    return SpeedAt(
        at_once=at_once,
        tokens=round(median(tokens)),
        pages_per_second=tuple(len(each) / wall for each, wall in zip(repetitions, walls, strict=True)),
        tokens_per_second=tuple(count / wall for count, wall in zip(tokens, walls, strict=True)),
        first_token_seconds=tuple(_first_tokens(repetitions)),
        token_seconds=tuple(_between_tokens(repetitions)),
    )


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
