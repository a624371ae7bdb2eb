"""The whole job: a checkpoint goes in, a quantized one comes out."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import torch

from hyocr_core import __version__
from hyocr_core.activations import ActivationCache
from hyocr_core.blocks import quantize_blocks
from hyocr_core.calibration.sources import source_name
from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.report import (
    FILE_NAME,
    CalibrationRecord,
    LayerRecord,
    MethodRecord,
    ModelRecord,
    QuantReport,
)
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.config import RunConfig
from hyocr_core.embedding import EmbeddedSamples, Embedding, embed_samples
from hyocr_core.job import Job, check_norms, check_resources, prepare, versions
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs
from hyocr_core.progress import Progress, Silent
from hyocr_core.report.card import FILE_NAME as CARD_NAME
from hyocr_core.report.card import model_card
from hyocr_core.resources import peak_rss_bytes

EMBEDDED = "embedded"
"""The journal's entry for: every sample is at the input of the decoder."""


def quantize(run: RunConfig, *, resume: bool = False, progress: Progress | None = None) -> QuantReport:
    """Quantize a checkpoint as `run` says and publish it at `run.output`.

    Raises BadInputError before anything is written when an input cannot be used, RunError when the run fails; what is
    done by then stays beside the target, and `resume=True` goes on from there to the same bytes.
    """
    job = prepare(run, progress or Silent())
    check_resources(job)
    with StagedCheckpoint.open(run.output, resume=resume) as stage:
        with job.watch.phase("check"):
            digests = _check_weights(job)
        journal = _open_journal(job, stage, digests, resume=resume)
        done = sum(key.startswith("block-") for key in journal.entries)
        samples = _quantize_towers(job, stage, journal)
        return _publish(job, stage, journal, samples, digests, resumed_after=done - 1 if done else None)


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
        "calibration": job.run.model_dump(include={"calib", "task", "num_samples", "seed", "keep_duplicates"}),
        "device": str(job.model.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    begin = Journal.resume if resume else Journal.start
    return begin(stage.journal_path, fingerprint)


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
    inputs = ActivationCache(samples.folder, samples.names, job.model.batch, spill=job.run.spill)
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


def _publish(
    job: Job,
    stage: StagedCheckpoint,
    journal: Journal,
    samples: EmbeddedSamples | None,
    digests: dict[str, str],
    *,
    resumed_after: int | None,
) -> QuantReport:
    job.progress.start("write", 1)
    places = (*job.model.vision_blocks, *job.model.decoder_blocks)
    blocks = {place.key: journal.entries[place.key] for place in places if place.key in journal.entries}
    rescaled = [name for block in blocks.values() for name in block["rescaled"]]
    replaced = {f"{name}.weight" for name in job.plan.quantized} | set(rescaled)
    carried = [name for name in job.reader.tensors if name not in replaced]
    reports: list[QuantReport] = []

    def describe(files: Mapping[str, str]) -> dict[str, bytes]:
        layers = [layer for block in blocks.values() for layer in block["layers"]]
        reports.append(
            QuantReport(
                hyocr=__version__,
                method=MethodRecord(
                    name=job.method.spec.name,
                    distribution=job.method.entry.distribution,
                    version=job.method.entry.version,
                    config=job.config.model_dump(mode="json"),
                ),
                model=ModelRecord(
                    source=job.source.repo_id or job.source.folder.resolve().name,
                    revision=job.source.revision,
                    sha256=digests,
                ),
                calibration=_calibration_record(job, samples),
                ignored=job.plan.ignored,
                rescaled=tuple(rescaled),
                layers=tuple(LayerRecord.model_validate(layer) for layer in layers),
                output_sha256=dict(files),
                weight_bytes_before=sum(info.nbytes for info in job.reader.tensors.values()),
                weight_bytes_after=sum(job.reader.tensors[name].nbytes for name in carried)
                + sum(block["bytes"] for block in blocks.values()),
                phases={name: round(seconds, 3) for name, seconds in job.watch.phases.items()},
                peak_rss_bytes=peak_rss_bytes(),
                resumed_after_block=resumed_after,
                environment=versions() | {"device": str(job.model.device), "platform": platform.platform()},
            )
        )
        card = model_card(
            reports[0],
            job.run.output.resolve().name,
            job.quantization_config,
            job.source.folder / CARD_NAME,
            from_hub=job.source.repo_id is not None,
        )
        text = reports[0].model_dump_json(indent=2) + "\n"
        return {FILE_NAME: text.encode(), CARD_NAME: card.encode()}

    config = job.reader.config | {"quantization_config": job.quantization_config}
    stage.finish(job.reader, carried, list(blocks), config, describe)
    job.progress.step()
    return reports[0]


def _calibration_record(job: Job, samples: EmbeddedSamples | None) -> CalibrationRecord | None:
    if samples is None:
        return None
    return CalibrationRecord(
        source=source_name(job.run.calib),
        seed=job.run.seed,
        samples=len(samples.names),
        tokens=samples.tokens,
        failures=samples.failures,
        sha256=samples.sha256,
        page_sha256=samples.page_sha256,
    )
