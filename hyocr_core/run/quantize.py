"""The whole job: a checkpoint goes in, a quantized one comes out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import torch

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.checkpoint.unchanged import Unchanged
from hyocr_core.checkpoint.writer import StagedCheckpoint, check_target, goes_on
from hyocr_core.errors import OutputError
from hyocr_core.kit.threads import chosen_precision
from hyocr_core.plugin.watch import watching
from hyocr_core.progress import Progress, Silent
from hyocr_core.ranks.ranks import ALONE, Ranks
from hyocr_core.resources import release_memory, versions
from hyocr_core.run.blocks import quantize_blocks
from hyocr_core.run.embedding import EmbeddedSamples
from hyocr_core.run.job import Drawn, Job, check_norms, check_resources, prepare
from hyocr_core.run.own_answers import own_answers
from hyocr_core.run.prepare_model import prepare_model
from hyocr_core.run.publish import Quantized, finish, publish, published_at, refuse_again
from hyocr_core.run.run_record import RunJournal, RunRecord
from hyocr_core.run.towers import Towers
from hyocr_core.run.trial import Trial, prepare_trial
from hyocr_core.run.trusted import is_done, remove_damaged
from hyocr_core.settings.run_config import RunConfig

CALIBRATION = {"calib", "task", "system", "answers", "num_samples", "max_pixels", "seed", "keep_duplicates"}
"""Keys of a RunConfig that say what a method learns from."""


@chosen_precision()
def quantize(
    run: RunConfig,
    *,
    resume: bool | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    drawn: Drawn | None = None,
    ranks: Ranks = ALONE,
) -> QuantReport:
    """Quantize a checkpoint as `run` says and publish it at `run.output`.

    With `run.eval` it reads these pages before, beside the original; if it then fails `run.gate`, as the report says in
    `gate.accepted`, it is published at `run.output` with `.unaccepted` appended, unless `run.keep`.
    Raises BadInputError before anything is written when an input cannot be used, RunError when the run fails; what is
    done by then stays beside the target, and the same run goes on from there to the same bytes, or finds it finished.
    resume: None goes on if there is an unfinished run; True demands one; False refuses to begin beside one.
    fresh: begin anew, and delete what an unfinished run has done once this one is found to be possible.
    drawn: pages that a run of the same pages has drawn; None draws.
    ranks: the processes that do this run together, all of which call this; the first one writes.
    """
    goes, finished = ranks.told(lambda: _begun(run, resume=resume, fresh=fresh))
    if finished is not None:
        report = QuantReport.model_validate(finished)
        (progress or Silent()).say(f"{published_at(run, report)} is finished already")
        return report
    job = prepare(run, progress or Silent(), drawn, ranks)
    check_resources(job)
    ranks.check_same(_same_everywhere(job), "has another version, run, model or pages")
    trial = prepare_trial(job)
    with (
        watching(job.observers, job.progress.say) as watch,
        _staged(job, resume=goes, fresh=fresh) as stage,
    ):
        job.shares = tuple(replace(share, method=replace(share.method, watch=watch)) for share in job.shares)
        with job.watch.phase("check"):
            sources = _check_weights(job)
        journal = _noted(job, stage, sources, resume=goes)
        _let_answer(job, sources)
        done = sum(is_done(stage, journal, place.key) for place in job.model.decoder_blocks)
        if goes:
            total = len(job.model.decoder_blocks)
            job.progress.say(f"going on with an interrupted run, which has done {done} of {total} blocks")
        samples = _quantize_towers(job, stage, journal)
        job.observed = watch.close()
        quantized = Quantized(stage, journal, samples, sources, done - 1 if done else None)
        return _published(job, quantized, trial)


def _begun(run: RunConfig, *, resume: bool | None, fresh: bool) -> tuple[bool, dict[str, Any] | None]:
    """Whether to go on with an unfinished run, and the report of one that is finished; refuse what cannot begin."""
    goes = goes_on(run.output, resume=resume, fresh=fresh)
    finished = finish(run) if goes else None
    if finished is not None:
        return goes, finished.model_dump(mode="json")
    if not goes:
        refuse_again(run)
    check_target(run.output, resume=goes, fresh=fresh)
    return goes, None


def _same_everywhere(job: Job) -> list[Any]:
    """What every process must have alike: the run, and digests of the model's tensors and of the pages' names."""
    tensors = {name: [list(info.shape), str(info.dtype)] for name, info in job.original.tensors.items()}
    pages = [[record.name, record.answer] for record in job.records]
    found = [hashlib.sha256(json.dumps(each).encode()).hexdigest() for each in (tensors, pages)]
    return [job.run.model_dump(mode="json"), versions(), *found]


def _staged(job: Job, *, resume: bool, fresh: bool) -> StagedCheckpoint:
    """The stage of this run, which the first process holds."""
    if job.ranks.first:
        return StagedCheckpoint.open(job.run.output, resume=resume, fresh=fresh)
    return StagedCheckpoint.shared(job.run.output)


def _check_weights(job: Job) -> Unchanged:
    """Look whether all weights are finite, each process at some of them."""
    sources = Unchanged(job.original)
    names = list(job.original.tensors)[job.ranks.rank :: job.ranks.size]
    job.progress.start("check", len(names))
    job.original.check_finite(names, job.progress.step)
    check_norms(job)
    return sources


def _noted(job: Job, stage: StagedCheckpoint, sources: Unchanged, *, resume: bool) -> RunJournal:
    """The journal of this run, of a resumed one without the files that were damaged; the first process keeps it."""
    if not job.ranks.first:
        record = RunRecord.model_validate(job.ranks.told(dict))
        if not stage.journal_path.is_file():
            raise OutputError(f"{stage.folder} is not there: all processes of a run need to see the same output folder")
        return Journal.follow(record, resumed=resume)
    journal = _open_journal(job, stage, sources, resume=resume)
    if resume:
        decoder = [place.key for place in job.model.decoder_blocks]
        remove_damaged(stage, journal, decoder, job.progress.say)
    job.ranks.told(lambda: journal.record.model_dump(mode="json"))
    return journal


def _published(job: Job, done: Quantized, trial: Trial | None) -> QuantReport:
    if job.ranks.size == 1:
        return publish(job, done, trial)
    report = job.ranks.told(lambda: publish(job, done, trial).model_dump(mode="json"))
    return QuantReport.model_validate(report)


def _open_journal(job: Job, stage: StagedCheckpoint, sources: Unchanged, *, resume: bool) -> RunJournal:
    """The journal of this run; a resumed one must have the same fingerprint, or the bytes would differ."""
    fingerprint = {
        **job.run.model_dump(mode="json", include={"recipe", "vision"}),
        "method": job.main.record.model_dump(include={"name", "distribution", "version"}),
        "options": job.main.record.config,
        "overrides": job.run.overrides,
        "further": {share.record.selector: share.record.model_dump() for share in job.shares[1:]},
        "model": sources.digests,
        "calibration": job.run.model_dump(include=CALIBRATION),
        "decoding": job.decoding.model_dump() if job.lacks_answers else None,
        "keep_head": job.run.keep_head,
        "forward": job.run.forward,
        "device": str(job.model.device),
        "ranks": job.ranks.size,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    if resume:
        return Journal.resume(stage.journal_path, fingerprint, RunRecord, sources.check)
    return Journal.start(stage.journal_path, fingerprint, RunRecord(), sources.check)


def _let_answer(job: Job, sources: Unchanged) -> None:
    """Let the full-precision model answer to the pages before any of it is streamed, if it is to."""
    if not job.lacks_answers:
        return
    with job.watch.phase("answers"):
        job.records = own_answers(job, job.ranks.told(lambda: sources.digests))
    release_memory()
    # The samples are longer now than they were thought to be.
    check_resources(job)


def _quantize_towers(job: Job, stage: StagedCheckpoint, journal: RunJournal) -> EmbeddedSamples | None:
    """Quantize the vision tower, if asked to, and the decoder; return the samples that calibrated them."""
    towers = Towers(job, stage, journal)
    prepare_model(job, stage, journal, towers.full_precision_batches)
    vision = towers.quantize_vision() if job.quantizes_vision else None
    if not job.records:
        quantize_blocks(job, stage, journal, job.model.decoder_blocks, None)
        return None
    samples, load = towers.decoder_streams(vision)
    # Frees its features before the decoder's inputs are loaded.
    del vision
    release_memory()
    quantize_blocks(job, stage, journal, job.model.decoder_blocks, load())
    return samples
