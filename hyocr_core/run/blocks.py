"""The block loop: each block is built, calibrated, quantized, written, run once more and freed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from hyocr_core.checkpoint.quant_report import LayerRecord
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.contract.types import Batches, Block, Layer, LayerSpec, QuantizedLayer, Stats
from hyocr_core.formats import StoredFormats
from hyocr_core.formats.cache import stored_name
from hyocr_core.kit.statistics import values_of
from hyocr_core.models.dequantized import emulate_inputs, local_names, packed_tensors
from hyocr_core.models.known_formats import known_formats
from hyocr_core.models.stages import lone_group
from hyocr_core.models.wiring import Place
from hyocr_core.ranks.ranks import Parcel
from hyocr_core.run.job import Job
from hyocr_core.run.run_record import BlockRecord, RunJournal
from hyocr_core.run.shares import Share, in_block
from hyocr_core.run.single_pass import SinglePass
from hyocr_core.run.streams import BlockBatches, Forward, GroupBatches, OwnBatches, StagedStream, Streams, propagate
from hyocr_core.run.trusted import check_same, is_done

DEQUANTIZED = "\0dequantized"
"""What the weight that a layer is left with goes by beside its packed tensors, whose names no plugin begins so."""


@dataclass
class Worked:
    """A block at work.

    original: its module as it was, for the full-precision path; None without that. hooks: what is to be undone at the
    end. formats: what config.json will say, None where only the method can read it. tensors: what is written of the
    block. rescaled: names among them that are not quantized. records: of its layers.
    """

    place: Place
    block: Block
    original: nn.Module | None
    hooks: ExitStack
    formats: StoredFormats | None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    rescaled: tuple[str, ...] = ()
    records: list[LayerRecord] = field(default_factory=list)


@dataclass(frozen=True)
class Paths:
    """What computes the block's output of a sample, by its index and input. reference: on the full-precision path."""

    quantized: Forward
    reference: Forward | None


def quantize_blocks(
    job: Job,
    stage: StagedCheckpoint,
    journal: RunJournal,
    places: Sequence[Place],
    streams: Streams | None,
    *,
    through_last: bool = False,
) -> None:
    """Quantize these blocks one after the other; those in the journal are restored instead, if samples go on from them.

    streams: the samples at the input of the first block, carried on by the blocks; after the last one only
    `through_last`. None for a run without calibration data.
    """
    job.progress.start("vision blocks" if through_last else "blocks", len(places))
    formats = known_formats(job.quantization_config)
    for index, place in enumerate(places):
        going_on = streams if through_last or place is not places[-1] else None
        if is_done(stage, journal, place.key) and going_on is None:
            job.progress.step(job.model.block_name(place))
            continue
        with job.model.block(place, index, job.plan.quantized) as block, ExitStack() as hooks:
            worked = Worked(place, _with_options(job, block), _copied(block, streams), hooks, formats)
            if is_done(stage, journal, place.key):
                paths = _restored(job, worked, stage)
            else:
                paths = _quantize_block(job, worked, streams, once=job.sees_original and going_on is not None)
                _write(job, worked, stage, journal)
            if going_on is not None:
                with job.watch.phase("propagate"):
                    _carry_on(job, worked, paths, going_on)
        job.progress.step(block.name)


def _with_options(job: Job, block: Block) -> Block:
    return replace(block, configs={name: job.share(name).options[name] for name in block.layers})


def _copied(block: Block, streams: Streams | None) -> nn.Module | None:
    needed = streams is not None and streams.reference is not None
    return copy.deepcopy(block.module) if needed else None


def _quantize_block(job: Job, worked: Worked, streams: Streams | None, *, once: bool) -> Paths:
    """Quantize one block in memory; return how the samples go on through it, `once`: as it makes them before that."""
    block, shares = worked.block, in_block(job.shares, worked.block.layers)
    whole = [share for share in shares if share.method.spec.inputs == "block"]
    if streams is None:
        _quantize_groups(job, worked, block.groups, {})
        return _whole(job, worked)
    batches = BlockBatches(streams, _telling(job, block, "calibrate"))
    samples = SinglePass(block, batches) if once else batches
    stats = _learn_block(job, worked, whole, samples)
    if len(whole) < len(shares):
        return _quantize_in_stages(job, worked, streams, stats)
    _quantize_groups(job, worked, block.groups, stats)
    return Paths(samples.output, None) if isinstance(samples, SinglePass) else _whole(job, worked)


def _learn_block(
    job: Job, worked: Worked, shares: Sequence[Share], samples: BlockBatches | SinglePass
) -> dict[str, Stats]:
    """What the methods that see the whole block need of the samples, by layer; they may rescale it."""
    stats = dict[str, Stats]()
    with job.watch.phase("calibrate"):
        before = _left_alone(job, worked, shares)
        for share in shares:
            own = share.of_block(worked.block)
            if isinstance(samples, SinglePass):
                own = replace(own, run=samples.run)
            stats |= learn(job, share, own, samples)
        if isinstance(samples, SinglePass):
            samples.complete()
        after = _left_alone(job, worked, shares)
    changed = {name: after[name] for name in after if not torch.equal(after[name], before[name])}
    worked.tensors |= changed
    worked.rescaled = tuple(changed)
    return stats


