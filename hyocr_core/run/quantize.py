"""The whole job: a checkpoint goes in, a quantized one comes out."""

from __future__ import annotations

from dataclasses import replace

import torch

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.checkpoint.unchanged import Unchanged
from hyocr_core.checkpoint.writer import StagedCheckpoint, goes_on
from hyocr_core.kit.threads import chosen_precision
from hyocr_core.plugin.watch import watching
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import versions
from hyocr_core.run.blocks import quantize_blocks
from hyocr_core.run.embedding import EmbeddedSamples
from hyocr_core.run.job import Drawn, Job, check_norms, check_resources, prepare
from hyocr_core.run.own_answers import own_answers
from hyocr_core.run.prepare_model import prepare_model
from hyocr_core.run.publish import Quantized, finish, publish, published_at
from hyocr_core.run.run_record import RunJournal, RunRecord
from hyocr_core.run.towers import Towers
from hyocr_core.run.trial import prepare_trial
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
) -> QuantReport:
    """Quantize a checkpoint as `run` says and publish it at `run.output`.

    With `run.eval` it reads these pages before, beside the original; if it then fails `run.gate`, as the report says in
    `gate.accepted`, it is published at `run.output` with `.unaccepted` appended, unless `run.keep`.
    Raises BadInputError before anything is written when an input cannot be used, RunError when the run fails; what is
    done by then stays beside the target, and the same run goes on from there to the same bytes, or finds it finished.
    resume: None goes on if there is an unfinished run; True demands one; False refuses to begin beside one.
    fresh: begin anew, and delete what an unfinished run has done once this one is found to be possible.
    drawn: pages that a run of the same pages has drawn; None draws.
    """
    resume = goes_on(run.output, resume=resume, fresh=fresh)
    finished = finish(run) if resume else None
    if finished is not None:
        (progress or Silent()).say(f"{published_at(run, finished)} is finished already")
        return finished
    job = prepare(run, progress or Silent(), drawn)
    check_resources(job)
    trial = prepare_trial(job)
    with (
        watching(job.observers, job.progress.say) as watch,
        StagedCheckpoint.open(run.output, resume=resume, fresh=fresh) as stage,
    ):
        job.shares = tuple(replace(share, method=replace(share.method, watch=watch)) for share in job.shares)
        with job.watch.phase("check"):
            sources = _check_weights(job)
        journal = _open_journal(job, stage, sources, resume=resume)
        if resume:
            decoder = [place.key for place in job.model.decoder_blocks]
            remove_damaged(stage, journal, decoder, job.progress.say)
        _let_answer(job, sources.digests)
        done = sum(is_done(stage, journal, place.key) for place in job.model.decoder_blocks)
        if resume:
            total = len(job.model.decoder_blocks)
            job.progress.say(f"going on with an interrupted run, which has done {done} of {total} blocks")
        samples = _quantize_towers(job, stage, journal)
        job.observed = watch.close()
        quantized = Quantized(stage, journal, samples, sources, done - 1 if done else None)
        return publish(job, quantized, trial)


def _check_weights(job: Job) -> Unchanged:
    sources = Unchanged(job.original)
    job.progress.start("check", len(job.original.tensors))
    job.original.check_finite(job.original.tensors, job.progress.step)
    check_norms(job)
    return sources


def _open_journal(job: Job, stage: StagedCheckpoint, sources: Unchanged, *, resume: bool) -> RunJournal:
    """The journal of this run; a resumed one must have the same fingerprint, or the bytes would differ."""
    fingerprint = {
        "method": job.main.record.model_dump(include={"name", "distribution", "version"}),
        "options": job.main.record.config,
        "overrides": job.run.overrides,
        "further": {share.record.selector: share.record.model_dump() for share in job.shares[1:]},
        **job.run.model_dump(mode="json", include={"recipe", "vision"}),
        "model": sources.digests,
        "calibration": job.run.model_dump(include=CALIBRATION),
        "decoding": job.decoding.model_dump() if job.lacks_answers else None,
        "keep_head": job.run.keep_head,
        "forward": job.run.forward,
        "device": str(job.model.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    if resume:
        return Journal.resume(stage.journal_path, fingerprint, RunRecord, sources.check)
    return Journal.start(stage.journal_path, fingerprint, RunRecord(), sources.check)


def _let_answer(job: Job, digests: dict[str, str]) -> None:
    """Let the full-precision model answer to the pages before any of it is streamed, if it is to."""
    if not job.lacks_answers:
        return
    with job.watch.phase("answers"):
        job.records = own_answers(job, digests)
    # The samples are longer now than they were thought to be.
    check_resources(job)


def _quantize_towers(job: Job, stage: StagedCheckpoint, journal: RunJournal) -> EmbeddedSamples | None:
    """Quantize the vision tower, if asked to, and the decoder; return the samples that calibrated them."""
    towers = Towers(job, stage, journal)
    prepare_model(job, stage, journal, towers.full_precision_batches)
    features = towers.quantize_vision() if job.quantizes_vision else None
    if not job.records:
        quantize_blocks(job, stage, journal, job.model.decoder_blocks, None)
        return None
    samples, load = towers.decoder_streams(features)
    # Frees the features before the decoder's inputs are loaded.
    del features
    quantize_blocks(job, stage, journal, job.model.decoder_blocks, load())
    return samples
