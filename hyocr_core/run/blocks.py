"""The block loop: each block is built, calibrated, quantized, written, run once more and freed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.quant_report import LayerRecord
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.contract.types import Block, Layer, Stats
from hyocr_core.errors import RunError
from hyocr_core.formats.cache import stored_name
from hyocr_core.kit.checks import is_finite
from hyocr_core.models.dequantized import emulate_inputs, packed_tensors, unpack_layer
from hyocr_core.models.wiring import Place
from hyocr_core.run.activations import ActivationCache, CachedBatches
from hyocr_core.run.job import Job


def quantize_blocks(
    job: Job,
    stage: StagedCheckpoint,
    journal: Journal,
    places: Sequence[Place],
    cache: ActivationCache | None,
    *,
    through_last: bool = False,
) -> None:
    """Quantize these blocks one after the other; those in the journal are restored instead, if samples go on from them.

    cache: the samples at the input of the first block, carried on by the quantized blocks; after the last one only
    `through_last`. None for a run without calibration data.
    """
    job.progress.start("vision blocks" if through_last else "blocks", len(places))
    for index, place in enumerate(places):
        goes_on = cache is not None and (through_last or place is not places[-1])
        if place.key in journal.entries and not goes_on:
            # Read all the same: a damaged part is refused here, with what to do about it.
            stage.read_part(place.key)
            job.progress.step(job.model.block_name(place))
            continue
        with job.model.block(place, index, job.plan.quantized) as block:
            tensors = _restored(job, block, place, stage) if place.key in journal.entries else None
            if tensors is None:
                tensors = _quantize_block(job, block, place, stage, journal, cache)
            if cache is not None and goes_on:
                with job.watch.phase("propagate"), _emulated(job, block, tensors):
                    _propagate(job, block, cache)
        job.progress.step(block.name)


def _quantize_block(
    job: Job, block: Block, place: Place, stage: StagedCheckpoint, journal: Journal, cache: ActivationCache | None
) -> dict[str, Tensor]:
    """Quantize one block in memory and on disk; return its tensors as they are written."""
    stats: dict[str, Stats] | None = None
    tensors: dict[str, Tensor] = {}
    if cache is not None and block.layers:
        with job.watch.phase("calibrate"):
            batches = CachedBatches(cache, lambda name: job.progress.detail(f"{block.name}: calibrate {name}"))
            before = _left_alone(job, block, place)
            stats = job.method.calibrate(block, batches, job.config)
            after = _left_alone(job, block, place)
            tensors |= {name: after[name] for name in after if not torch.equal(after[name], before[name])}
    rescaled = list(tensors)
    records: list[LayerRecord] = []
    with job.watch.phase("quantize"):
        for group in block.groups:
            job.progress.detail(f"quantize {', '.join(group)}")
            records += _quantize_group(job, block, group, stats, tensors)
    with job.watch.phase("write"):
        stage.add_part(place.key, tensors)
    size = sum(tensor.nbytes for tensor in tensors.values())
    layers = [record.model_dump(mode="json") for record in records]
    journal.record(place.key, {"layers": layers, "bytes": size, "rescaled": rescaled})
    return tensors


def _left_alone(job: Job, block: Block, place: Place) -> dict[str, Tensor]:
    """Copies of the parameters that are not to be quantized, by on-disk name, if the method may rescale them."""
    if not job.method.spec.rescales_block:
        return {}
    quantized = {f"{name}.weight" for name in block.layers}
    names = job.model.parameter_names(place)
    return {
        names[name]: parameter.detach().clone()
        for name, parameter in block.module.named_parameters()
        if names[name] not in quantized
    }


def _quantize_group(
    job: Job, block: Block, group: tuple[str, ...], stats: dict[str, Stats] | None, tensors: dict[str, Tensor]
) -> list[LayerRecord]:
    """Quantize layers that share an input, put their packed tensors into `tensors` and their weights into the block."""
    layers = [Layer(name, block.layers[name].weight.detach()) for name in group]
    start = time.perf_counter()
    results = job.method.quantize_group(layers, stats, job.config)
    seconds = (time.perf_counter() - start) / len(layers)
    for result in results:
        packed = job.method.pack(result, job.config)
        tensors |= {stored_name(result.name, local): value for local, value in packed.items()}
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


def _restored(job: Job, block: Block, place: Place, stage: StagedCheckpoint) -> dict[str, Tensor]:
    """Give a finished block the parameters it was left with, so that the blocks after it see the same inputs."""
    tensors = stage.read_part(place.key)
    packed = packed_tensors(tensors, block.layers)
    for layer, names in packed.items():
        local = {name: tensors[name].to(job.model.device) for name in names}
        block.layers[layer].weight.data = unpack_layer(layer, local, job.method, job.config)
    rescaled = tensors.keys() - {name for names in packed.values() for name in names}
    for name, disk in job.model.parameter_names(place).items():
        if disk in rescaled:
            block.module.get_parameter(name).data = tensors[disk].to(job.model.device)
    return tensors


@contextmanager
def _emulated(job: Job, block: Block, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the block's layers see their inputs as the runtime's kernels do."""
    handles = emulate_inputs(block.layers, tensors, job.method, job.config)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _propagate(job: Job, block: Block, cache: ActivationCache) -> None:
    batches = CachedBatches(cache, lambda name: job.progress.detail(f"{block.name}: forward {name}"))
    for index, batch in enumerate(batches):
        output = block.run(batch)
        if not is_finite(output):
            raise RunError(f"{block.name}: its output is NaN or infinite for the sample {batch.name}")
        cache.put(index, output)
