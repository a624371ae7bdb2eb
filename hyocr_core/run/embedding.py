"""Calibration samples to the input of a tower's first block, once per sample, resumably."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, HyocrError, OutputError, RunError
from hyocr_core.kit.checks import is_finite
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs
from hyocr_core.pages.samples import Failure, Sample, changed_page, check_failures, digest_page, iter_samples
from hyocr_core.progress import Progress
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

    kinds: of the tokens of each; see `token_kinds`. sha256: over the samples. page_sha256: of the pixels of each.
    """

    folder: Path
    names: list[str]
    kinds: list[Tensor]
    failures: dict[str, str]
    sha256: str
    page_sha256: list[str]

    @property
    def tokens(self) -> int:
        """Of all samples."""
        return sum(map(len, self.kinds))


@dataclass(frozen=True)
class Embedding:
    """How samples reach the input of one tower.

    name: of the progress bar. folder: in the stage. embed: takes a sample's index and inputs.
    """

    name: str
    folder: Path
    embed: Embed


def embed_samples(
    how: Embedding,
    records: Sequence[Record],
    processor: Any,
    max_tokens: int,
    journal: Journal[AnyRecord],
    progress: Progress,
) -> EmbeddedSamples:
    """Embed every record; what a killed run has embedded is kept if the sample is still the same."""
    how.folder.mkdir(exist_ok=True)
    names: list[str] = []
    pages: list[str] = []
    kinds: list[Tensor] = []
    failures: list[Failure] = []
    digest = hashlib.sha256()
    progress.start(how.name, len(records))
    for item in iter_samples(records, processor, with_answer=True, max_tokens=max_tokens):
        progress.step(item.name)
        if isinstance(item, Failure):
            failures.append(item)
            progress.say(f"skipped {item.name}: {item.reason}")
            check_failures(failures, len(records))
            continue
        for line in item.notices:
            progress.say(line)
        _embed_one(how, item, len(names), journal)
        names.append(item.name)
        pages.append(item.image_digest)
        kinds.append(token_kinds(item))
        digest.update(item.digest.encode())
    check_failures(failures, len(records))
    reasons = {failure.name: failure.reason for failure in failures}
    return EmbeddedSamples(how.folder, names, kinds, reasons, digest.hexdigest(), pages)


def _embed_one(how: Embedding, sample: Sample, index: int, journal: Journal[AnyRecord]) -> None:
    path = sample_path(how.folder, index)
    if journal.record.pages.setdefault(path.stem, sample.digest) != sample.digest:
        raise _changed(sample.name, resumed=journal.resumed)
    name = f"{how.folder.name}/{path.name}"
    before = journal.record.inputs.get(name)
    if before is not None and path.is_file():
        return
    embedded = how.embed(index, sample.inputs)
    if not is_finite(embedded.hidden_states):
        raise RunError(f"vision tower: its output is NaN or infinite for the sample {sample.name}")
    after = save_embedded(path, embedded)
    check_same(path, before, after)
    journal.record.inputs[name] = after
    journal.save()


def check_pages_again(samples: EmbeddedSamples, records: Sequence[Record], journal: RunJournal) -> None:
    """Read every page once more. Raises RunError for one that is not what the model saw; one that is gone is let be."""
    used = {name: f"{index:05d}" for index, name in enumerate(samples.names)}
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
