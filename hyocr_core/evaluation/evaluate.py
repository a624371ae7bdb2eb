"""Read pages with a checkpoint, score what it wrote, and measure how far it is from a baseline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from hyocr_core import __version__
from hyocr_core.calibration.processor import load_processor
from hyocr_core.calibration.records import Record
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.errors import BadInputError, CalibrationError, CheckpointError
from hyocr_core.evaluation.metrics import normalize
from hyocr_core.evaluation.pages import Pages, check_pages
from hyocr_core.evaluation.reader import Reader, read_batch
from hyocr_core.evaluation.result import EvalResult
from hyocr_core.evaluation.score import Reading, Transcripts, compare, measure, page_results, score
from hyocr_core.evaluation.seen import seen_warning
from hyocr_core.evaluation.state import BatchRecord, Kept, keeping
from hyocr_core.job import versions
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import peak_rss_bytes

Item = TypeVar("Item")


def evaluate(
    model: str | Path,
    records: Sequence[Record],
    *,
    baseline: str | Path | None = None,
    data: str = "",
    seed: int = 0,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
    device: torch.device | None = None,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> EvalResult:
    """Evaluate a checkpoint (folder or hub id) on `records`, greedily, through its own processor.

    baseline: checkpoint to compare with; must have the same vocabulary.
    data: how the result names the source of the records.
    seed: of the bootstrap.
    max_new_tokens: per page; None takes the model's generation config, or 2048 where it gives none.
    batch_size: pages read together at most; only pages of one size are, so that nothing is padded.
    device: None is the CPU.
    state: folder that keeps what was read until the result is there; None keeps nothing.
    resume: do not read again what an interrupted evaluation of the same checkpoints, pages and options has kept.
    Raises CalibrationError for pages that cannot be used or lack a transcript (not needed if there is a baseline and
    no page has one), CheckpointError for a checkpoint that cannot be read, OutputError for a state that cannot be
    used, RunError for a checkpoint that computes NaN.
    """
    if batch_size < 1 or (max_new_tokens is not None and max_new_tokens < 1):
        raise BadInputError("batch size and new tokens must be at least 1")
    progress, device = progress or Silent(), device or torch.device("cpu")
    _check_transcripts(records, required=baseline is None)
    source = resolve_model(str(model))
    processor = load_processor(source.folder)
    sources = [source] if baseline is None else [source, resolve_model(str(baseline))]
    _check_same_tokens(sources, processor)
    pages = check_pages(records, processor, progress)
    warning = seen_warning(source.folder, pages.image_digests)
    if warning is not None:
        progress.say(warning)
    transcripts = _transcripts(pages.records, seed)
    reading = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "device": str(device)}
    fingerprint = {} if state is None else reading | _content(sources, pages)
    with keeping(state, fingerprint, resume=resume, progress=progress) as kept:
        readers = _load(sources, processor, device, max_new_tokens)
        batches = _read(pages, readers, kept, batch_size, progress)
        return EvalResult(
            hyocr=__version__,
            data=data,
            seed=seed,
            max_new_tokens=readers[0].runner.max_new_tokens,
            reference_characters=None if transcripts is None else sum(transcripts.characters),
            reference_words=None if transcripts is None else sum(transcripts.words),
            **_numbers([record.name for record in pages.records], readers, batches, transcripts),
            peak_rss_bytes=peak_rss_bytes(),
            environment=versions() | {"device": str(device)},
            failures=pages.failures,
        )


def _check_transcripts(records: Sequence[Record], *, required: bool) -> None:
    missing = [record.name for record in records if record.answer is None]
    if missing and (required or len(missing) < len(records)):
        raise CalibrationError(
            f"{missing[0]}: no transcript ({len(missing)} of {len(records)} pages lack one); the character error rate "
            "needs one for every page"
        )


def _check_same_tokens(sources: Sequence[ResolvedModel], processor: Any) -> None:
    for other in sources[1:]:
        if load_processor(other.folder).tokenizer.get_vocab() != processor.tokenizer.get_vocab():
            raise _other_tokens(sources[0].folder, other.folder)


def _other_tokens(model: Path, baseline: Path) -> CheckpointError:
    return CheckpointError(f"{baseline}: has another vocabulary than {model}; the baseline must have the same tokens")


def _transcripts(records: Sequence[Record], seed: int) -> Transcripts | None:
    texts = [normalize(record.answer) for record in records if record.answer is not None]
    if texts and not any(texts):
        raise CalibrationError(f"{records[0].name}: this and every other transcript is empty; there is nothing to read")
    return Transcripts(texts, seed) if texts else None


def _content(sources: Sequence[ResolvedModel], pages: Pages) -> dict[str, Any]:
    """Digests of what is read by what, for the fingerprint of what was read."""
    named = [[record.name, digest] for record, digest in zip(pages.records, pages.digests, strict=True)]
    return {
        "checkpoints": [CheckpointReader(source.folder).digests() for source in sources],
        "pages": hashlib.sha256(json.dumps(named).encode()).hexdigest(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def _load(
    sources: Sequence[ResolvedModel], processor: Any, device: torch.device, max_new_tokens: int | None
) -> list[Reader]:
    """The model and, if there is one, the baseline, which takes the model's limit of tokens."""
    readers: list[Reader] = []
    for source in sources:
        limit = readers[0].runner.max_new_tokens if readers else max_new_tokens
        readers.append(Reader(source, processor.tokenizer, device, limit))
        if readers[-1].runner.vocabulary != readers[0].runner.vocabulary:
            raise _other_tokens(sources[0].folder, source.folder)
    return readers


