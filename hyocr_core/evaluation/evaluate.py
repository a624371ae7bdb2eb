"""Read pages with a checkpoint, score what it wrote, and measure how far it is from a baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hyocr_core._version import __version__
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BackendError, CalibrationError
from hyocr_core.evaluation.reading.choice import ChosenBackend, choose_backends
from hyocr_core.evaluation.reading.kept import keeping
from hyocr_core.evaluation.reading.memory import reading_bytes
from hyocr_core.evaluation.reading.participants import Participants, gather
from hyocr_core.evaluation.reading.read_pages import Read, read_pages
from hyocr_core.evaluation.scores.chosen_metrics import ChosenMetric, choose_metrics, needs_transcripts, not_measured
from hyocr_core.evaluation.scores.conclusion import conclude
from hyocr_core.evaluation.scores.gate import judge, refuse_more_than_text
from hyocr_core.evaluation.scores.measures import check_sizes, measurable
from hyocr_core.evaluation.scores.rates import normalize
from hyocr_core.evaluation.scores.result import EvalResult, Role
from hyocr_core.evaluation.scores.score import Asked, compare, measure, page_results, score
from hyocr_core.evaluation.seen import seen_warning
from hyocr_core.kit.threads import chosen_precision
from hyocr_core.models.load import pick_device
from hyocr_core.models.passed_over import passed_over
from hyocr_core.pages.checked import Pages, check_pages
from hyocr_core.pages.found import Found
from hyocr_core.pages.sources import draw_pages
from hyocr_core.progress import Progress, Silent
from hyocr_core.ranks.ranks import ALONE, Ranks
from hyocr_core.resources import RUNTIME_BYTES, check_memory, peak_rss_bytes, versions
from hyocr_core.settings.eval_config import EvalConfig

BATCH_SIZE = 32

UNKNOWN_PENALTY = (
    "no files of the checkpoint are here to say its repetition penalty: what reads decides; --repetition-penalty sets "
    "one (1.08 for v1.5, as its official clients send)"
)


def evaluate(
    config: EvalConfig,
    found: Found | None = None,
    *,
    pages: Pages | None = None,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> EvalResult:
    """Evaluate a checkpoint as `config` says, greedily, through its own processor; see `evaluated`."""
    with evaluated(config, found, pages=pages, state=state, resume=resume, progress=progress, ranks=ranks) as result:
        return result


@contextmanager
def evaluated(
    config: EvalConfig,
    found: Found | None = None,
    *,
    pages: Pages | None = None,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[EvalResult]:
    """Evaluate a checkpoint; what was read is kept until the body, which gets the result, has ended without an error.

    found: the pages, drawn before; None draws them. pages: those of them that are checked already, by the processor of
    the model or the baseline; None checks them.
    state: folder that keeps what was read; None keeps nothing.
    resume: do not read again what an interrupted evaluation of the same checkpoints, pages and options has kept.
    ranks: the processes that share the pages, all of which call this; the first one keeps what was read.
    Raises MetricError, BackendError or ConfigError for a metric or backend that cannot be used, CalibrationError for
    pages that cannot be used or lack a transcript (not needed if there is a baseline and no page has one),
    CheckpointError for a checkpoint that cannot be read, OutputError for a state that cannot be used, RunError for a
    checkpoint that computes NaN. Pages that a backend does not read are no error: they are in `unread`, and the state
    keeps the others.
    """
    progress, device = progress or Silent(), pick_device(config.device, ranks.place)
    ready = _prepare(config, found, pages, device, progress, ranks)
    folder = state if ranks.first else None
    fingerprint = {} if folder is None else _fingerprint(config, ready)
    with keeping(folder, fingerprint, resume=resume, progress=progress) as kept:
        with chosen_precision():
            read = read_pages(ready.pages, ready.participants, kept, ready.batch_size, device, progress, ranks)
        kept.whole = not read.unread
        yield _judged(config, _result(config, ready, read))


def _judged(config: EvalConfig, result: EvalResult) -> EvalResult:
    """The result with a verdict, and what the gate says."""
    result = result.model_copy(update={"verdict": conclude(result)})
    # An evaluation with a hole proves nothing.
    if config.gate is None or result.unread:
        return result
    return result.model_copy(update={"gate": judge(config.gate, result)})


@dataclass(frozen=True)
class _Ready:
    """What is read by whom, where, and what measures it. left_out: of the source, by name -> why."""

    pages: Pages
    left_out: Mapping[str, str]
    participants: Participants
    metrics: Mapping[str, ChosenMetric]
    batch_size: int
    device: torch.device


def _prepare(
    config: EvalConfig,
    found: Found | None,
    pages: Pages | None,
    device: torch.device,
    progress: Progress,
    ranks: Ranks,
) -> _Ready:
    """Everything that can be refused before weights are read, and what is to be said; raises as `evaluate`."""
    metrics, backends = _choose(config)
    if found is None:
        found = draw_records(config, progress.say)
    elif pages is None:
        check_transcripts(config, metrics, found.records)
    for line in not_measured(config):
        progress.say(line)
    metrics = measurable(metrics, found.records, progress.say)
    if ranks.size > 1 and any(backend.only_text for backend in backends.values()):
        raise BackendError("several processes read with --backend auto, dequant or transformers; leave torchrun out")
    participants = gather(config, backends)
    for line in notices(participants, config):
        progress.say(line)
    batch_size = config.batch_size or BATCH_SIZE
    if pages is None:
        pages = _check(found.records, participants, config, progress)
        _check_memory(participants, pages, batch_size, device, ranks.local_size)
    # Pages with a text may be among those that cannot be used.
    _refuse_empty(pages.records)
    _say_transcribed(pages.records, progress)
    if "model" in participants.sources:
        _say_seen(participants.sources["model"].folder, pages, progress)
    return _Ready(pages, found.left_out, participants, metrics, batch_size, device)


def _fingerprint(config: EvalConfig, ready: _Ready) -> dict[str, Any]:
    """What the answers depend on."""
    how = {"max_pixels": config.max_pixels, "device": str(ready.device)}
    if ready.participants.entries:
        how["batch_size"] = ready.batch_size
    return how | _content(ready.participants, ready.pages)


def _result(config: EvalConfig, ready: _Ready, read: Read) -> EvalResult:
    """What came of it, but for the verdict and the gate."""
    pages, participants = ready.pages, ready.participants
    asked = _asked([pages.records[index] for index in read.pages], config.seed, ready.metrics)
    return EvalResult(
        hyocr=__version__,
        data=config.data,
        seed=config.seed,
        decoding=participants.decoding,
        max_pixels=config.max_pixels,
        task=config.task,
        system=config.system,
        transcribed=len(asked.compared),
        reference_characters=asked.characters,
        reference_words=asked.words,
        **_numbers(read, asked),
        peak_rss_bytes=peak_rss_bytes(),
        environment=versions() | {"device": str(ready.device)} | participants.identity,
        failures=pages.failures,
        left_out=dict(ready.left_out),
        unread={pages.records[index].name: reason for index, reason in sorted(read.unread.items())},
        metrics={name: named.record for name, named in ready.metrics.items()},
    )


def _check(records: Sequence[Record], participants: Participants, config: EvalConfig, progress: Progress) -> Pages:
    limits = {"max_tokens": participants.max_tokens, "max_pixels": config.max_pixels}
    return check_pages(records, participants.processor, progress, **limits)


def _check_memory(
    participants: Participants, pages: Pages, batch_size: int, device: torch.device, processes: int
) -> None:
    """Raise BadInputError when those who read on this CPU need more than is free, all of them at once."""
    if device.type != "cpu" or not participants.entries:
        return
    entries = participants.entries.values()
    weights = sum(info.nbytes for entry in entries for info in entry.weights.tensors.values())
    reading = max(reading_bytes(opened.shape, pages, batch_size) for opened in participants.sources.values())
    check_memory(
        processes * (RUNTIME_BYTES + weights + reading), "lower --max-pixels or --batch-size, or use a larger machine"
    )


def draw_records(config: EvalConfig, say: Callable[[str], None]) -> Found:
    """The pages of an evaluation, after everything else that can be refused without a checkpoint.

    Raises CalibrationError for a source that cannot be used, or lacks transcripts, MetricError for a transcript that a
    metric cannot use.
    """
    metrics, _ = _choose(config)
    found = draw_pages(
        config.data,
        config.task,
        config.system,
        config.num_samples,
        config.seed,
        keep_duplicates=config.keep_duplicates,
        say=say,
    )
    check_transcripts(config, metrics, found.records)
    return found


def check_transcripts(config: EvalConfig, metrics: Mapping[str, ChosenMetric], records: Sequence[Record]) -> None:
    """Refuse transcripts that cannot be used.

    Raises CalibrationError when no page has one and something needs one, or when all are empty, MetricError for one
    that a metric cannot use.
    """
    required = config.rival is None or needs_transcripts(config)
    known = (record.answer if needs_transcripts(config) else record.answer or record.checks for record in records)
    if required and records and all(text is None for text in known):
        raise CalibrationError(
            f"{records[0].name}: no transcript, and none of the {len(records)} pages has one; error rates need some, "
            "agreement and KL with a --baseline none"
        )
    _refuse_empty(records)
    check_sizes(metrics, records)


def _choose(config: EvalConfig) -> tuple[dict[str, ChosenMetric], dict[Role, ChosenBackend]]:
    """What measures and what reads, with figures for every bound of the gate."""
    metrics, backends = choose_metrics(config), choose_backends(config)
    if config.gate is not None and any(backend.only_text for backend in backends.values()):
        refuse_more_than_text(config.gate)
    return metrics, backends


def _refuse_empty(records: Sequence[Record]) -> None:
    texts = [record.answer for record in records if record.answer is not None]
    if texts and not any(normalize(text) for text in texts):
        raise CalibrationError(f"{records[0].name}: this and every other transcript is empty; there is nothing to read")


def _asked(records: Sequence[Record], seed: int, metrics: Mapping[str, ChosenMetric]) -> Asked:
    _refuse_empty(records)
    columns = zip(*((record.name, record.answer, record.checks) for record in records), strict=True)
    names, references, checks = map(list, columns)
    return Asked(names, references, seed, metrics, checks)


def _say_transcribed(records: Sequence[Record], progress: Progress) -> None:
    known = sum(record.answer is not None for record in records)
    if 0 < known < len(records):
        progress.say(
            f"{known} of {len(records)} pages have a transcript: error rates are of these, all else of all pages"
        )


def _say_seen(folder: Path, pages: Pages, progress: Progress) -> None:
    warning = seen_warning(folder, pages.image_digests)
    if warning is not None:
        progress.say(warning)


def notices(participants: Participants, config: EvalConfig) -> Iterator[str]:
    """What is to be known of those who read, a line each."""
    for opened in participants.read_from:
        yield from (f"{opened.source.name}: {line}" for line in passed_over(opened.shape))
    if participants.decoding.repetition_penalty is None:
        yield UNKNOWN_PENALTY
    yield from participants.other_forwards(config.forward[-1])


def _content(participants: Participants, pages: Pages) -> dict[str, Any]:
    """Digests of what is read by what, for the fingerprint of what was read."""
    named = [[record.name, digest] for record, digest in zip(pages.records, pages.digests, strict=True)]
    return {
        "decoding": participants.decoding.model_dump(),
        "readers": participants.identity,
        "options": {role: reader.options for role, reader in participants.texts.items()},
        "checkpoints": {role: opened.reader.digests() for role, opened in participants.sources.items()},
        "pages": hashlib.sha256(json.dumps(named).encode()).hexdigest(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _numbers(read: Read, asked: Asked) -> dict[str, Any]:
    """The fields of the result that depend on what was read."""
    readings = {role: measure(answers, asked) for role, answers in read.answers.items()}
    scores = {role: score(read.checkpoints[role], reading, asked) for role, reading in readings.items()}
    baseline = readings.get("baseline")
    compared = {
        role: compare(reading, baseline, read.gaps.get(role, ()))
        for role, reading in readings.items()
        if baseline is not None and role != "baseline"
    }
    return {
        "model": scores["model"],
        "baseline": scores.get("baseline"),
        "comparison": compared.get("model"),
        "rounded": scores.get("rounded"),
        "rounded_comparison": compared.get("rounded"),
        **dict(read.diagnosis),
        "pages": page_results(asked, readings["model"], baseline, read.gaps.get("model", ())),
    }
