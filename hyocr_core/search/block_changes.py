"""What every candidate makes of every group of one block, each group quantized alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from hyocr_core.contract.types import Batch, Block, Layer, QuantizedLayer, Stats
from hyocr_core.kit.statistics import values_of
from hyocr_core.models.hunyuan_vl import Embedded
from hyocr_core.models.stages import lone_group
from hyocr_core.models.wiring import Place
from hyocr_core.run.activations import ActivationCache
from hyocr_core.run.streams import BlockBatches, GroupBatches, StagedStream, Streams
from hyocr_core.search.candidates import Candidate, Group
from hyocr_core.search.change import Change
from hyocr_core.search.search_plan import SearchPlan

Changes: TypeAlias = dict[tuple[Group, str], dict[str, Change]]
"""(group, candidate) -> linear -> what becomes of it."""


def changes_of(
    plan: SearchPlan,
    block: Block,
    place: Place,
    states: Path,
    names: list[str],
    to_batch: Callable[[str, Embedded], Batch],
) -> Changes:
    """Let every candidate quantize every group that it covers, on the full-precision model's own inputs.

    states: folder of the samples at the input of the block. The block is left as it was.
    """
    cache = ActivationCache(states, names, to_batch, spill=plan.config.spill)
    whole = {each.name: _block_stats(each, block, cache) for each in plan.candidates}
    stream = StagedStream(block.module, place, plan.job.model.linear_paths(place), cache)
    changes: Changes = {}
    for group in block.groups:
        covering = [each for each in plan.candidates if each.covers(group)]
        if any(_by_group(each) for each in covering):
            stream.enter(group, plan.job.progress.detail)
        for each in covering:
            stats = _group_stats(each, block, group, cache, stream) if _by_group(each) else whole[each.name]
            changes[group, each.name] = dict(_quantize(each, block, group, stats))
    return changes


def _by_group(candidate: Candidate) -> bool:
    return bool(candidate.job.records) and candidate.job.method.spec.inputs == "group"


def _block_stats(candidate: Candidate, block: Block, cache: ActivationCache) -> dict[str, Stats] | None:
    """Statistics of a method that looks at whole blocks; None for any other, and for one that learns from nothing."""
    job = candidate.job
    own = _covered(candidate, block)
    if not job.records or _by_group(candidate) or not own.layers:
        return None
    reference = cache if job.follows_reference else None
    batches = BlockBatches(Streams(cache, reference), job.progress.detail)
    return _learn(candidate, own, batches)


def _group_stats(
    candidate: Candidate, block: Block, group: Group, cache: ActivationCache, stream: StagedStream
) -> dict[str, Stats]:
    job = candidate.job
    # Nothing before the group is quantized: both paths are the full-precision one.
    reference = stream if job.follows_reference else None
    batches = GroupBatches(cache, stream, reference, job.progress.detail)
    return _learn(candidate, lone_group(_covered(candidate, block), group), batches)


def _learn(candidate: Candidate, block: Block, batches: BlockBatches | GroupBatches) -> dict[str, Stats]:
    job = candidate.job
    config = job.options[block.groups[0][0]] if block.of_group else job.config
    collected = job.method.calibrate(block, batches, config)
    return job.method.settle(block, batches, values_of(collected), config, job.run.seed)


def _covered(candidate: Candidate, block: Block) -> Block:
    """The block as a method sees it that quantizes what this candidate does."""
    groups = tuple(group for group in block.groups if candidate.covers(group))
    names = [name for group in groups for name in group]
    configs = {name: candidate.job.options[name] for name in names}
    layers = {name: block.layers[name] for name in names}
    return replace(block, layers=layers, groups=groups, configs=configs, smoothing=())


def _quantize(
    candidate: Candidate, block: Block, group: Sequence[str], stats: dict[str, Stats] | None
) -> Iterator[tuple[str, Change]]:
    job = candidate.job
    job.progress.detail(f"{candidate.name}: quantize {', '.join(group)}")
    layers = [Layer(name, block.layers[name].weight.detach()) for name in group]
    for layer, result in zip(
        layers, job.method.quantize_group(layers, stats, job.options[group[0]], job.run.seed), strict=True
    ):
        if result.degraded is not None:
            job.progress.say(f"{candidate.name}: {result.name}: degraded, {result.degraded}")
        difference = (result.dequantized.float() - layer.weight.float()).to(layer.weight.dtype)
        yield layer.name, Change(difference, result.dequantized, _seen(candidate, result))


def _seen(candidate: Candidate, result: QuantizedLayer) -> Callable[[Tensor], Tensor] | None:
    job = candidate.job
    if not job.method.implements("quantize_inputs"):
        return None
    config = job.options[result.name]
    tensors = job.method.pack_exactly(result, config)
    return partial(job.method.quantize_inputs, tensors=tensors, config=config, layer=result.name)
