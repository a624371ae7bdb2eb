"""What every candidate makes of every group of one block, each group quantized alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from torch import Tensor

from hyocr_core.contract.types import Block, Layer, QuantizedLayer, Stats
from hyocr_core.models.stages import lone_group
from hyocr_core.models.wiring import Place
from hyocr_core.run.activations import ActivationCache
from hyocr_core.run.blocks import learn
from hyocr_core.run.shares import Share
from hyocr_core.run.streams import BlockBatches, GroupBatches, StagedStream, Streams
from hyocr_core.search.candidates import Candidate, Group
from hyocr_core.search.change import Change
from hyocr_core.search.search_plan import SearchPlan

Changes: TypeAlias = dict[tuple[Group, str], dict[str, Change]]
"""(group, candidate) -> linear -> what becomes of it."""


def changes_of(plan: SearchPlan, block: Block, place: Place, cache: ActivationCache) -> Changes:
    """Let every candidate quantize every group that it covers, on the full-precision model's own inputs.

    cache: the samples at the input of the block. The block is left as it was.
    """
    # Nothing before a group is quantized: both paths are the full-precision one.
    tell, streams = plan.job.progress.detail, Streams(cache, cache)
    whole = {
        each.name: learn(each.job, each.share, _own(each, block), BlockBatches(streams, tell))
        for each in plan.candidates
        if each.share.method.spec.inputs == "block" and not block.layers.keys().isdisjoint(each.share.options)
    }
    stream = StagedStream(block.module, place, plan.job.model.linear_paths(place), cache)
    changes: Changes = {}
    for group in block.groups:
        covering = [each for each in plan.candidates if each.covers(group)]
        if any(each.name not in whole and each.share.learns_from(group) for each in covering):
            stream.enter(group, tell)
        learned: dict[Hashable, dict[str, Stats]] = {}
        for each in covering:
            stats = whole.get(each.name)
            if stats is None:
                key = _learns_as(each, group)
                if key not in learned:
                    alone = lone_group(_own(each, block), group)
                    learned[key] = learn(each.job, each.share, alone, GroupBatches(cache, stream, stream, tell))
                stats = learned[key]
            changes[group, each.name] = dict(_quantize(each, block, group, stats))
    return changes


def _learns_as(candidate: Candidate, group: Group) -> Hashable:
    """What is equal for candidates that learn the same of a group."""
    share = candidate.share
    if not share.method.spec.learns_alike:
        return candidate.name
    seen = share.learns_from(group), share.balances_tokens(group), share.follows_reference(group)
    return share.method.entry.source, seen


def _own(candidate: Candidate, block: Block) -> Block:
    """The block as the candidate's method sees it."""
    options = candidate.share.options
    configs = {name: options[name] for name in block.layers if name in options}
    return candidate.share.of_block(replace(block, configs=configs))


def _quantize(
    candidate: Candidate, block: Block, group: Sequence[str], stats: dict[str, Stats]
) -> Iterator[tuple[str, Change]]:
    job, share = candidate.job, candidate.share
    job.progress.detail(f"{candidate.name}: quantize {', '.join(group)}")
    layers = [Layer(name, block.layers[name].weight.detach()) for name in group]
    known = stats if group[0] in stats else None
    results = share.method.quantize_group(layers, known, share.options[group[0]], job.run.seed)
    for layer, result in zip(layers, results, strict=True):
        if result.degraded is not None:
            job.progress.say(f"{candidate.name}: {result.name}: degraded, {result.degraded}")
        difference = (result.dequantized.float() - layer.weight.float()).to(layer.weight.dtype)
        yield layer.name, Change(difference, result.dequantized, _seen(share, result))


def _seen(share: Share, result: QuantizedLayer) -> Callable[[Tensor], Tensor] | None:
    if not share.method.implements("quantize_inputs"):
        return None
    config = share.options[result.name]
    tensors = share.method.pack_exactly(result, config)
    return partial(share.method.quantize_inputs, tensors=tensors, config=config, layer=result.name)
