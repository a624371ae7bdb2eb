"""The metrics of an evaluation, and what they say of the pages that one checkpoint has read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

from hyocr_core.checkpoint.quant_report import Measure, MetricRecord
from hyocr_core.contract.config import show
from hyocr_core.contract.metric import Metric
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import HyocrError, MetricError, one_line
from hyocr_core.evaluation.scores.error_rates import BUILT_IN
from hyocr_core.evaluation.scores.rates import bootstrap_interval, erring_rate, micro_rate
from hyocr_core.pages.prompts import task_name
from hyocr_core.plugin.metrics import LoadedMetric, MetricEntry, installed_metrics, load_metric
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.shown import message

OWN = "hyocr-core"

Value = TypeVar("Value")
_LONGEST = 300
"""Characters of a note."""


@dataclass(frozen=True)
class ChosenMetric:
    """A metric beside those of every evaluation, started. named: by the user; others follow from the task."""

    entry: MetricEntry
    metric: Metric
    named: bool = True

    @property
    def record(self) -> MetricRecord:
        """What a result says of it."""
        return MetricRecord(
            title=self.metric.title,
            unit=self.metric.unit,
            better=self.metric.better,
            distribution=self.entry.distribution,
            version=self.entry.version,
        )


@dataclass(frozen=True)
class PageTexts:
    """What one checkpoint wrote, and the transcripts, by page, both as they are.

    references, checks: None for a page without. seed: of the bootstrap.
    """

    names: Sequence[str]
    texts: Sequence[str]
    references: Sequence[str | None]
    seed: int
    checks: Sequence[str | None] = ()

    def known(self, metric: Metric) -> Sequence[str | None]:
        """What a metric compares with, by page."""
        return self.references if metric.compares == "transcript" else self.checks or [None] * len(self.names)


@dataclass(frozen=True)
class Measured:
    """A metric on the pages that it counts: its numbers, their sizes, and what it notes of broken texts.

    places: which pages these are.
    """

    metric: Metric
    places: Sequence[int]
    numbers: Sequence[float]
    sizes: Sequence[float]
    notes: Sequence[str]
    seed: int

    @property
    def rates(self) -> list[float | None]:
        """Each page's number over its size; None where that is 0."""
        return [number / size if size else None for number, size in zip(self.numbers, self.sizes, strict=True)]

    @property
    def shown(self) -> list[float | None]:
        """Each page's number; None for a page that lacks what is measured, and so is not in the mean."""
        summed = self.metric.together == "sum"
        return [number if size or summed else None for number, size in zip(self.numbers, self.sizes, strict=True)]

    @property
    def together(self) -> Measure | None:
        """All pages; None if none of them counts."""
        return self._together(self.numbers)

    def by_page(self, values: Sequence[Value | None], pages: int) -> list[Value | None]:
        """What there is for each page counted, for all pages: None for those that it does not count."""
        known = dict(zip(self.places, values, strict=True))
        return [known.get(place) for place in range(pages)]

    def less(self, other: Measured) -> Measure | None:
        """The difference to the same metric on the same pages as another checkpoint read them, paired."""
        less = [mine - theirs for mine, theirs in zip(self.numbers, other.numbers, strict=True)]
        # Where no page differs: one that does would hardly be worse than those that have errors.
        otherwise = erring_rate([*self.numbers, *other.numbers], [*self.sizes, *other.sizes])
        return self._together(less, signed=True, otherwise=otherwise)

    def _together(self, numbers: Sequence[float], **how: Any) -> Measure | None:
        if self.metric.together == "sum":
            low, high = bootstrap_interval(numbers, [1] * len(numbers), seed=self.seed, **how)
            return Measure(value=float(sum(numbers)), interval=(low * len(numbers), high * len(numbers)))
        if not any(self.sizes):
            return None
        interval = bootstrap_interval(numbers, self.sizes, seed=self.seed, **how)
        return Measure(value=micro_rate(numbers, self.sizes), interval=interval)


def choose_metrics(config: EvalConfig) -> dict[str, ChosenMetric]:
    """Start the metrics beside those of every evaluation, by what the user calls them: those that the evaluation names
    or bounds, then those that follow from its task.

    Raises MetricError or ConfigError for one that is unknown, broken, has wrong options or is of other tasks.
    """
    task = None if config.task is None else task_name(config.task)
    named = dict(config.metrics) | {name: {} for name in bounded(config) if name not in config.metrics}
    chosen = {}
    for name, options in named.items():
        loaded = load_metric(name)
        settings = loaded.config(options)
        if loaded.entry.distribution == OWN and loaded.entry.name in BUILT_IN:
            continue
        _refuse_other_task(loaded, task)
        chosen[name] = ChosenMetric(loaded.entry, _started(loaded, settings))
    taken = {each.entry.selector for each in chosen.values()}
    for loaded in _of_task(task):
        if loaded.entry.selector not in taken and not lacking(loaded):
            metric = _started(loaded, loaded.config({}))
            chosen[loaded.entry.name] = ChosenMetric(loaded.entry, metric, named=False)
    return chosen


def not_measured(config: EvalConfig) -> Iterator[str]:
    """A line for all metrics that follow from the task and cannot start here for one reason, with that."""
    names: dict[str, list[str]] = {}
    for loaded in _of_task(None if config.task is None else task_name(config.task)):
        if reason := lacking(loaded):
            names.setdefault(reason, []).append(loaded.entry.name)
    yield from (f"not measured: {', '.join(alike)}, which {reason}" for reason, alike in names.items())


def lacking(loaded: LoadedMetric) -> str:
    """What a metric of hyocr's own needs and is not installed; empty if nothing."""
    try:
        loaded.cls(loaded.config({}))
    except MetricError as error:
        return str(error)
    return ""