def _quantize_in_stages(job: Job, worked: Worked, streams: Streams, stats: dict[str, Stats]) -> Paths:
    """Quantize a block group by group, each seeing what the groups before it make of the samples by then.

    stats: of the layers whose methods have seen the whole block.
    """
    block, paths = worked.block, job.model.linear_paths(worked.place)
    quantized = StagedStream(block.module, worked.place, paths, streams.quantized)
    reference = None
    if streams.reference is not None and worked.original is not None:
        reference = StagedStream(worked.original, worked.place, paths, streams.reference)
    for group in block.groups:
        share = job.share(group[0])
        with job.watch.phase("calibrate"):
            for stream in filter(None, (quantized, reference)):
                stream.enter(group, _telling(job, block, "forward"))
            if share.method.spec.inputs == "group":
                batches = GroupBatches(streams.quantized, quantized, reference, _telling(job, block, "calibrate"))
                stats = stats | learn(job, share, lone_group(block, group), batches)
        _quantize_groups(job, worked, [group], stats)
        _emulate(job, worked, group)
    return Paths(quantized.finish, None if reference is None else reference.finish)


def _whole(job: Job, worked: Worked) -> Paths:
    """Run the block from its beginning, all of its layers as they were left."""
    _emulate(job, worked, tuple(worked.block.layers))
    original, wiring = worked.original, worked.place.wiring
    reference = None if original is None else lambda _index, batch: wiring.run(original, batch)
    return Paths(lambda _index, batch: worked.block.run(batch), reference)


def learn(job: Job, share: Share, block: Block, batches: Batches) -> dict[str, Stats]:
    """What the method needs of the samples, by layer; nothing where its options say that they need none."""
    layers = block.layers
    if not share.learns_from(layers):
        return {}
    weighted, referenced = share.balances_tokens(layers), share.follows_reference(layers)
    own = OwnBatches(batches, job.ranks, weighted=weighted, referenced=referenced)
    first, *others = (share.options[name] for name in layers)
    config = first if all(other == first for other in others) else share.config
    collected = job.ranks.merge(share.method.calibrate(block, own, config))
    if isinstance(batches, SinglePass):
        # Before `settle` rescales the block, whose output is the same afterwards but for rounding.
        batches.complete()
    stats = share.method.settle(block, own, values_of(collected), config, job.run.seed)
    if job.ranks.size > 1 and share.method.takes("settle", "batches"):
        _check_settled(job, share, block, stats)
    return stats


def _check_settled(job: Job, share: Share, block: Block, stats: dict[str, Stats]) -> None:
    """Raise RunError for a method that settles for what the samples of its own process say."""
    unique = {id(tensor): tensor for own in stats.values() for tensor in own.values()}
    tensors = (*unique.values(), *(parameter.detach() for parameter in block.module.parameters()))
    entry = share.method.entry.at("settle", block.name)
    job.ranks.check_same(
        [tensor.double().sum().item() for tensor in tensors],
        f"settled for something else ({entry}; what it measures on its batches must go through hyocr_core.kit.total)",
    )


def _telling(job: Job, block: Block, what: str) -> Callable[[str], None]:
    return lambda name: job.progress.detail(f"{block.name}: {what} {name}")


def _left_alone(job: Job, worked: Worked, shares: Sequence[Share]) -> dict[str, Tensor]:
    """Copies of the parameters that are not to be quantized, by on-disk name, if a method may rescale them."""
    if not any(share.method.spec.rescales_block for share in shares):
        return {}
    quantized = {f"{name}.weight" for name in worked.block.layers}
    names = job.model.parameter_names(worked.place)
    return {
        names[name]: parameter.detach().clone()
        for name, parameter in worked.block.module.named_parameters()
        if names[name] not in quantized
    }


def _quantize_groups(job: Job, worked: Worked, groups: Sequence[tuple[str, ...]], stats: dict[str, Stats]) -> None:
    """Quantize groups of layers, each part of one by one process; put all that comes of it into the block."""
    parts = [part for group in groups for part in _parts(job, group)]
    owners = job.ranks.owners([sum(_size(job, name) for name in part) for part in parts])
    places = {name: place for place, name in enumerate(name for part in parts for name in part)}

    def solved() -> Iterator[Parcel]:
        for part, owner in zip(parts, owners, strict=True):
            if owner == job.ranks.rank:
                with job.ranks.working(len(set(owners))):
                    made = _solved(job, worked, part, stats)
                yield from (Parcel(places[record.name], record.model_dump(mode="json"), own) for record, own in made)

    with job.watch.phase("quantize"):
        for parcel in job.ranks.pooled(solved()):
            _take(job, worked, LayerRecord.model_validate(parcel.note), parcel.tensors)


def _parts(job: Job, group: tuple[str, ...]) -> list[tuple[str, ...]]:
    """What may be quantized apart of layers that share an input; in one process all of them together."""
    method = job.share(group[0]).method
    apart = method.spec.layers_apart or not method.implements("quantize_group")
    return [(name,) for name in group] if job.ranks.size > 1 and apart else [group]


