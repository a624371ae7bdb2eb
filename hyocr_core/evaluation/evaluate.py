"""Read pages with a checkpoint, score what it wrote, and measure how far it is from a baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hyocr_core._version import __version__
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, CalibrationError
from hyocr_core.evaluation.reading.kept import keeping
from hyocr_core.evaluation.reading.participants import Backends, Participants, gather
from hyocr_core.evaluation.reading.read_pages import Read, read_pages
from hyocr_core.evaluation.scores.metrics import normalize
from hyocr_core.evaluation.scores.result import EvalResult, Role
from hyocr_core.evaluation.scores.score import Transcripts, compare, measure, page_results, score
from hyocr_core.evaluation.seen import seen_warning
from hyocr_core.pages.checked import Pages, check_pages
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import peak_rss_bytes, versions

BATCH_SIZE = 32
AT_ONCE = 1
"""Pages an endpoint is asked at the same time: vLLM 0.32 takes the features of images that it encodes together for each
other's, on any device, so that what it then reads is another page."""


def evaluate(
    model: str | Path,
    records: Sequence[Record],
    *,
    baseline: str | Path | None = None,
    backends: Backends | None = None,
    rounded: bool = False,
    data: str = "",
    seed: int = 0,
    max_new_tokens: int | None = None,
    batch_size: int | None = None,
    device: torch.device | None = None,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> EvalResult:
    """Evaluate a checkpoint (folder or hub id) on `records`, greedily, through its own processor.

    baseline: checkpoint to compare with; must have the same vocabulary.
    backends: what reads them; None is this process, a quantized checkpoint with its weights unpacked.
    rounded: read with the baseline's weights a third time, after rounding to nearest in the model's format those that
    the model quantizes; see `RoundedCheckpoint`.
    data: how the result names the source of the records.
    seed: of the bootstrap.
    max_new_tokens: per page; None takes the model's generation config, or 2048 where it gives none.
    batch_size: pages read together at most; only pages of one size are, so that nothing is padded. Of an endpoint, the
    pages that it is asked at the same time. None: see BATCH_SIZE, AT_ONCE.
    device: None is the CPU.
    state: folder that keeps what was read until the result is there; None keeps nothing.
    resume: do not read again what an interrupted evaluation of the same checkpoints, pages and options has kept.
    Raises CalibrationError for pages that cannot be used or lack a transcript (not needed if there is a baseline and
    no page has one), CheckpointError for a checkpoint that cannot be read, OutputError for a state that cannot be
    used, RunError for a checkpoint that computes NaN. Pages that an endpoint does not read are no error: they are in
    `unread`, and the state keeps the others.
    """
    if (batch_size is not None and batch_size < 1) or (max_new_tokens is not None and max_new_tokens < 1):
        raise BadInputError("batch size and new tokens must be at least 1")
    progress, device = progress or Silent(), device or torch.device("cpu")
    check_transcripts(records, required=baseline is None)
    names: dict[Role, str] = {"model": str(model)}
    if baseline is not None:
        names["baseline"] = str(baseline)
    participants = gather(
        names, backends or Backends(), rounded=rounded, max_new_tokens=max_new_tokens, at_once=batch_size or AT_ONCE
    )
    pages = check_pages(records, participants.processor, progress)
    # Pages with a text may be among those that cannot be used.
    _refuse_empty(pages.records)
    if "model" in participants.sources:
        _say_seen(participants.sources["model"].folder, pages, progress)
    reading: dict[str, Any] = {"max_new_tokens": participants.max_new_tokens, "device": str(device)}
    if participants.entries:
        reading["batch_size"] = batch_size = batch_size or BATCH_SIZE
    fingerprint = {} if state is None else reading | _content(participants, pages)
    with keeping(state, fingerprint, resume=resume, progress=progress) as kept:
        read = read_pages(pages, participants, kept, batch_size or BATCH_SIZE, device, progress)
        kept.whole = not read.unread
        transcripts = _transcripts([pages.records[index] for index in read.pages], seed)
        return EvalResult(
            hyocr=__version__,
            data=data,
            seed=seed,
            max_new_tokens=participants.max_new_tokens,
            reference_characters=None if transcripts is None else sum(transcripts.characters),
            reference_words=None if transcripts is None else sum(transcripts.words),
            **_numbers([pages.records[index].name for index in read.pages], read, transcripts),
            peak_rss_bytes=peak_rss_bytes(),
            environment=versions() | {"device": str(device)} | participants.identity,
            failures=pages.failures,
            unread={pages.records[index].name: reason for index, reason in sorted(read.unread.items())},
        )


def check_transcripts(records: Sequence[Record], *, required: bool) -> None:
    """Raise CalibrationError when pages lack a transcript, unless all do and it is not required, or all are empty."""
    missing = [record.name for record in records if record.answer is None]
    if missing and (required or len(missing) < len(records)):
        raise CalibrationError(
            f"{missing[0]}: no transcript ({len(missing)} of {len(records)} pages lack one); the character error rate "
            "needs one for every page"
        )
    _refuse_empty(records)


def _refuse_empty(records: Sequence[Record]) -> None:
    texts = [record.answer for record in records if record.answer is not None]
    if texts and not any(normalize(text) for text in texts):
        raise CalibrationError(f"{records[0].name}: this and every other transcript is empty; there is nothing to read")


def _transcripts(records: Sequence[Record], seed: int) -> Transcripts | None:
    _refuse_empty(records)
    texts = [normalize(record.answer) for record in records if record.answer is not None]
    return Transcripts(texts, seed) if texts else None


def _say_seen(folder: Path, pages: Pages, progress: Progress) -> None:
    warning = seen_warning(folder, pages.image_digests)
    if warning is not None:
        progress.say(warning)


def _content(participants: Participants, pages: Pages) -> dict[str, Any]:
    """Digests of what is read by what, for the fingerprint of what was read."""
    named = [[record.name, digest] for record, digest in zip(pages.records, pages.digests, strict=True)]
    return {
        "readers": participants.identity,
        "checkpoints": {
            role: CheckpointReader(source.folder).digests() for role, source in participants.sources.items()
        },
        "pages": hashlib.sha256(json.dumps(named).encode()).hexdigest(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _numbers(names: Sequence[str], read: Read, transcripts: Transcripts | None) -> dict[str, Any]:
    """The fields of the result that depend on what was read."""
    readings = {role: measure(answers, transcripts) for role, answers in read.answers.items()}
    scores = {role: score(read.checkpoints[role], reading, transcripts) for role, reading in readings.items()}
    baseline = readings.get("baseline")
    compared = {
        role: compare(reading, baseline, read.gaps.get(role, ()), transcripts)
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
        "pages": page_results(names, readings["model"], baseline, read.gaps.get("model", ()), transcripts),
    }
