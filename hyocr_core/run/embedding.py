"""Calibration samples to the input of a tower's first block, once per sample, resumably."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.contract.config import FrozenModel
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, HyocrError, OutputError, RunError
from hyocr_core.kit.checks import is_finite
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs
from hyocr_core.pages.samples import Failure, Sample, changed_page, check_failures, digest_page, iter_samples
from hyocr_core.progress import Progress
from hyocr_core.ranks.ranks import ALONE, Ranks
from hyocr_core.run.activations import sample_path, save_embedded
from hyocr_core.run.run_record import RunJournal, RunRecord
from hyocr_core.run.token_weights import token_kinds
from hyocr_core.run.trusted import check_same

if TYPE_CHECKING:
    from torch import Tensor

Embed = Callable[[int, ModelInputs], Embedded]
AnyRecord = TypeVar("AnyRecord", bound=RunRecord)


@dataclass(frozen=True)
class EmbeddedSamples:
    """The samples that could be used, in order, their cached inputs in `folder`, and those that could not.

    numbers: of their records, which their files are named for. kinds: of the tokens of each; see `token_kinds`.
    patches: of the image of each. sha256: over the samples. page_sha256: of the pixels of each.
    """

    folder: Path
    names: list[str]
    numbers: list[int]
    kinds: list[Tensor]
    patches: list[int]
    failures: dict[str, str]
    sha256: str
    page_sha256: list[str]

    @property
    def tokens(self) -> int:
        """Of all samples."""
        return sum(map(len, self.kinds))

    def chosen(self, places: Sequence[int]) -> EmbeddedSamples:
        """Those of them that one process works on, by their places here; sha256 stays that of all."""
        return replace(
            self,
            names=[self.names[place] for place in places],
            numbers=[self.numbers[place] for place in places],
            kinds=[self.kinds[place] for place in places],
            patches=[self.patches[place] for place in places],
            page_sha256=[self.page_sha256[place] for place in places],
        )


@dataclass(frozen=True)
class Embedding:
    """How samples reach the input of one tower.

    name: of the progress bar. folder: in the stage. embed: takes the number of a sample's record, and its inputs.
    """

    name: str
    folder: Path
    embed: Embed


class _Made(FrozenModel):
    """What became of a record.

    failure: why it cannot be used; the rest is then empty. sha256: of the file at the input of the tower, None if it
    was there already.
    """

    number: int
    name: str
    failure: str | None = None
    notices: tuple[str, ...] = ()
    digest: str = ""
    image_digest: str = ""
    kinds: tuple[tuple[int, int], ...] = ()
    patches: int = 0
    sha256: str | None = None


def embed_samples(
    how: Embedding,
    records: Sequence[Record],
    processor: Any,
    max_tokens: int,
    journal: Journal[AnyRecord],
    progress: Progress,
    ranks: Ranks = ALONE,
    mine: Iterable[int] | None = None,
) -> EmbeddedSamples:
    """Embed every record; what a killed run has embedded is kept if the sample is still the same.

    ranks: the processes that share the records. mine: numbers of those of this one; None: whichever comes next.
    """
    how.folder.mkdir(exist_ok=True)
    progress.start(how.name, len(records))
    numbers = ranks.deal(len(records)) if mine is None else mine
    made = (_embed(how, records, number, processor, max_tokens, journal) for number in numbers)
    found = sorted(_noted(how, made, len(records), journal, progress, ranks), key=lambda item: item.number)
    failures = {item.name: item.failure for item in found if item.failure is not None}
    usable = [item for item in found if item.failure is None]
    if len(usable) < ranks.size:
        raise CalibrationError(
            f"{len(usable)} of {len(records)} samples can be used, too few for {ranks.size} processes"
        )
    return EmbeddedSamples(
        folder=how.folder,
        names=[item.name for item in usable],
        numbers=[item.number for item in usable],
        kinds=[_spread(item.kinds) for item in usable],
        patches=[item.patches for item in usable],
        failures=failures,
        sha256=hashlib.sha256("".join(item.digest for item in usable).encode()).hexdigest(),
        page_sha256=[item.image_digest for item in usable],
    )


def _noted(
    how: Embedding,
    made: Iterator[_Made],
    total: int,
    journal: Journal[AnyRecord],
    progress: Progress,
    ranks: Ranks,
) -> list[_Made]:
    """What all ranks have made; the first one says and notes it as it comes."""
    found: list[_Made] = []
    failures: list[Failure] = []
    for dumped in ranks.collected(item.model_dump(mode="json") for item in made):
        item = _Made.model_validate(dumped)
        found.append(item)
        progress.step(item.name)
        for line in item.notices:
            progress.say(line)
        if item.failure is not None:
            failures.append(Failure(item.name, item.failure))
            progress.say(f"skipped {item.name}: {item.failure}")
            check_failures(failures, total)
            continue
        _note(how, item, journal)
    if ranks.first:
        check_failures(failures, total)
    told = ranks.told(lambda: [item.model_dump(mode="json") for item in found])
    found = [_Made.model_validate(dumped) for dumped in told]
    for item in found if not ranks.first else ():
        _note(how, item, journal)
    return found


def _embed(
    how: Embedding,
    records: Sequence[Record],
    number: int,
    processor: Any,
    max_tokens: int,
    journal: Journal[AnyRecord],
) -> _Made:
    """Bring one record to the input of the tower, unless a killed run has."""
    [sample] = iter_samples([records[number]], processor, with_answer=True, max_tokens=max_tokens)
    path = sample_path(how.folder, number)
    digest = journal.record.pages.get(path.stem)
    if isinstance(sample, Failure):
        if digest is not None:
            raise _changed(sample.name, resumed=journal.resumed)
        return _Made(number=number, name=sample.name, failure=sample.reason)
    # One that could not be used when blocks were made has changed too.
    if digest not in (None, sample.digest) or (digest is None and journal.record.blocks):
        raise _changed(sample.name, resumed=journal.resumed)
    kinds, counts = torch.unique_consecutive(token_kinds(sample), return_counts=True)
    return _Made(
        number=number,
        name=sample.name,
        notices=tuple(sample.notices),
        digest=sample.digest,
        image_digest=sample.image_digest,
        kinds=tuple(zip(kinds.tolist(), counts.tolist(), strict=True)),
        patches=len(sample.inputs["pixel_values"]),
        sha256=_saved(how, sample, path, number, journal),
    )


def _saved(how: Embedding, sample: Sample, path: Path, number: int, journal: Journal[AnyRecord]) -> str | None:
    """Write the sample's file; return its SHA-256, None if it is there."""
    before = journal.record.inputs.get(_file_name(path))
    if before is not None and path.is_file():
        return None
    embedded = how.embed(number, sample.inputs)
    if not is_finite(embedded.hidden_states):
        raise RunError(f"vision tower: its output is NaN or infinite for the sample {sample.name}")
    after = save_embedded(path, embedded)
    check_same(path, before, after)
    return after


