"""What a checkpoint has to read before it is published: prepared before the quantization, held after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyocr_core.checkpoint.writer import refuse_unaccepted
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import RunError
from hyocr_core.evaluation.evaluate import check_transcripts, evaluate
from hyocr_core.evaluation.scores.gate import needs_transcripts
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.models.known_formats import known_formats
from hyocr_core.pages.checked import check_pages
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.sources import draw_pages
from hyocr_core.resources import RUNTIME_BYTES, check_memory
from hyocr_core.run.job import Job


@dataclass(frozen=True)
class Trial:
    """source: of the records, as it was given. rounded: whether round-to-nearest reads them too. memory: bytes that the
    reading needs on the CPU, None on a GPU."""

    source: str
    records: Sequence[Record]
    rounded: bool
    memory: int | None


def prepare_trial(job: Job) -> Trial | None:
    """Everything of the evaluation that can be refused before the run; None when none is asked for.

    Raises BadInputError as `trial_pages` and `trial_readers` do, and for a folder where a checkpoint that fails would
    go.
    """
    run = job.run
    if run.eval is None:
        return None
    if run.gate is not None and not run.keep:
        refuse_unaccepted(run.output)
    records = trial_pages(job, run.eval)
    rounded, memory = trial_readers(job)
    return Trial(run.eval, records, rounded, memory)


def trial_pages(job: Job, source: str) -> list[Record]:
    """The pages of `source` that the checkpoint is to read, each built once to see that it can be.

    Raises BadInputError for pages that cannot be used or lack transcripts that the gate needs.
    """
    run = job.run
    records = draw_pages(
        source, run.task, run.eval_samples, run.seed, keep_duplicates=run.keep_duplicates, say=job.progress.say
    )
    check_transcripts(records, required=run.gate is not None and needs_transcripts(run.gate))
    check_pages(records, job.processor or load_processor(job.source.folder), job.progress)
    return records


def trial_readers(job: Job) -> tuple[bool, int | None]:
    """Whether round-to-nearest is to read too, and the memory that all readers need; see `Trial`.

    Raises BadInputError when they do not fit into memory together.
    """
    rounded = _can_be_rounded(job)
    if job.model.device.type != "cpu":
        return rounded, None
    # All of them are in memory at once, unpacked.
    readers = 3 if rounded else 2
    memory = RUNTIME_BYTES + readers * sum(info.nbytes for info in job.reader.tensors.values())
    check_memory(memory, "leave --eval out, and run hyocr eval on another machine")
    return rounded, memory


def _can_be_rounded(job: Job) -> bool:
    """Whether to read with round-to-nearest in the same format too: a run without calibration is that already."""
    return bool(job.records) and known_formats(job.quantization_config) is not None


def hold_trial(job: Job, trial: Trial, folder: Path, state: Path) -> EvalResult:
    """Let the checkpoint in `folder` read the pages beside the original.

    state: folder that keeps what was read, so that an interrupted run goes on there.
    """
    try:
        return evaluate(
            folder,
            trial.records,
            baseline=job.source.folder,
            rounded=trial.rounded,
            data=trial.source,
            seed=job.run.seed,
            device=job.model.device,
            state=state,
            progress=job.progress,
        )
    except RunError as error:
        raise RunError(f"{error}; the checkpoint itself is done: --resume without --eval publishes it") from error


def named(result: EvalResult, job: Job, place: str) -> EvalResult:
    """The result under the names that will do when the stage is gone: `place`, and the hub's id of the original."""
    source = job.source
    original = {"model": source.repo_id or str(source.folder), "revision": source.revision}
    renamed = {"model": result.model.model_copy(update={"model": place})}
    for role in ("baseline", "rounded"):
        score = getattr(result, role)
        renamed[role] = score and score.model_copy(update=original)
    return result.model_copy(update=renamed)
