"""Calibration samples to the input of block 0: processor, vision tower and embedding, once per sample, resumably."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hyocr_core.activations import sample_path, save_embedded
from hyocr_core.calibration.samples import MAX_TOKENS, Failure, Sample, check_failures, iter_samples
from hyocr_core.calibration.sources import Record
from hyocr_core.checkpoint.journal import Journal
from hyocr_core.errors import OutputError, RunError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.numerics import is_finite
from hyocr_core.progress import Progress


@dataclass(frozen=True)
class EmbeddedSamples:
    """The samples that could be used, in order, their cached inputs in `folder`, and those that could not."""

    folder: Path
    names: list[str]
    tokens: int
    failures: dict[str, str]
    sha256: str


def embed_samples(
    model: HunYuanVL, records: Sequence[Record], processor: Any, folder: Path, journal: Journal, progress: Progress
) -> EmbeddedSamples:
    """Embed every record into `folder`; what a killed run has embedded is kept if the sample is still the same."""
    folder.mkdir(exist_ok=True)
    names: list[str] = []
    tokens = 0
    failures: list[Failure] = []
    digest = hashlib.sha256()
    progress.start("vision", len(records))
    with model.front():
        for item in iter_samples(records, processor, with_answer=True, max_tokens=min(MAX_TOKENS, model.max_tokens)):
            progress.step(item.name)
            if isinstance(item, Failure):
                failures.append(item)
                progress.say(f"skipped {item.name}: {item.reason}")
                check_failures(failures, len(records))
                continue
            _embed_one(model, item, sample_path(folder, len(names)), journal)
            names.append(item.name)
            tokens += item.inputs["input_ids"].shape[1]
            digest.update(item.digest.encode())
    check_failures(failures, len(records))
    reasons = {failure.name: failure.reason for failure in failures}
    return EmbeddedSamples(folder, names, tokens, reasons, digest.hexdigest())


def _embed_one(model: HunYuanVL, sample: Sample, path: Path, journal: Journal) -> None:
    key = f"sample-{path.stem}"
    recorded = journal.entries.get(key)
    if recorded is not None and recorded != sample.digest:
        raise OutputError(f"cannot resume: the calibration sample {sample.name} has changed since the run began")
    if recorded is not None and path.is_file():
        return
    embedded = model.embed(sample.inputs)
    if not is_finite(embedded.hidden_states):
        raise RunError(f"vision tower: its output is NaN or infinite for the sample {sample.name}")
    save_embedded(path, embedded)
    journal.record(key, sample.digest)


def tokens_per_sample(records: Sequence[Record], processor: Any) -> int:
    """The longest of the first few samples, to estimate memory before the start."""
    samples = [
        item for item in islice(iter_samples(records, processor, with_answer=True), 3) if isinstance(item, Sample)
    ]
    return max((sample.inputs["input_ids"].shape[1] for sample in samples), default=0)