def _read(
    pages: Pages, readers: Sequence[Reader], kept: Kept, batch_size: int, progress: Progress
) -> list[BatchRecord]:
    """Let the readers read every page that no kept batch holds."""
    batches = {f"batch-{number:06d}": indices for number, indices in enumerate(pages.batches(batch_size))}
    done = sum(len(batch.pages) for batch in kept.batches.values())
    if done:
        progress.say(f"{done} of {len(pages.records)} pages are kept from an interrupted run and not read again")
    progress.start("read pages", len(pages.records) - done)
    for key, indices in batches.items():
        if key in kept.batches:
            continue
        kept.add(key, read_batch(indices, [pages.inputs(index) for index in indices], readers))
        for index in indices:
            progress.step(pages.records[index].name)
    return [kept.batches[key] for key in batches]


def _numbers(
    names: Sequence[str], readers: Sequence[Reader], batches: Sequence[BatchRecord], transcripts: Transcripts | None
) -> dict[str, Any]:
    """The fields of the result that depend on what was read."""
    readings: list[Reading] = []
    scores = []
    for place, reader in enumerate(readers):
        parts = [batch.readings[place] for batch in batches]
        readings.append(measure(_in_order(batches, [part.answers for part in parts]), transcripts))
        scores.append(score(reader.checkpoint(parts), readings[-1], transcripts))
    if len(readers) == 1:
        return {
            "model": scores[0],
            "baseline": None,
            "comparison": None,
            "pages": page_results(names, readings[0], None, (), transcripts),
        }
    gaps = _in_order(batches, [batch.gaps for batch in batches])
    return {
        "model": scores[0],
        "baseline": scores[1],
        "comparison": compare(readings[0], readings[1], gaps, transcripts),
        "pages": page_results(names, readings[0], readings[1], gaps, transcripts),
    }


def _in_order(batches: Sequence[BatchRecord], values: Iterable[Sequence[Item]]) -> list[Item]:
    """Values given by batch, in the order of the pages."""
    found: dict[int, Item] = {}
    for batch, of_batch in zip(batches, values, strict=True):
        found.update(zip(batch.pages, of_batch, strict=True))
    return [found[page] for page in sorted(found)]