def _of_task(task: str | None) -> list[LoadedMetric]:
    """Those of hyocr's own that measure a part of the answers to a task."""
    own = (load_metric(entry.selector) for entry in installed_metrics() if entry.distribution == OWN)
    return [] if task is None else [loaded for loaded in own if task in loaded.cls.tasks]


def _refuse_other_task(loaded: LoadedMetric, task: str | None) -> None:
    tasks = loaded.cls.tasks
    if task is None or not tasks or task in tasks:
        return
    fitting = ", ".join(each.entry.name for each in _of_task(task)) or "none"
    raise MetricError(
        f"{loaded.entry}: does not apply to the task {task}, but to {', '.join(tasks)}; leave it out, or the task; "
        f"metrics by part for {task}: {fitting}"
    )


def _started(loaded: LoadedMetric, settings: Any) -> Metric:
    try:
        return loaded.cls(settings)
    except MetricError as error:
        raise MetricError(f"{loaded.entry}: {error}") from error
    except (Exception, SystemExit) as error:
        raise MetricError(f"{loaded.entry}: cannot start: {one_line(error, named=True)}") from error


def bounded(config: EvalConfig) -> list[str]:
    """The metrics that the gate bounds."""
    return [] if config.gate is None else config.gate.metrics


def needs_transcripts(config: EvalConfig) -> bool:
    """Whether a metric that the user named has no number for pages without a transcript."""
    named = (load_metric(name).cls for name in (*config.metrics, *bounded(config)))
    return any(metric.needs_reference and metric.compares == "transcript" for metric in named)


def measure_own(pages: PageTexts) -> dict[str, Measured]:
    """What the metrics of every evaluation say; those that need transcripts of the pages that have one, if any."""
    found = {name: _measure(metric, f"metric {name}", pages) for name, metric in BUILT_IN.items()}
    return {name: measured for name, measured in found.items() if measured is not None}


def measure_named(metrics: Mapping[str, ChosenMetric], pages: PageTexts) -> dict[str, Measured]:
    """What the others say, likewise. Raises MetricError naming metric, distribution and page for what is no number."""
    found = {name: _measure(chosen.metric, str(chosen.entry), pages) for name, chosen in metrics.items()}
    return {name: measured for name, measured in found.items() if measured is not None}


def check_sizes(metrics: Mapping[str, ChosenMetric], records: Sequence[Record]) -> None:
    """Refuse, before anything is read, transcripts that a metric which the user named cannot use.

    Raises MetricError naming metric, distribution and page; or a metric by part, where no transcript has that part.
    """
    for name, chosen in metrics.items():
        if not chosen.named:
            continue
        sizes = _sizes(chosen.metric, f"{chosen.entry}: ", records)
        if chosen.metric.tasks and sizes and not any(sizes):
            raise MetricError(
                f"{chosen.entry}: none of {len(sizes)} pages has what it measures in its "
                f"{chosen.metric.compares}; give pages that have, or leave out {name}"
            )


def measurable(
    metrics: Mapping[str, ChosenMetric], records: Sequence[Record], say: Callable[[str], None]
) -> dict[str, ChosenMetric]:
    """Those that were named, and of the others those that have something to measure.

    say: is told of one that cannot use a transcript.
    """
    kept = {}
    for name, chosen in metrics.items():
        try:
            if chosen.named or any(_sizes(chosen.metric, "", records)):
                kept[name] = chosen
        except MetricError as error:
            say(f"{name} is not measured: {error}")
    return kept


def _sizes(metric: Metric, who: str, records: Sequence[Record]) -> list[float]:
    """Of the pages that have a number."""
    known = ((record.name, _known(metric, record)) for record in records)
    counted = ((page, text) for page, text in known if text is not None or not metric.needs_reference)
    return [_size(metric, f"{who}{page}", text or "") for page, text in counted]


def _known(metric: Metric, record: Record) -> str | None:
    return record.answer if metric.compares == "transcript" else record.checks


def _measure(metric: Metric, who: str, pages: PageTexts) -> Measured | None:
    places: list[int] = []
    numbers, sizes, notes = [], [], []
    for place, (name, text, known) in enumerate(zip(pages.names, pages.texts, pages.known(metric), strict=True)):
        if metric.needs_reference and known is None:
            continue
        where, reference = f"{who}: {name}", known or ""
        places.append(place)
        with _blamed(where):
            number = metric.page(text, reference)
        numbers.append(_number(number, f"{where}: its number"))
        sizes.append(_size(metric, where, reference))
        notes.append(_note(metric, where, text, reference) if sizes[-1] else "")
    return Measured(metric, places, numbers, sizes, notes, pages.seed) if places else None


def _note(metric: Metric, where: str, text: str, reference: str) -> str:
    with _blamed(where):
        note = metric.note(text, reference)
    if not isinstance(note, str):
        raise MetricError(f"{where}: its note is {show(note)}, which is no text")
    return message(note, _LONGEST)


def _size(metric: Metric, where: str, reference: str) -> float:
    with _blamed(where):
        size = metric.size(reference)
    if _number(size, f"{where}: its size") < 0:
        raise MetricError(f"{where}: its size is {size:g}; a page counts 0 times or more")
    return float(size)


@contextmanager
def _blamed(where: str) -> Iterator[None]:
    """Whatever a metric raises, as a MetricError that says where."""
    try:
        yield
    except MetricError as error:
        raise MetricError(f"{where}: {error}") from error
    except HyocrError:
        raise
    except (Exception, SystemExit) as error:
        raise MetricError(f"{where}: {one_line(error, named=True)}") from error


def _number(value: object, where: str) -> float:
    if not isinstance(value, Real) or not math.isfinite(value):
        raise MetricError(f"{where} is {show(value)}, which is no finite number")
    return float(value)
