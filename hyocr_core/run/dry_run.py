"""What a run would do, decided and estimated without reading weights and without writing anything."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from hyocr_core.checkpoint.quant_report import MethodRecord
from hyocr_core.checkpoint.space import free_disk
from hyocr_core.checkpoint.writer import check_target, goes_on
from hyocr_core.contract.config import FrozenModel
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CheckpointError, ConfigError
from hyocr_core.formats import StoredFormats
from hyocr_core.models.fitting import ServingMemory, serving_memory
from hyocr_core.models.known_formats import known_formats, known_runtimes
from hyocr_core.models.parts import HEAD, parts
from hyocr_core.models.servable import servable
from hyocr_core.models.serving_memory import ServedLoad
from hyocr_core.pages.page_size import page_size
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import Failure, check_failures, iter_samples
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import free_memory
from hyocr_core.run.job import Job, check_norms, check_resources, estimate, prepare
from hyocr_core.run.plan import ignored_by
from hyocr_core.run.trial import Trial, prepare_trial
from hyocr_core.run.workload import Size, forward_work, measure_speed
from hyocr_core.settings.run_config import RunConfig

FORWARD_FACTORS = (0.5, 2.5)
SEARCH_FACTOR = 6
"""What a calibrated run takes in terms of its forward passes. From below: a moment's measurement may be off by two. To
above: GPTQ measured at 1.6 (benchmarks/README.md), with room; 6 is the goal set for methods that search for scales."""

ROUNDINGS = (10, 1000)
"""Elementwise operations per weight of a method without data: rounding alone, and a search for the best range."""

DISK_SPEED = (100e6, 1e9)
"""Bytes per second, the slowest and the fastest disk thought of."""

START_SECONDS = 5


class LinearsPlan(FrozenModel):
    """Linears of one kind that meet the same fate."""

    part: str = Field(description="which linears, such as `decoder q/k/v`")
    count: int
    stored: str | None = Field(description="how they are quantized; None: they stay as they are")
    left: str | None = Field(description="why they stay as they are; None: they are quantized")


class PartSize(FrozenModel):
    """Bytes of the tensors of one part of the model, but for the few of an FP8 cache's scales.

    after: None when the format is unknown to hyocr.
    """

    part: str
    before: int
    after: int | None


class WithoutLimit(FrozenModel):
    """What the same pages would be without `max_pixels`.

    memory: as of ResourcePlan. work: of the forward passes, times that with the limit.
    """

    tokens: int
    patches: int
    memory: int | None
    work: float


class CalibrationPlan(FrozenModel):
    """What the method would learn from."""

    source: str
    samples: int
    tokens: int
    patches: int
    max_pixels: int | None = Field(None, description="to which larger pages are scaled down")
    without_limit: WithoutLimit | None = Field(None, description="the same pages without max_pixels")
    answers: str = Field(description="data, generate or none; those that the model generates are not in `tokens`")
    failures: dict[str, str] = Field(description="record -> why it cannot be used")
    left_out: dict[str, str] = Field({}, description="page or file of the source -> why it is not among the samples")


class EvaluationPlan(FrozenModel):
    """What the finished checkpoint would read before it is published."""

    source: str
    pages: int
    rounded: bool = Field(description="whether round-to-nearest in the same format reads them too")
    gate: dict[str, float] | None = Field(description="bounds that it must hold")


class ResourcePlan(FrozenModel):
    """Bytes at the peak of the run, and what there is. memory: None when a GPU does the work."""

    memory: int | None
    memory_free: int
    disk: int
    disk_free: int


class TimePlan(FrozenModel):
    """A rough range. how: where it comes from."""

    seconds: tuple[float, float]
    how: str


class RuntimePlan(FrozenModel):
    """Whether a runtime will load the result."""

    name: str
    loads: Literal["yes", "no", "unsure"]
    why: str


class DryRun(FrozenModel):
    """The whole plan of a run. The same input gives the same plan, apart from free resources and time."""

    schema_version: int = 2
    method: str
    provided_by: str = Field(description="distribution and version")
    options: dict[str, Any] = Field(description="of the method, of several the main one")
    further: tuple[MethodRecord, ...] = Field((), description="the other methods of a recipe")
    model: str
    output: str
    linears: tuple[LinearsPlan, ...]
    sizes: tuple[PartSize, ...]
    calibration: CalibrationPlan | None
    evaluation: EvaluationPlan | None
    resources: ResourcePlan
    time: TimePlan
    runtimes: tuple[RuntimePlan, ...]
    serving: ServingMemory | None = Field(
        None, description="what serving it takes; None: its format is unknown, or it has no processor"
    )


def plan_run(
    run: RunConfig,
    *,
    resume: bool | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    load: ServedLoad | None = None,
    limit: int | None = None,
) -> DryRun:
    """Do everything of a run that needs no weights but those of norms.

    resume, fresh: as for `quantize`.
    load, limit: what is to be served with the result, and the bytes of memory that it should fit into.
    Raises what the run would raise for its input, by the same classes; only what all weights show is left to the run:
    NaN in them, and that a run to resume was begun with others.
    """
    progress = progress or Silent()
    check_target(run.output, resume=goes_on(run.output, resume=resume, fresh=fresh), fresh=fresh)
    job = prepare(run, progress)
    check_resources(job)
    trial = prepare_trial(job)
    check_norms(job)
    start = time.perf_counter()
    used, sizes, failures = _read_samples(job)
    reading = time.perf_counter() - start
    needs = estimate(job, _largest(sizes))
    written = job.quantization_config
    formats = known_formats(written)
    calibration = CalibrationPlan(
        source=run.calib,
        samples=len(sizes),
        tokens=sum(size.tokens for size in sizes),
        patches=sum(size.patches for size in sizes),
        max_pixels=run.max_pixels,
        without_limit=_without_limit(job, used, sizes) if run.max_pixels is not None and sizes else None,
        answers=run.answers,
        failures={failure.name: failure.reason for failure in failures},
        left_out={} if job.drawn.calibration is None else job.drawn.calibration.left_out,
    )
    return DryRun(
        method=job.title,
        provided_by=", ".join(dict.fromkeys(share.method.entry.source for share in job.shares)),
        options=job.main.config.model_dump(mode="json"),
        further=tuple(share.record for share in job.shares[1:]),
        model=job.source.name,
        output=str(run.output),
        linears=tuple(_linears(job, formats)),
        sizes=tuple(_sizes(job, formats)),
        calibration=calibration if job.records else None,
        evaluation=None if trial is None else _evaluation(run, trial),
        resources=ResourcePlan(
            memory=_most(needs.memory, trial),
            memory_free=free_memory(),
            disk=needs.disk,
            disk_free=free_disk(run.output),
        ),
        time=_time(job, sizes, reading),
        runtimes=tuple(
            RuntimePlan(name=found.name, loads=found.loads, why=found.why)
            for found in known_runtimes(written, job.plan.quantized)
        ),
        serving=_serving(job, formats, load or ServedLoad(), limit),
    )


def _serving(job: Job, formats: StoredFormats | None, load: ServedLoad, limit: int | None) -> ServingMemory | None:
    """None where it cannot be estimated; raises ConfigError when it has to be."""
    try:
        after = [_after(job, names, formats) for names in parts(job.model).values()]
        known = [size for size in after if size is not None]
        if len(known) < len(after):
            raise CheckpointError(f"hyocr does not know the format that {job.title} writes")
        processor = job.processor or load_processor(job.source.folder)
    except CheckpointError as error:
        if limit is None:
            return None
        raise ConfigError(f"--fits cannot be answered: {error}") from error
    served = servable(job.model, sum(known), (), job.quantization_config, processor.image_processor)
    return serving_memory(served, load, limit)


def _evaluation(run: RunConfig, trial: Trial) -> EvaluationPlan:
    gate = None if run.gate is None else run.gate.bounds
    return EvaluationPlan(
        source=trial.config.data, pages=len(trial.found.records), rounded=trial.config.rounded, gate=gate
    )


def _most(memory: int | None, trial: Trial | None) -> int | None:
    if memory is None or trial is None or trial.memory is None:
        return memory
    return max(memory, trial.memory)


def _read_samples(job: Job) -> tuple[list[Record], list[Size], list[Failure]]:
    """The pages that can be used, and their sizes; raises CalibrationError when too many cannot, as the run would."""
    used: list[Record] = []
    sizes: list[Size] = []
    failures: list[Failure] = []
    if not job.records:
        return used, sizes, failures
    job.progress.start("pages", len(job.records))
    items = iter_samples(job.records, job.processor, with_answer=True, max_tokens=job.model.max_tokens)
    for record, item in zip(job.records, items, strict=True):
        job.progress.step(item.name)
        if isinstance(item, Failure):
            failures.append(item)
            continue
        for line in item.notices:
            job.progress.say(line)
        used.append(record)
        sizes.append(Size(item.inputs["input_ids"].shape[1], item.inputs["pixel_values"].shape[0]))
    check_failures(failures, len(job.records))
    return used, sizes, failures


def _largest(sizes: Sequence[Size]) -> tuple[int, int]:
    return max((size.tokens for size in sizes), default=0), max((size.patches for size in sizes), default=0)


def _without_limit(job: Job, records: Sequence[Record], sizes: Sequence[Size]) -> WithoutLimit:
    processor = load_processor(job.source.folder).image_processor
    free = [_free_size(job, processor, record, size) for record, size in zip(records, sizes, strict=True)]
    work, now = (forward_work(job, each) for each in (free, sizes))
    return WithoutLimit(
        tokens=sum(size.tokens for size in free),
        patches=sum(size.patches for size in free),
        memory=estimate(job, _largest(free)).memory,
        work=(work.matmul + work.attention) / (now.matmul + now.attention),
    )


def _free_size(job: Job, free: Any, record: Record, size: Size) -> Size:
    """The size of a sample without `max_pixels`. free: the image processor as it is."""
    image, lowered = record.open_image(), job.processor.image_processor
    before, after = (page_size(each, image.width, image.height) for each in (lowered, free))
    return Size(size.tokens + after.tokens - before.tokens, after.patches)


def _linears(job: Job, formats: StoredFormats | None) -> Iterator[LinearsPlan]:
    """One row for each kind of linear and each fate of some of its members, in model order."""
    counts: dict[tuple[str, str | None, str | None], int] = {}
    for part, name in _parts(job):
        quantized = name in job.plan.quantized
        stored, left = (_stored(job, name, formats), None) if quantized else (None, _why_left(job, name))
        counts[part, stored, left] = counts.get((part, stored, left), 0) + 1
    for (part, stored, left), count in counts.items():
        yield LinearsPlan(part=part, count=count, stored=stored, left=left)


def _stored(job: Job, name: str, formats: StoredFormats | None) -> str:
    """How a quantized linear is stored, in words."""
    written = None if formats is None else formats.of(name)
    if written is None:
        # A plugin may write a format of its own.
        return f"as {job.quantization_config.get('quant_method', 'the method')} does"
    fallback = job.fallbacks.get(name)
    return written.in_words if fallback is None else f"{written.in_words}: {fallback.why}"


def _parts(job: Job) -> Iterator[tuple[str, str]]:
    """(kind, on-disk name) of every linear."""
    model = job.model
    *vision, merger = model.vision_blocks
    for places, tower in ((model.decoder_blocks, "decoder"), (vision, "vision")):
        for place in places:
            for paths, names in zip(place.wiring.groups, model.groups(place), strict=True):
                kind = "/".join(path.rpartition(".")[2].removesuffix("_proj") for path in paths)
                yield from ((f"{tower} {kind}", name) for name in names)
    yield from (("vision merger", name) for group in model.groups(merger) for name in group)
    yield "head", HEAD


def _why_left(job: Job, name: str) -> str:
    if name in job.left:
        return job.left[name]
    config = job.main.config
    pattern = ignored_by(config.ignore, name, job.model.memory_names[name])
    if pattern is not None:
        return f"ignored by {pattern}"
    if name in job.fallbacks:
        return job.fallbacks[name].why
    if any(name in group for place in job.model.decoder_blocks for group in job.model.groups(place)):
        return "keep_ends keeps the outer blocks"
    if name != HEAD:
        return f"runtimes misread it in format {config.format}" if config.quant_vit else "quant_vit is false"
    return "no method quantizes the head" if name in job.model.linears else "shares the embedding's weight"


def _sizes(job: Job, formats: StoredFormats | None) -> Iterator[PartSize]:
    tensors = job.original.tensors
    for part, names in parts(job.model).items():
        before = sum(tensors[name].nbytes for name in names)
        after = _after(job, names, formats)
        if part == "embeddings":
            before += sum(tensors[name].nbytes for name in job.copies)
            after = None if after is None else after + sum(tensors[name].nbytes for name in job.kept)
        yield PartSize(part=part, before=before, after=after)


def _after(job: Job, names: Iterable[str], formats: StoredFormats | None) -> int | None:
    total = 0
    for name in names:
        layer = name.removesuffix(".weight")
        if layer == name or layer not in job.plan.quantized:
            total += job.reader.tensors[name].nbytes
            continue
        written = None if formats is None else formats.of(layer)
        if written is None:
            return None
        total += written.nbytes(job.plan.quantized[layer])
    return total


def _searches(job: Job) -> bool:
    return any(share.method.spec.rescales_block for share in job.shares)


def _time(job: Job, sizes: Sequence[Size], reading: float) -> TimePlan:
    """From operations counted and a speed measured, to a range that says what it does not know."""
    total = sum(info.nbytes for info in job.reader.tensors.values())
    speed = measure_speed(job)
    slow, fast = DISK_SPEED
    if not job.records:
        weights = sum(outputs * inputs for outputs, inputs in job.plan.quantized.values())
        low, high = (count * weights / speed.rounding for count in ROUNDINGS)
        how = (
            f"{weights / 1e6:.0f} million weights, {ROUNDINGS[0]} to {ROUNDINGS[1]} operations each, "
            f"at {speed.rounding / 1e9:.1f} billion a second, measured now"
        )
        return TimePlan(seconds=(low + total / fast, high + total / slow + START_SECONDS), how=how)
    work = forward_work(job, sizes)
    forward = work.matmul / speed.matmul + work.attention / speed.attention
    factors = FORWARD_FACTORS[0], SEARCH_FACTOR if _searches(job) else FORWARD_FACTORS[1]
    how = (
        f"{(work.matmul + work.attention) / 1e12:.2g} TFLOP of forward passes at "
        f"{(work.matmul + work.attention) / forward / 1e12:.2g} TFLOP/s, measured now; "
        f"{factors[0]:g} to {factors[1]:g} times that with the method's own work"
    )
    if job.lacks_answers:
        how += "; not counted: the model's answers, where no earlier run has kept them"
    low, high = (factor * forward + reading for factor in factors)
    return TimePlan(seconds=(low + total / fast, high + total / slow + START_SECONDS), how=how)
