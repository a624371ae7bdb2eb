"""The whole job: a checkpoint goes in, a quantized one comes out. The only caller of a method's hooks."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch

from hyocr_core import __version__
from hyocr_core.activations import ActivationCache, CachedBatches
from hyocr_core.calibration.processor import load_processor
from hyocr_core.calibration.sources import Record, open_source, select
from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.report import (
    FILE_NAME,
    CalibrationRecord,
    LayerRecord,
    MethodRecord,
    ModelRecord,
    QuantReport,
)
from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.checkpoint.space import check_disk, required_disk
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.config import MethodConfig, RunConfig
from hyocr_core.embedding import EmbeddedSamples, embed_samples, tokens_per_sample
from hyocr_core.errors import CheckpointError, RunError
from hyocr_core.models.dequantized import packed_tensors, unpack_layer
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import pick_device
from hyocr_core.numerics import is_finite
from hyocr_core.plan import Plan, make_plan
from hyocr_core.progress import Progress, Silent
from hyocr_core.registry import Method, load_method
from hyocr_core.resources import RUNTIME_BYTES, Stopwatch, check_memory, peak_rss_bytes
from hyocr_core.types import Block, Layer, Stats

INPUTS = "inputs"


@dataclass
class Job:
    """Everything a run has decided before its first long step."""

    run: RunConfig
    method: Method
    config: MethodConfig
    source: ResolvedModel
    reader: CheckpointReader
    model: HunYuanVL
    plan: Plan
    records: Sequence[Record]
    processor: Any
    progress: Progress
    watch: Stopwatch = field(default_factory=Stopwatch)


def quantize(run: RunConfig, *, resume: bool = False, progress: Progress | None = None) -> QuantReport:
    """Quantize a checkpoint as `run` says and publish it at `run.output`.

    Raises BadInputError before anything is written when an input cannot be used, RunError when the run fails; what is
    done by then stays beside the target, and `resume=True` goes on from there to the same bytes.
    """
    job = _prepare(run, progress or Silent())
    with StagedCheckpoint.open(run.output, resume=resume) as stage:
        with job.watch.phase("check"):
            digests = _check_weights(job)
        journal = _open_journal(job, stage, digests, resume=resume)
        samples = None
        if job.method.spec.needs_calibration:
            with job.watch.phase("vision"):
                samples = embed_samples(
                    job.model, job.records, job.processor, stage.folder / INPUTS, journal, job.progress
                )
        done = sum(key.startswith("block-") for key in journal.entries)
        _quantize_blocks(job, stage, journal, samples)
        return _publish(job, stage, journal, samples, digests, resumed_after=done - 1 if done else None)


def _prepare(run: RunConfig, progress: Progress) -> Job:
    method = load_method(run.method)
    config = method.config(run.options)
    source = resolve_model(run.model)
    reader = CheckpointReader(source.folder)
    quantization = reader.config.get("quantization_config")
    if quantization is not None:
        kind = quantization.get("quant_method", "unknown method")
        raise CheckpointError(f"{source.folder}: is already quantized ({kind}); give the full-precision checkpoint")
    model = HunYuanVL(reader, pick_device(run.device))
    plan = make_plan(model, config.ignore)
    method.check_layers(plan.quantized, config)
    records: Sequence[Record] = ()
    processor = None
    if method.spec.needs_calibration:
        if run.calib == "synthetic":
            progress.say("no --calib given: calibrating on rendered text pages, your own pages would serve better")
        records = select(open_source(run.calib), run.num_samples, run.seed)
        processor = load_processor(source.folder)
    job = Job(run, method, config, source, reader, model, plan, records, processor, progress)
    _check_resources(job)
    return job


def _check_resources(job: Job) -> None:
    weights = [f"{name}.weight" for name in job.plan.quantized]
    linears = sum(job.reader.tensors[name].nbytes for name in weights)
    tokens = tokens_per_sample(job.records, job.processor) if job.records else 0
    activations = len(job.records) * tokens * 2 * job.model.config.text_config.hidden_size
    # No method packs to more than the full-precision weight.
    on_disk = required_disk(job.reader, weights, linears) + activations * (2 if job.run.spill else 1)
    check_disk(job.run.output, on_disk)
    if job.model.device.type == "cpu":
        total = sum(info.nbytes for info in job.reader.tensors.values())
        front = total - linears if job.records else 0
        block = 6 * linears // job.model.num_blocks
        resident = 0 if job.run.spill else activations
        check_memory(RUNTIME_BYTES + max(front, block + resident), "use fewer samples, or --spill")


def _check_weights(job: Job) -> dict[str, str]:
    job.progress.start("check", len(job.reader.tensors))
    job.reader.check_finite(job.reader.tensors, job.progress.step)
    return job.reader.digests()


def _open_journal(job: Job, stage: StagedCheckpoint, digests: dict[str, str], *, resume: bool) -> Journal:
    """The journal of this run; a resumed one must have the same fingerprint, or the bytes would differ."""
    spec, entry = job.method.spec, job.method.entry
    fingerprint = {
        "method": {"name": spec.name, "distribution": entry.distribution, "version": entry.version},
        "options": job.config.model_dump(mode="json"),
        "model": digests,
        "calibration": {"source": job.run.calib, "num_samples": job.run.num_samples, "seed": job.run.seed},
        "device": str(job.model.device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }
    begin = Journal.resume if resume else Journal.start
    return begin(stage.journal_path, fingerprint)


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "safetensors", "pillow")
    return {"hyocr-core": __version__, "python": platform.python_version()} | {p: version(p) for p in packages}


def _quantize_blocks(job: Job, stage: StagedCheckpoint, journal: Journal, samples: EmbeddedSamples | None) -> None:
    cache = None
    if samples is not None:
        cache = ActivationCache(samples.folder, samples.names, job.model.batch, spill=job.run.spill)
    last = job.model.num_blocks - 1
    job.progress.start("blocks", job.model.num_blocks)
    for index in range(job.model.num_blocks):
        key = f"block-{index:05d}"
        with job.model.block(index, job.plan.quantized) as block:
            if key in journal.entries:
                _restore(job, block, stage.read_part(key))
            else:
                records, size = _quantize_block(job, block, stage, key, cache)
                journal.record(key, {"layers": [r.model_dump(mode="json") for r in records], "bytes": size})
            if cache is not None and index != last:
                with job.watch.phase("propagate"):
                    _propagate(job, block, cache)
        job.progress.step(block.name)


def _quantize_block(
    job: Job, block: Block, stage: StagedCheckpoint, key: str, cache: ActivationCache | None
) -> tuple[list[LayerRecord], int]:
    stats: dict[str, Stats] | None = None
    if cache is not None and block.layers:
        with job.watch.phase("calibrate"):
            batches = CachedBatches(cache, lambda name: job.progress.detail(f"{block.name}: calibrate {name}"))
            stats = job.method.calibrate(block, batches, job.config)
    tensors: dict[str, torch.Tensor] = {}
    records: list[LayerRecord] = []
    with job.watch.phase("quantize"):
        for group in block.groups:
            job.progress.detail(f"quantize {', '.join(group)}")
            records += _quantize_group(job, block, group, stats, tensors)
    with job.watch.phase("write"):
        stage.add_part(key, tensors)
    return records, sum(tensor.nbytes for tensor in tensors.values())


def _quantize_group(
    job: Job, block: Block, group: tuple[str, ...], stats: dict[str, Stats] | None, tensors: dict[str, torch.Tensor]
) -> list[LayerRecord]:
    """Quantize layers that share an input, put their packed tensors into `tensors` and their weights into the block."""
    layers = [Layer(name, block.layers[name].weight.detach()) for name in group]
    start = time.perf_counter()
    results = job.method.quantize_group(layers, stats, job.config)
    seconds = (time.perf_counter() - start) / len(layers)
    for result in results:
        packed = job.method.pack(result, job.config)
        tensors |= {f"{result.name}.{local}": value for local, value in packed.items()}
        block.layers[result.name].weight.data = result.dequantized
        if result.degraded is not None:
            job.progress.say(f"{result.name}: degraded, {result.degraded}")
    return [
        LayerRecord(
            name=result.name,
            shape=job.plan.quantized[result.name],
            seconds=seconds,
            metrics=dict(result.metrics),
            degraded=result.degraded,
        )
        for result in results
    ]


def _restore(job: Job, block: Block, tensors: dict[str, torch.Tensor]) -> None:
    """Give a finished block the weights it was quantized to, so that the blocks after it see the same inputs."""
    for layer, names in packed_tensors(tensors, block.layers).items():
        local = {name: tensors[name].to(job.model.device) for name in names}
        block.layers[layer].weight.data = unpack_layer(layer, local, job.method, job.config)


@torch.no_grad()
def _propagate(job: Job, block: Block, cache: ActivationCache) -> None:
    batches = CachedBatches(cache, lambda name: job.progress.detail(f"{block.name}: forward {name}"))
    for index, batch in enumerate(batches):
        output = block.run(batch)
        if not is_finite(output):
            raise RunError(f"{block.name}: its output is NaN or infinite for the sample {batch.name}")
        cache.put(index, output)


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
    blocks = {key: value for key, value in journal.entries.items() if key.startswith("block-")}
    quantized = {f"{name}.weight" for name in job.plan.quantized}
    carried = [name for name in job.reader.tensors if name not in quantized]
    layers = [layer for block in blocks.values() for layer in block["layers"]]
    report = QuantReport(
        hyocr=__version__,
        method=MethodRecord(
            name=job.method.spec.name,
            distribution=job.method.entry.distribution,
            version=job.method.entry.version,
            config=job.config.model_dump(mode="json"),
        ),
        model=ModelRecord(
            source=job.source.repo_id or job.source.folder.resolve().name, revision=job.source.revision, sha256=digests
        ),
        calibration=_calibration_record(job, samples),
        ignored=job.plan.ignored,
        layers=tuple(LayerRecord.model_validate(layer) for layer in layers),
        weight_bytes_before=sum(info.nbytes for info in job.reader.tensors.values()),
        weight_bytes_after=sum(job.reader.tensors[name].nbytes for name in carried)
        + sum(block["bytes"] for block in blocks.values()),
        phases={name: round(seconds, 3) for name, seconds in job.watch.phases.items()},
        peak_rss_bytes=peak_rss_bytes(),
        resumed_after_block=resumed_after,
        environment=_versions() | {"device": str(job.model.device), "platform": platform.platform()},
    )
    config = job.reader.config | {"quantization_config": job.method.checkpoint_config(job.plan.names, job.config)}
    text = report.model_dump_json(indent=2) + "\n"
    stage.finish(job.reader, carried, list(blocks), config, {FILE_NAME: text.encode()})
    job.progress.step()
    return report


def _calibration_record(job: Job, samples: EmbeddedSamples | None) -> CalibrationRecord | None:
    if samples is None:
        return None
    return CalibrationRecord(
        source=job.run.calib.rsplit("/", 1)[-1],
        seed=job.run.seed,
        samples=len(samples.names),
        tokens=samples.tokens,
        failures=samples.failures,
        sha256=samples.sha256,
    )
