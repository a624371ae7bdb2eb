"""Read pages with a checkpoint, score what it wrote, and measure how far it is from a baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hyocr_core import __version__
from hyocr_core.calibration.processor import load_processor
from hyocr_core.calibration.records import Record
from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.errors import BadInputError, CalibrationError, CheckpointError, RunError
from hyocr_core.evaluation.compare import divergence_of_states
from hyocr_core.evaluation.metrics import normalize
from hyocr_core.evaluation.pages import Pages, check_pages
from hyocr_core.evaluation.result import EvalResult
from hyocr_core.evaluation.runner import Prompts, Runner
from hyocr_core.evaluation.score import Answer, Checkpoint, Gap, Transcripts, compare, page_results, score
from hyocr_core.models.load import load_model
from hyocr_core.numerics import is_finite
from hyocr_core.progress import Progress, Silent

if TYPE_CHECKING:
    from torch import Tensor


class _Reader:
    """One checkpoint, its answers by page and the time they took."""

    def __init__(self, source: ResolvedModel, tokenizer: Any, device: torch.device, max_new_tokens: int | None) -> None:
        self.runner = Runner(load_model(source.folder, device), source.folder, max_new_tokens)
        self._source = source
        self._tokenizer = tokenizer
        self._answers: dict[int, Answer] = {}
        self._seconds = 0.0

    def read(self, indices: Sequence[int], inputs: Sequence[dict[str, Tensor]]) -> tuple[Prompts, list[list[int]]]:
        started = time.perf_counter()
        prompts = self.runner.embed(inputs)
        written = self.runner.generate(prompts)
        self._seconds += time.perf_counter() - started
        for index, tokens in zip(indices, written, strict=True):
            text = normalize(self._tokenizer.decode(tokens, skip_special_tokens=True))
            self._answers[index] = Answer(text, len(tokens), self.runner.ended(tokens))
        return prompts, written

    @property
    def answers(self) -> list[Answer]:
        """In the order of the pages."""
        return [self._answers[index] for index in sorted(self._answers)]

    @property
    def checkpoint(self) -> Checkpoint:
        weight_bytes = sum(path.stat().st_size for path in self._source.folder.glob("*.safetensors"))
        name = self._source.repo_id or str(self._source.folder)
        return Checkpoint(name, self._source.revision, weight_bytes, self._seconds)


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
    progress: Progress | None = None,
) -> EvalResult:
    """Evaluate a checkpoint (folder or hub id) on `records`, greedily, through its own processor.

    baseline: checkpoint to compare with; must have the same vocabulary.
    data: how the result names the source of the records.
    seed: of the bootstrap.
    max_new_tokens: per page; None takes the model's generation config, or 2048 where it gives none.
    batch_size: pages read together at most; only pages of one size are, so that nothing is padded.
    device: None is the CPU.
    Raises CalibrationError for pages that cannot be used or lack a transcript (not needed if there is a baseline and
    no page has one), CheckpointError for a checkpoint that cannot be read, RunError for one that computes NaN.
    """
    if batch_size < 1 or (max_new_tokens is not None and max_new_tokens < 1):
        raise BadInputError("batch size and new tokens must be at least 1")
    progress, device = progress or Silent(), device or torch.device("cpu")
    _check_transcripts(records, required=baseline is None)
    source = resolve_model(str(model))
    processor = load_processor(source.folder)
    other = None if baseline is None else resolve_model(str(baseline))
    if other is not None:
        _check_same_tokens(source.folder, processor, other.folder)
    pages = check_pages(records, processor, progress)
    transcripts = _transcripts(pages.records, seed)
    reader = _Reader(source, processor.tokenizer, device, max_new_tokens)
    rival = None if other is None else _Reader(other, processor.tokenizer, device, reader.runner.max_new_tokens)
    if rival is not None and rival.runner.vocabulary != reader.runner.vocabulary:
        raise _other_tokens(reader.runner.folder, rival.runner.folder)
    gaps = _read(pages, reader, rival, batch_size, progress)
    names = [record.name for record in pages.records]
    return EvalResult(
        hyocr=__version__,
        data=data,
        seed=seed,
        max_new_tokens=reader.runner.max_new_tokens,
        reference_characters=None if transcripts is None else sum(transcripts.sizes),
        model=score(reader.checkpoint, reader.answers, transcripts),
        baseline=None if rival is None else score(rival.checkpoint, rival.answers, transcripts),
        comparison=None if rival is None else compare(reader.answers, rival.answers, gaps, transcripts),
        failures=pages.failures,
        pages=page_results(names, reader.answers, None if rival is None else rival.answers, gaps, transcripts),
    )


def _check_transcripts(records: Sequence[Record], *, required: bool) -> None:
    missing = [record.name for record in records if record.answer is None]
    if missing and (required or len(missing) < len(records)):
        raise CalibrationError(
            f"{missing[0]}: no transcript ({len(missing)} of {len(records)} pages lack one); the character error rate "
            "needs one for every page"
        )


def _check_same_tokens(model: Path, processor: Any, baseline: Path) -> None:
    if load_processor(baseline).tokenizer.get_vocab() != processor.tokenizer.get_vocab():
        raise _other_tokens(model, baseline)


def _other_tokens(model: Path, baseline: Path) -> CheckpointError:
    return CheckpointError(f"{baseline}: has another vocabulary than {model}; the baseline must have the same tokens")


def _read(pages: Pages, reader: _Reader, rival: _Reader | None, batch_size: int, progress: Progress) -> list[Gap]:
    """Let the readers read every page; with a rival, the gap between the two on each, in the order of the pages."""
    gaps: dict[int, Gap] = {}
    progress.start("read pages", len(pages.records))
    for indices in pages.batches(batch_size):
        inputs = [pages.inputs(index) for index in indices]
        prompts, _ = reader.read(indices, inputs)
        if rival is not None:
            rival_prompts, answers = rival.read(indices, inputs)
            found = _gaps(rival.runner, rival_prompts, reader.runner, prompts, answers)
            gaps.update(zip(indices, found, strict=True))
        for index in indices:
            progress.step(pages.records[index].name)
    return [gaps[index] for index in sorted(gaps)]


def _gaps(
    rival: Runner, rival_prompts: Prompts, runner: Runner, prompts: Prompts, answers: Sequence[Sequence[int]]
) -> list[Gap]:
    """Force both models along the rival's answers."""
    found = divergence_of_states(
        rival.forced_states(rival_prompts, answers),
        runner.forced_states(prompts, answers),
        (rival.logits, runner.logits),
    )
    if not is_finite(found.kl):
        raise RunError(f"{runner.folder}: its logits are NaN or infinite along the answers of {rival.folder}")
    gaps, start = [], 0
    for answer in answers:
        own = slice(start, start := start + len(answer))
        gaps.append(Gap(len(answer), int(found.agrees[own].sum()), float(found.kl[own].double().sum())))
    return gaps


def _transcripts(records: Sequence[Record], seed: int) -> Transcripts | None:
    texts = [normalize(record.answer) for record in records if record.answer is not None]
    if texts and not any(texts):
        raise CalibrationError(f"{records[0].name}: this and every other transcript is empty; there is nothing to read")
    return Transcripts(texts, seed) if texts else None
