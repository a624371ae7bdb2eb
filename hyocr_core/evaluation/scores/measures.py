"""The metrics of an evaluation, and what they say of the pages that one checkpoint has read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any

from hyocr_core.checkpoint.quant_report import MetricRecord
from hyocr_core.contract.config import show
from hyocr_core.contract.metric import Metric
from hyocr_core.errors import HyocrError, MetricError, one_line
from hyocr_core.evaluation.scores.error_rates import BUILT_IN
from hyocr_core.evaluation.scores.rates import bootstrap_interval, erring_rate, micro_rate
from hyocr_core.evaluation.scores.result import Measure
from hyocr_core.plugin.metrics import MetricEntry, load_metric
from hyocr_core.settings.eval_config import EvalConfig

OWN = "hyocr-core"


@dataclass(frozen=True)
class ChosenMetric:
    """A metric that the user named, started."""

    entry: MetricEntry
    metric: Metric

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

    references: None for a page without. seed: of the bootstrap.
    """

    names: Sequence[str]
    texts: Sequence[str]
    references: Sequence[str | None]
    seed: int


@dataclass(frozen=True)
class Measured:
    """A metric on the pages that it counts: its numbers and their sizes. places: which pages these are."""

    metric: Metric
    places: Sequence[int]
    numbers: Sequence[float]
    sizes: Sequence[float]
    seed: int

    @property
    def rates(self) -> list[float | None]:
        """Each page's number over its size; None where that is 0."""
        return [number / size if size else None for number, size in zip(self.numbers, self.sizes, strict=True)]

    @property
    def together(self) -> Measure | None:
        """All pages; None if none of them counts."""
        return self._together(self.numbers)

    def by_page(self, values: Sequence[float | None], pages: int) -> list[float | None]:
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
    """Start the metrics that an evaluation names beside those of every evaluation, by what the user calls them.

    Raises MetricError or ConfigError for one that is unknown, broken or has wrong options.
    """
    named = dict(config.metrics) | {name: {} for name in bounded(config) if name not in config.metrics}
    chosen = {}
    for name, options in named.items():
        loaded = load_metric(name)
        settings = loaded.config(options)
        if loaded.entry.distribution == OWN and loaded.entry.name in BUILT_IN:
            continue
        try:
            chosen[name] = ChosenMetric(loaded.entry, loaded.cls(settings))
        except MetricError as error:
            raise MetricError(f"{loaded.entry}: {error}") from error
        except (Exception, SystemExit) as error:
            raise MetricError(f"{loaded.entry}: cannot start: {one_line(error, named=True)}") from error
    return chosen


def bounded(config: EvalConfig) -> list[str]:
    """The metrics that the gate bounds."""
    return [] if config.gate is None else config.gate.metrics


def needs_transcripts(config: EvalConfig) -> bool:
    """Whether a metric that the user named has no number for pages without a transcript."""
    return any(load_metric(name).cls.needs_reference for name in (*config.metrics, *bounded(config)))


def measure_own(pages: PageTexts) -> dict[str, Measured]:
    """What the metrics of every evaluation say; those that need transcripts of the pages that have one, if any."""
    found = {name: _measure(metric, f"metric {name}", pages) for name, metric in BUILT_IN.items()}
    return {name: measured for name, measured in found.items() if measured is not None}


def measure_named(metrics: Mapping[str, ChosenMetric], pages: PageTexts) -> dict[str, Measured]:
    """What the others say, likewise. Raises MetricError naming metric, distribution and page for what is no number."""
    found = {name: _measure(chosen.metric, str(chosen.entry), pages) for name, chosen in metrics.items()}
    return {name: measured for name, measured in found.items() if measured is not None}


def check_sizes(metrics: Mapping[str, ChosenMetric], transcripts: Iterable[tuple[str, str | None]]) -> None:
    """Refuse transcripts that a metric cannot use before anything is read. transcripts: of each page, by its name.

    Raises MetricError naming metric, distribution and page.
    """
    for name, known in transcripts:
        for chosen in metrics.values():
            if known is not None:
                _size(chosen.metric, f"{chosen.entry}: {name}", known)


def _measure(metric: Metric, who: str, pages: PageTexts) -> Measured | None:
    places: list[int] = []
    numbers, sizes = [], []
    for place, (name, text, known) in enumerate(zip(pages.names, pages.texts, pages.references, strict=True)):
        if metric.needs_reference and known is None:
            continue
        where, reference = f"{who}: {name}", known or ""
        places.append(place)
        with _blamed(where):
            number = metric.page(text, reference)
        numbers.append(_number(number, f"{where}: its number"))
        sizes.append(_size(metric, where, reference))
    return Measured(metric, places, numbers, sizes, pages.seed) if places else None


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