def _note(how: Embedding, item: _Made, journal: Journal[AnyRecord]) -> None:
    path = sample_path(how.folder, item.number)
    if item.failure is None:
        journal.record.pages[path.stem] = item.digest
    if item.sha256 is not None:
        journal.record.inputs[_file_name(path)] = item.sha256
        journal.save()


def _file_name(path: Path) -> str:
    """As the journal calls it."""
    return f"{path.parent.name}/{path.name}"


def _spread(kinds: Iterable[tuple[int, int]]) -> Tensor:
    """The kind of each token, of kinds and how many tokens in a row have them."""
    return torch.tensor([kind for kind, count in kinds for _ in range(count)], dtype=torch.int64)


def check_pages_again(samples: EmbeddedSamples, records: Sequence[Record], journal: RunJournal) -> None:
    """Read every page once more. Raises RunError for one that is not what the model saw; one that is gone is let be."""
    used = {name: f"{number:05d}" for name, number in zip(samples.names, samples.numbers, strict=True)}
    for record in (record for record in records if record.name in used):
        try:
            found, _ = digest_page(record, record.open_image())
        except CalibrationError:
            continue
        if found != journal.record.pages[used[record.name]]:
            raise _changed(record.name, resumed=False)


def _changed(name: str, *, resumed: bool) -> HyocrError:
    if resumed:
        return OutputError(f"cannot resume: the calibration sample {name} has changed since the run began")
    return changed_page(name)


def sample_size(records: Sequence[Record], processor: Any) -> tuple[int, int]:
    """Tokens and image patches of the longest of the first few samples, to estimate memory before the start."""
    items = islice(iter_samples(records, processor, with_answer=True), 3)
    samples = [item.inputs for item in items if isinstance(item, Sample)]
    tokens = max((inputs["input_ids"].shape[1] for inputs in samples), default=0)
    return tokens, max((inputs["pixel_values"].shape[0] for inputs in samples), default=0)
