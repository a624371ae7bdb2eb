"""Everything a run decides before its first long step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from hyocr_core.checkpoint.quant_report import ObserverRecord, exceptions
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.checkpoint.space import check_disk, required_disk
from hyocr_core.contract.config import Fallback, MethodConfig
from hyocr_core.contract.decoding import Decoding
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CheckpointError, ConfigError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import pick_device
from hyocr_core.models.own_decoding import own_decoding, own_penalty
from hyocr_core.models.passed_over import passed_over
from hyocr_core.models.tied import tied_copies
from hyocr_core.models.wiring import Place
from hyocr_core.models.working_memory import Shapes
from hyocr_core.pages.checked import Pages
from hyocr_core.pages.found import Found
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.prompts import task_prompt
from hyocr_core.pages.sources import draw_pages
from hyocr_core.plugin.watch import Chosen, choose_observers
from hyocr_core.progress import Progress
from hyocr_core.ranks.ranks import ALONE, Ranks
from hyocr_core.resources import RUNTIME_BYTES, Stopwatch, check_memory, size
from hyocr_core.run.assignment import assign, choose_methods
from hyocr_core.run.embedding import sample_size
from hyocr_core.run.overrides import Overrides, layer_options
from hyocr_core.run.plan import Plan
from hyocr_core.run.shares import Share, share_of, title
from hyocr_core.run.written import written_config
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import as_asked

BATCH_TOKENS = 1 << 14
"""Tokens of prompts and answers that the whole model keeps keys and values of, at most, when it writes answers."""


FEW_PAGES = 32
"""Calibration pages, fewer than which are a warning."""


class CheckedPages(NamedTuple):
    """What was drawn, and those of its records that can be used."""

    found: Found
    usable: Pages


@dataclass
class Drawn:
    """Pages that runs of the same pages share: drawn, and checked, by the first that needs them.

    calibration: without the answers of their source, if the run wants none. evaluation: those of `run.eval`.
    """

    calibration: Found | None = None
    evaluation: CheckedPages | None = None


@dataclass
class Job:
    """One run.

    shares: what each method quantizes, the main one first.
    original: the checkpoint's weights, as they are; copies: see `tied_copies`; reader: without them.
    fallbacks: of the linears that the options cannot hold, those that are quantized all the same and those that stay as
    they are. left: linears that a rule leaves as they are -> why. quantization_config: what config.json will say.
    records: what to calibrate
    on, empty when these options need none; without answers until the model has written its own, if it is to.
    observers: those to run beside the hooks; observed: what became of them. ranks: the processes that
    do it together, of which this is one. prepared: tensors that the method replaced;
    config_changes: what it adds to config.json.
    """

    run: RunConfig
    shares: tuple[Share, ...]
    fallbacks: Mapping[str, Fallback]
    left: Mapping[str, str]
    source: ResolvedModel
    original: CheckpointReader
    copies: Mapping[str, str]
    reader: CheckpointReader
    model: HunYuanVL
    plan: Plan
    quantization_config: dict[str, Any]
    records: Sequence[Record]
    processor: Any
    observers: tuple[Chosen, ...]
    progress: Progress
    drawn: Drawn
    ranks: Ranks = ALONE
    watch: Stopwatch = field(default_factory=Stopwatch)
    observed: tuple[ObserverRecord, ...] = ()
    prepared: tuple[str, ...] = ()
    config_changes: dict[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> Share:
        """What the main method quantizes."""
        return self.shares[0]

    @property
    def title(self) -> str:
        """The methods in words."""
        return title(self.shares)

    def share(self, layer: str) -> Share:
        """The share that holds a linear to quantize."""
        return share_of(self.shares, layer)

    @property
    def options(self) -> dict[str, MethodConfig]:
        """Those that hold for each layer to quantize, by on-disk name, in model order."""
        return {name: self.share(name).options[name] for name in self.plan.quantized}

    def set_options(self, overrides: Overrides) -> None:
        """Let these options of layers hold; raises ConfigError when the method or its format cannot do so.

        Only of a method that has the checkpoint to itself.
        """
        [share] = self.shares
        options, found = layer_options(share.method, share.given, overrides, self.model, self.plan)
        self.shares = (replace(share, options=options),)
        left = {name: fallback for name, fallback in self.fallbacks.items() if name not in options}
        self.fallbacks = left | found
        self.quantization_config = written_config(self.shares, self.model, self.plan)

    @property
    def kept(self) -> tuple[str, ...]:
        """The copies to write all the same; one of a tensor that the method replaced would be none any more."""
        wanted = self.copies if self.run.keep_head else {}
        return tuple(name for name, other in wanted.items() if other not in self.prepared)

    @property
    def lacks_answers(self) -> bool:
        """Whether the whole model has yet to write answers to the pages."""
        unanswered = bool(self.records) and all(record.answer is None for record in self.records)
        return unanswered and self.run.answers == "generate"

    @cached_property
    def decoding(self) -> Decoding:
        """How the full-precision model writes, whether it answers or is evaluated. Raises CheckpointError."""
        processor = self.processor or load_processor(self.source.folder)
        return as_asked(own_decoding(self.source.folder, self.model.config.text_config, processor.tokenizer), self.run)

    @cached_property
    def penalty(self) -> float:
        """The repetition penalty that the checkpoint is meant to be read with. Raises CheckpointError."""
        return own_penalty(self.source.folder, self.model.config.text_config)

    @cached_property
    def vision_linears(self) -> frozenset[str]:
        """On-disk names of all linears of the vision tower."""
        places = self.model.vision_blocks
        return frozenset(name for place in places for group in self.model.groups(place) for name in group)

    @property
    def quantizes_vision(self) -> bool:
        """Whether linears of the vision tower are quantized too."""
        return not self.vision_linears.isdisjoint(self.plan.quantized)

    @property
    def follows_reference(self) -> bool:
        """Whether the samples also go the full-precision path."""
        return any(share.follows_reference(share.options) for share in self.shares)

    @property
    def sees_original(self) -> bool:
        """Whether the samples go through the blocks as they are before they are quantized, and only so."""
        return all(share.method.spec.original_inputs for share in self.shares)

    @property
    def balances_tokens(self) -> bool:
        """Whether a method is to count some tokens for more than others."""
        return any(share.balances_tokens(share.options) for share in self.shares)


@dataclass(frozen=True)
class Needs:
    """Bytes a run needs at its peak, estimated before it starts. memory: of the CPU, None when a GPU does the work."""

    memory: int | None
    disk: int


def prepare(run: RunConfig, progress: Progress, drawn: Drawn | None = None, ranks: Ranks = ALONE) -> Job:
    """Resolve and check everything that can be refused without reading weights; raises BadInputError.

    drawn: what a run of the same pages has drawn. ranks: the processes that do it together.
    """
    drawn = drawn or Drawn()
    if run.task is not None:
        task_prompt(run.task)
    chosen = choose_methods(run)
    observers = choose_observers(run.observers)
    source = resolve_model(run.model, run.revision)
    reader = CheckpointReader(source.folder)
    quantization = reader.config.get("quantization_config")
    if quantization is not None:
        kind = quantization.get("quant_method", "unknown method")
        raise CheckpointError(f"{source.folder}: is already quantized ({kind}); give the full-precision checkpoint")
    device = pick_device(run.device, ranks.place)
    model = HunYuanVL(reader, device, run.forward)
    for line in passed_over(model):
        progress.say(line)
    reader = reader.without(model.computed)
    copies = tied_copies(model)
    if copies or model.computed:
        _say_copies(reader, copies, run, progress)
        model = HunYuanVL(reader.without(copies), device, run.forward)
    assigned = assign(chosen, run, model)
    shares, plan, fallbacks = assigned.shares, assigned.plan, assigned.fallbacks
    for line in exceptions({name: fallback.why for name, fallback in fallbacks.items()}, plan.quantized):
        progress.say(line)
    quantization_config = written_config(shares, model, plan)
    records: Sequence[Record] = ()
    processor = None
    if any(share.learns_from(share.options) for share in shares):
        if run.calib == "synthetic":
            progress.say("no --calib given: calibrating on rendered text pages, your own pages would serve better")
        if drawn.calibration is None:
            drawn.calibration = _draw(run, progress)
        records = drawn.calibration.records
        processor = load_processor(source.folder, run.max_pixels)
    job = Job(
        run=run,
        shares=shares,
        fallbacks=fallbacks,
        left=assigned.left,
        source=source,
        original=reader,
        copies=copies,
        reader=reader.without(copies),
        model=model,
        plan=plan,
        quantization_config=quantization_config,
        records=records,
        processor=processor,
        observers=observers,
        progress=progress,
        drawn=drawn,
        ranks=ranks,
    )
    _refuse_ranks(job)
    # What is wrong with them is said now, and not when the work is done.
    _ = job.penalty
    if job.lacks_answers or run.eval is not None:
        _ = job.decoding
    return job


def _refuse_ranks(job: Job) -> None:
    """Raise BadInputError for what several processes cannot do together."""
    size = job.ranks.size
    if size > 1 and job.observers:
        raise ConfigError("an observer sees a run in one process only: leave --observe out, or torchrun")
    if 0 < len(job.records) < size:
        raise ConfigError(f"{len(job.records)} pages are too few for {size} processes: have torchrun start fewer")


def _say_copies(reader: CheckpointReader, copies: Mapping[str, str], run: RunConfig, progress: Progress) -> None:
    fate = "kept" if run.keep_head else "left out; --keep-head keeps it"
    for name, other in copies.items():
        room = size(reader.tensors[name].nbytes)
        progress.say(f"{name} is a copy of {other}, to which config.json ties it ({room}): {fate}")


def _draw(run: RunConfig, progress: Progress) -> Found:
    found = draw_pages(
        run.calib,
        run.task,
        run.system,
        run.num_samples,
        run.seed,
        keep_duplicates=run.keep_duplicates,
        say=progress.say,
    )
    if len(found.records) < FEW_PAGES:
        progress.say(
            f"warning: {len(found.records)} pages to calibrate on; fewer than {FEW_PAGES} show a method little of what "
            "the model will read, and 128 of your own are usual"
        )
    if run.answers == "data":
        return found
    return replace(found, records=[replace(record, answer=None) for record in found.records])


def estimate(job: Job, largest: tuple[int, int] | None = None) -> Needs:
    """Estimate memory and disk from the plan and the largest sample, its tokens and patches; None looks at a few."""
    weights = [f"{name}.weight" for name in job.plan.quantized]
    linears = sum(job.reader.tensors[name].nbytes for name in weights)
    tokens, patches = largest or (sample_size(job.records, job.processor) if job.records else (0, 0))
    activations = _activation_bytes(job, tokens, patches)
    waiting = activations // job.ranks.size
    # No method packs to more than the full-precision weight.
    on_disk = required_disk(job.original if job.kept else job.reader, weights, linears)
    on_disk += activations * (2 if job.run.spill else 1)
    if job.model.device.type != "cpu":
        return Needs(None, on_disk)
    shapes = Shapes.of(job.model.config, job.model.dtype.itemsize)
    seen = max(shapes.prepared(patches), shapes.vision(patches))
    read = shapes.decoder(tokens, pages=0)
    front = sum(info.nbytes for info in job.reader.tensors.values()) - linears + seen if job.records else 0
    blocks = job.model.vision_blocks + job.model.decoder_blocks if job.quantizes_vision else job.model.decoder_blocks
    block = 6 * linears // len(blocks) + (0 if job.run.spill else waiting)
    block += max(read, seen if job.quantizes_vision else 0)
    whole = _generating_bytes(job, shapes, tokens) + max(seen, read) if job.lacks_answers else 0
    return Needs(RUNTIME_BYTES + max(front, block, whole), on_disk)


def _activation_bytes(job: Job, tokens: int, patches: int) -> int:
    """Of all samples at the input of a block, for a method that sees groups also inside it, on each path.

    Twice, too, where what a block makes of them is kept while a method looks at them.
    """
    sizes = tokens * _token_values(job, job.model.decoder_blocks, job.model.config.text_config.hidden_size)
    if job.quantizes_vision:
        width = job.model.config.vision_config.hidden_size
        sizes += patches * _token_values(job, job.model.vision_blocks, width)
    streams = 2 if job.follows_reference or job.sees_original else 1
    return int(streams * len(job.records) * sizes * job.model.dtype.itemsize)


def _token_values(job: Job, places: Sequence[Place], hidden_size: int) -> int:
    """Values of one token that a sample has in a block of these at most."""
    if all(share.method.spec.inputs == "block" for share in job.shares):
        return hidden_size
    widest = max(job.model.linears[name][1] for place in places for group in job.model.groups(place) for name in group)
    return int(hidden_size * (1 + max(len(place.wiring.last) for place in places)) + widest)


def _generating_bytes(job: Job, shapes: Shapes, tokens: int) -> int:
    """The whole model, and the keys and values of the largest batch of pages, whose prompts have these tokens."""
    weights = sum(info.nbytes for info in job.reader.tensors.values())
    kept = min(max(BATCH_TOKENS, 2 * tokens), len(job.records) * job.model.max_tokens)
    return weights + shapes.cache(kept)


def check_resources(job: Job) -> Needs:
    """Estimate what the run needs; raise BadInputError when it would not fit into memory or on the disk."""
    needs = estimate(job)
    check_disk(job.run.output, needs.disk)
    if needs.memory is not None:
        advice = "--answers data or none, " if job.lacks_answers else ""
        memory = needs.memory * job.ranks.local_size
        check_memory(memory, f"use {advice}fewer samples, --spill, or a lower --max-pixels")
    return needs


def check_norms(job: Job) -> None:
    """Raise CheckpointError for a norm that a method which rescales could fold no scale into; reads norms only."""
    rescaling = [share for share in job.shares if share.method.spec.rescales_block]
    if not rescaling:
        return
    places = (*(job.model.vision_blocks if job.quantizes_vision else ()), *job.model.decoder_blocks)
    names = [name for place in places for name in job.model.smoothed_norms(place)]
    for name, weight in job.reader.read(names).items():
        zeros = (weight == 0).nonzero().flatten().tolist()
        if zeros:
            shard = job.source.folder / job.reader.tensors[name].shard
            raise CheckpointError(
                f"{shard}: {name} is zero in channel {zeros[0]}, so that {title(rescaling)} cannot fold a scale "
                "into it; use a method that does not rescale, or mend the checkpoint"
            )
