"""The whole job: a checkpoint goes in, a quantized one comes out."""

from __future__ import annotations

from dataclasses import replace

import torch

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs
from hyocr_core.plugin.watch import watching
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import versions
from hyocr_core.run.activations import ActivationCache
from hyocr_core.run.blocks import quantize_blocks
from hyocr_core.run.embedding import EmbeddedSamples, Embedding, embed_samples
from hyocr_core.run.job import Drawn, Job, check_norms, check_resources, prepare
from hyocr_core.run.own_answers import own_answers
from hyocr_core.run.publish import Quantized, publish
from hyocr_core.run.token_weights import balanced_weights
from hyocr_core.run.trial import prepare_trial
from hyocr_core.settings.run_config import RunConfig

CALIBRATION = {"calib", "task", "answers", "num_samples", "seed", "keep_duplicates"}
"""Keys of a RunConfig that say what a method learns from."""

EMBEDDED = "embedded"
"""The journal's entry for: every sample is at the input of the decoder."""


def quantize(
    run: RunConfig, *, resume: bool = False, progress: Progress | None = None, drawn: Drawn | None = None
) -> QuantReport:
    """Quantize a checkpoint as `run` says and publish it at `run.output`.

    With `run.eval` it reads these pages before, beside the original; if it then fails `run.gate`, as the report says in
    `gate.accepted`, it is published at `run.output` with `.unaccepted` appended, unless `run.keep`.
    Raises BadInputError before anything is written when an input cannot be used, RunError when the run fails; what is
    done by then stays beside the target, and `resume=True` goes on from there to the same bytes.
    drawn: pages that a run of the same pages has drawn; None draws.
    """
    job = prepare(run, progress or Silent(), drawn)
    check_resources(job)
    trial = prepare_trial(job)
    with (
        watching(job.observers, job.progress.say) as watch,
        StagedCheckpoint.open(run.output, resume=resume) as stage,
    ):
        job.method = replace(job.method, watch=watch)
        with job.watch.phase("check"):
            digests = _check_weights(job)
        journal = _open_journal(job, stage, digests, resume=resume)
        _let_answer(job, digests)
        done = sum(key.startswith("block-") for key in journal.entries)
        samples = _quantize_towers(job, stage, journal)
        job.observed = watch.close()
        quantized = Quantized(stage, journal, samples, digests, done - 1 if done else None)
        return publish(job, quantized, trial)


def _check_weights(job: Job) -> dict[str, str]:
    job.progress.start("check", len(job.reader.tensors))
    job.reader.check_finite(job.reader.tensors, job.progress.step)
    check_norms(job)
    return job.reader.digests()


def _open_journal(job: Job, stage: StagedCheckpoint, digests: dict[str, str], *, resume: bool) -> Journal:
    """The journal of this run; a resumed one must have the same fingerprint, or the bytes would differ."""
    spec, entry = job.method.spec, job.method.entry
    fingerprint = {
        "method": {"name": spec.name, "distribution": entry.distribution, "version": entry.version},
        "options": job.config.model_dump(mode="json"),
        "model": digests,
        "calibration": job.run.model_dump(include=CALIBRATION),
        "device": str(job.model.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    begin = Journal.resume if resume else Journal.start
    return begin(stage.journal_path, fingerprint)


def _let_answer(job: Job, digests: dict[str, str]) -> None:
    """Let the full-precision model answer to the pages before any of it is streamed, if it is to."""
    if not job.lacks_answers:
        return
    with job.watch.phase("answers"):
        job.records = own_answers(job, digests)
    # The samples are longer now than they were thought to be.
    check_resources(job)


def _quantize_towers(job: Job, stage: StagedCheckpoint, journal: Journal) -> EmbeddedSamples | None:
    """Quantize the vision tower, if asked to, and the decoder; return the samples that calibrated them."""
    cache = None
    if job.config.quant_vit:
        cache = _quantize_vision(job, stage, journal)
    if not job.records:
        quantize_blocks(job, stage, journal, job.model.decoder_blocks, None)
        return None
    samples = _embed(job, stage, journal, cache)
    # Frees the features before the decoder's inputs are loaded.
    del cache
    weights = balanced_weights(samples.kinds) if job.balances_tokens else None
    inputs = ActivationCache(samples.folder, samples.names, job.model.batch, spill=job.run.spill, weights=weights)
    quantize_blocks(job, stage, journal, job.model.decoder_blocks, inputs)
    return samples


def _quantize_vision(job: Job, stage: StagedCheckpoint, journal: Journal) -> ActivationCache | None:
    """Quantize the vision tower; return what it makes of the samples' images, None when that is not needed (again)."""
    places = job.model.vision_blocks
    if not job.records or EMBEDDED in journal.entries:
        quantize_blocks(job, stage, journal, places, None)
        return None

    def patches(_index: int, inputs: ModelInputs) -> Embedded:
        return job.model.embed_patches(inputs)

    how = Embedding("patches", "patches", stage.folder / "patches", patches)
    with job.watch.phase("vision"), job.model.patch_embedding():
        samples = embed_samples(how, job.records, job.processor, job.model.max_tokens, journal, job.progress)
    cache = ActivationCache(samples.folder, samples.names, job.model.vision_batch, spill=job.run.spill)
    quantize_blocks(job, stage, journal, places, cache, through_last=True)
    return cache


def _embed(job: Job, stage: StagedCheckpoint, journal: Journal, vision: ActivationCache | None) -> EmbeddedSamples:
    """Bring every sample to the input of the decoder; `vision` holds the features of a quantized vision tower."""

    def embed(index: int, inputs: ModelInputs) -> Embedded:
        features = None if vision is None else vision.get(index).hidden_states[0].to(job.model.device)
        return job.model.embed(inputs, features)

    how = Embedding("vision", "sample", stage.folder / "inputs", embed)
    with job.watch.phase("vision"), job.model.front(vision=vision is None):
        samples = embed_samples(how, job.records, job.processor, job.model.max_tokens, journal, job.progress)
    if EMBEDDED not in journal.entries:
        journal.record(EMBEDDED, len(samples.names))
    return samples
