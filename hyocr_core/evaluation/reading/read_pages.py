"""Let everyone read every page: those in this process together, batch by batch, the others one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from hyocr_core.errors import RunError
from hyocr_core.evaluation.reading.kept import BatchRecord, Kept
from hyocr_core.evaluation.reading.local import Reader, read_batch
from hyocr_core.evaluation.reading.participants import Participants, other_tokens
from hyocr_core.evaluation.reading.texts import TextReader
from hyocr_core.evaluation.scores.result import Diagnosis, Role
from hyocr_core.evaluation.scores.score import Answer, Checkpoint, Gap
from hyocr_core.pages.checked import Pages
from hyocr_core.progress import Progress
from hyocr_core.ranks.ranks import ALONE, Ranks

Item = TypeVar("Item")


@dataclass(frozen=True)
class Read:
    """All that was read.

    pages: the indices of those that everyone has read, in order; answers and gaps are theirs.
    gaps: of those that were compared with the baseline token by token.
    unread: the others, and why.
    """

    pages: Sequence[int]
    checkpoints: Mapping[Role, Checkpoint]
    answers: Mapping[Role, Sequence[Answer]]
    gaps: Mapping[Role, Sequence[Gap]]
    diagnosis: Diagnosis
    unread: Mapping[int, str]


def read_pages(
    pages: Pages,
    participants: Participants,
    kept: Kept,
    batch_size: int,
    device: torch.device,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Read:
    """Let the participants read every page that is not kept yet.

    ranks: the processes that share the batches, if all participants are read in process; the first keeps what all read.

    Raises RunError when no page is read by everyone, or a runtime fails.
    """
    readers = load_readers(participants, device)
    together = _read_together(pages, readers, kept, batch_size, progress, ranks) if readers else []
    alone: dict[Role, list[BatchRecord]] = {}
    unread: dict[int, str] = {}
    for role, reader in participants.texts.items():
        alone[role], missing = _read_alone(role, reader, pages, kept, progress)
        unread |= missing
    everyone = [index for index in range(len(pages.records)) if index not in unread]
    if not everyone:
        first = min(unread)
        raise RunError(f"none of {len(unread)} pages could be read; {pages.records[first].name}: {unread[first]}")
    batches = dict.fromkeys(readers, together) | alone
    checkpoints = {
        role: readers[role].checkpoint([batch.readings[role] for batch in of_role])
        if role in readers
        else participants.texts[role].checkpoint(_seconds(role, of_role, unread))
        for role, of_role in batches.items()
    }
    return Read(
        everyone,
        checkpoints,
        {role: _answers(role, of_role, everyone) for role, of_role in batches.items()},
        {role: _of(everyone, together, [batch.gaps[role] for batch in together]) for role in _compared(together)},
        (together[0].diagnosis if together else None) or Diagnosis(),
        unread,
    )


def load_readers(participants: Participants, device: torch.device) -> dict[Role, Reader]:
    """Everyone who reads in this process."""
    readers: dict[Role, Reader] = {}
    for role, entry in participants.entries.items():
        tokenizer, others = participants.processor.tokenizer, list(readers.values())
        readers[role] = Reader(entry, tokenizer, device, participants.decoding, others)
        first = next(iter(readers.values())).runner
        if readers[role].runner.vocabulary != first.vocabulary:
            raise other_tokens(first.folder, entry.source.folder)
    return readers


def _read_together(
    pages: Pages,
    readers: Mapping[Role, Reader],
    kept: Kept,
    batch_size: int,
    progress: Progress,
    ranks: Ranks,
) -> list[BatchRecord]:
    batches = {f"batch-{number:06d}": indices for number, indices in enumerate(pages.batches(batch_size))}
    if len(batches) < ranks.size:
        progress.say(
            f"{len(batches)} batches are too few for {ranks.size} processes: a smaller --batch-size makes more"
        )
    kept.follow(ranks.told(lambda: [key for key, indices in batches.items() if kept.has(key, indices)]), ranks)
    waiting = [key for key, indices in batches.items() if not kept.has(key, indices)]
    _start("read pages", len(pages.records) - sum(len(batches[key]) for key in waiting), len(pages.records), progress)

    def read() -> Iterator[tuple[str, dict[str, Any]]]:
        for number in ranks.deal(len(waiting)):
            key = waiting[number]
            inputs = [pages.inputs(index) for index in batches[key]]
            found = read_batch(batches[key], inputs, readers, diagnosed=key == next(iter(batches)))
            yield key, found.model_dump(mode="json")

    for key, found in ranks.collected(read()):
        kept.add(key, BatchRecord.model_validate(found))
        for index in batches[key]:
            progress.step(pages.records[index].name)
    kept.follow(waiting, ranks)
    return [kept.batches[key] for key in batches]


def _read_alone(
    role: Role, reader: TextReader, pages: Pages, kept: Kept, progress: Progress
) -> tuple[list[BatchRecord], dict[int, str]]:
    """What was read, a record for each page, and the pages that were not, with the reason."""
    keys = {index: f"batch-{role}-{index:06d}" for index in range(len(pages.records))}
    waiting = [index for index, key in keys.items() if not kept.has(key, [index])]
    _start(f"read pages ({role})", len(keys) - len(waiting), len(keys), progress)
    unread: dict[int, str] = {}
    for page in reader.read([pages.text(index) for index in waiting], progress.say) if waiting else ():
        name = pages.records[page.index].name
        if page.reading is None:
            unread[page.index] = page.reason
            progress.say(f"not read: {name}: {page.reason}")
        else:
            kept.add(keys[page.index], BatchRecord(pages=(page.index,), readings={role: page.reading}))
        progress.step(name)
    return [kept.batches[key] for index, key in keys.items() if index not in unread], unread


def _start(phase: str, done: int, total: int, progress: Progress) -> None:
    if done:
        progress.say(f"{done} of {total} pages are kept from an interrupted run and not read again")
    progress.start(phase, total - done)


def _seconds(role: Role, batches: Sequence[BatchRecord], unread: Mapping[int, str]) -> float:
    """Of the pages that everyone has read."""
    return sum(batch.readings[role].seconds for batch in batches if batch.pages[0] not in unread)


def _compared(batches: Sequence[BatchRecord]) -> Sequence[Role]:
    return list(batches[0].gaps) if batches else []


def _answers(role: Role, batches: Sequence[BatchRecord], pages: Sequence[int]) -> list[Answer]:
    return _of(pages, batches, [batch.readings[role].answers for batch in batches])


def _of(pages: Sequence[int], batches: Sequence[BatchRecord], values: Iterable[Sequence[Item]]) -> list[Item]:
    """Values given by batch, those of `pages` in their order."""
    found: dict[int, Item] = {}
    for batch, of_batch in zip(batches, values, strict=True):
        found.update(zip(batch.pages, of_batch, strict=True))
    return [found[page] for page in pages]