def _size(job: Job, layer: str) -> int:
    outputs, inputs = job.plan.quantized[layer]
    return outputs * inputs


def _solved(
    job: Job, worked: Worked, names: tuple[str, ...], stats: dict[str, Stats]
) -> list[tuple[LayerRecord, dict[str, Tensor]]]:
    """Layers that share an input, quantized: of each its record, and its packed tensors beside its weight."""
    share = job.share(names[0])
    job.progress.detail(f"quantize {', '.join(names)}")
    layers = [Layer(name, worked.block.layers[name].weight.detach()) for name in names]
    start = time.perf_counter()
    known = stats if names[0] in stats else None
    results = share.method.quantize_group(layers, known, share.options[names[0]], job.run.seed)
    seconds = (time.perf_counter() - start) / len(layers)
    return [
        (_record(job, result, seconds), _packed(job, worked, result) | {DEQUANTIZED: result.dequantized})
        for result in results
    ]


def _packed(job: Job, worked: Worked, result: QuantizedLayer) -> dict[str, Tensor]:
    """The tensors that are stored of a layer, checked."""
    share = job.share(result.name)
    packed = share.method.pack_exactly(result, share.options[result.name])
    written = None if worked.formats is None else worked.formats.of(result.name)
    if written is not None:
        share.method.check_stored(result, packed, written)
    return packed


def _take(job: Job, worked: Worked, record: LayerRecord, tensors: Mapping[str, Tensor]) -> None:
    """Note a layer's packed tensors, and put its weight into the block."""
    if record.degraded is not None:
        job.progress.say(f"{record.name}: degraded, {record.degraded}")
    weight = worked.block.layers[record.name].weight
    for local, tensor in tensors.items():
        if local == DEQUANTIZED:
            weight.data = tensor.to(weight.device)
        else:
            worked.tensors[stored_name(record.name, local)] = tensor
    worked.records.append(record)


def _record(job: Job, result: QuantizedLayer, seconds: float) -> LayerRecord:
    share = job.share(result.name)
    return LayerRecord(
        name=result.name,
        method=None if share is job.main else share.record.selector,
        shape=job.plan.quantized[result.name],
        seconds=seconds,
        metrics=dict(result.metrics),
        degraded=result.degraded,
        options=share.options_of_its_own(result.name),
    )


def _write(job: Job, worked: Worked, stage: StagedCheckpoint, journal: RunJournal) -> None:
    with job.watch.phase("write"):
        sha256 = job.ranks.told(lambda: stage.add_part(worked.place.key, worked.tensors))
    size = sum(tensor.nbytes for tensor in worked.tensors.values())
    done = BlockRecord(layers=tuple(worked.records), bytes=size, rescaled=worked.rescaled, sha256=sha256)
    before = journal.record.blocks.get(worked.place.key)
    if before is not None:
        check_same(stage.part_path(worked.place.key), before.sha256, sha256)
    journal.record.blocks[worked.place.key] = done
    journal.save()


def _restored(job: Job, worked: Worked, stage: StagedCheckpoint) -> Paths:
    """How the samples go on through a finished block, so that the blocks after it see the same inputs."""
    if job.sees_original:
        return Paths(lambda _index, batch: worked.block.run(batch), None)
    _restore(job, worked, stage)
    return _whole(job, worked)


def _restore(job: Job, worked: Worked, stage: StagedCheckpoint) -> None:
    """Give a finished block the parameters it was left with."""
    block, tensors = worked.block, stage.read_part(worked.place.key)
    packed = packed_tensors(tensors, block.layers)
    for name, names in packed.items():
        local = local_names({stored: tensors[stored].to(job.model.device) for stored in names})
        spec = LayerSpec(name, job.plan.quantized[name], block.layers[name].weight.dtype)
        block.layers[name].weight.data = job.share(name).method.unpack(local, spec, block.configs[name])
    rescaled = tensors.keys() - {name for names in packed.values() for name in names}
    for name, disk in job.model.parameter_names(worked.place).items():
        if disk in rescaled:
            block.module.get_parameter(name).data = tensors[disk].to(job.model.device)
    worked.tensors = tensors


def _carry_on(job: Job, worked: Worked, paths: Paths, streams: Streams) -> None:
    """Bring all samples to the input of the next block, on both paths."""
    telling = _telling(job, worked.block, "forward")
    propagate(worked.block, paths.quantized, streams.quantized, telling)
    if paths.reference is not None and streams.reference is not None:
        propagate(worked.block, paths.reference, streams.reference, telling)


def _emulate(job: Job, worked: Worked, layers: tuple[str, ...]) -> None:
    """Let layers of the block see their inputs as the runtime's kernels do."""
    for share in in_block(job.shares, layers):
        linears = {name: worked.block.layers[name] for name in layers if name in share.options}
        for handle in emulate_inputs(linears, worked.tensors, share.method, worked.block.configs):
            worked.hooks.callback(handle.remove)
