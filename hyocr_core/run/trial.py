"""What a checkpoint has to read before it is published: prepared before the quantization, held after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.writer import refuse_unaccepted
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import RunError
from hyocr_core.evaluation.evaluate import BATCH_SIZE, draw_records, evaluate
from hyocr_core.evaluation.reading.memory import reading_bytes
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.models.known_formats import known_formats
from hyocr_core.pages.checked import Pages, check_pages
from hyocr_core.pages.found import Found
from hyocr_core.pages.processor import load_processor
from hyocr_core.resources import RUNTIME_BYTES, check_memory
from hyocr_core.run.job import CheckedPages, Job
from hyocr_core.settings.eval_config import EvalConfig


@dataclass(frozen=True)
class Trial:
    """config: of the evaluation. found: its pages; pages: those of them that can be used. memory: bytes that the
    reading needs on the CPU, None on a GPU."""

    config: EvalConfig
    found: Found
    pages: Pages
    memory: int | None


def prepare_trial(job: Job) -> Trial | None:
    """Everything of the evaluation that can be refused before the run; None when none is asked for.

    Raises BadInputError for a metric that cannot be used, pages that cannot be used or lack transcripts that are
    needed, readers that do not fit into memory together, and for a folder where a checkpoint that fails would go.
    """
    run = job.run
    if run.eval is None:
        return None
    if run.gate is not None and not run.keep:
        refuse_unaccepted(run.output)
    config = EvalConfig(
        model=str(run.output),
        data=run.eval,
        task=run.task,
        system=run.system,
        keep_duplicates=run.keep_duplicates,
        num_samples=run.eval_samples,
        seed=run.seed,
        baseline=str(job.source.folder),
        rounded=_can_be_rounded(job),
        repetition_penalty=run.repetition_penalty,
        max_new_tokens=run.max_new_tokens,
        keep_loops=run.keep_loops,
        metrics=run.metrics,
        forward=(run.forward,),
        gate=run.gate,
        device=str(job.model.device),
        max_pixels=run.max_pixels,
    )
    found, pages = _pages(job, config)
    return Trial(config, found, pages, _memory(job, config, pages))


def _pages(job: Job, config: EvalConfig) -> CheckedPages:
    """The pages to read, each built to see that it can be, by whoever shares them first."""
    if job.drawn.evaluation is None:
        found = draw_records(config, job.progress.say)
        processor = job.processor or load_processor(job.source.folder, config.max_pixels)
        job.drawn.evaluation = CheckedPages(found, _check(job, config, found.records, processor))
    return job.drawn.evaluation


def _check(job: Job, config: EvalConfig, records: Sequence[Record], processor: Any) -> Pages:
    most = job.model.max_tokens
    return check_pages(records, processor, job.progress, max_tokens=most, max_pixels=config.max_pixels)


def _memory(job: Job, config: EvalConfig, pages: Pages) -> int | None:
    """What all readers need together. Raises BadInputError when there is less."""
    if job.model.device.type != "cpu":
        return None
    # All of them are in memory at once, unpacked.
    readers = 3 if config.rounded else 2
    memory = RUNTIME_BYTES + readers * sum(info.nbytes for info in job.reader.tensors.values())
    memory += reading_bytes(job.model, pages, BATCH_SIZE)
    check_memory(memory, "lower --max-pixels, or leave --eval out and run hyocr eval on another machine")
    return memory


def _can_be_rounded(job: Job) -> bool:
    """Whether to read with round-to-nearest in the same format too: a run without calibration is that already."""
    return bool(job.records) and known_formats(job.quantization_config) is not None


def hold_trial(job: Job, trial: Trial, folder: Path, state: Path) -> EvalResult:
    """Let the checkpoint in `folder` read the pages beside the original.

    state: folder that keeps what was read, so that an interrupted run goes on there.
    """
    config = trial.config.model_copy(update={"model": str(folder)})
    try:
        return evaluate(config, trial.found, pages=trial.pages, state=state, progress=job.progress)
    except RunError as error:
        raise RunError(
            f"{error}; the checkpoint itself is done: the same command without --eval publishes it"
        ) from error


def named(result: EvalResult, job: Job, place: str) -> EvalResult:
    """The result under the names that will do when the stage is gone: `place`, and the hub's id of the original."""
    source = job.source
    original = {
        "model": source.repo_id or str(source.folder),
        "revision": source.revision,
        "subfolder": source.subfolder,
    }
    renamed = {"model": result.model.model_copy(update={"model": place})}
    for role in ("baseline", "rounded"):
        score = getattr(result, role)
        renamed[role] = score and score.model_copy(update=original)
    return result.model_copy(update=renamed)
