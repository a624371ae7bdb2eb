"""What the metrics of an evaluation say of the pages that one checkpoint has read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeVar

from hyocr_core.checkpoint.quant_report import Measure
from hyocr_core.contract.config import show
from hyocr_core.contract.metric import Metric
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import HyocrError, MetricError, one_line
from hyocr_core.evaluation.scores.chosen_metrics import ChosenMetric
from hyocr_core.evaluation.scores.error_rates import BUILT_IN
from hyocr_core.evaluation.scores.rates import bootstrap_interval, erring_rate, micro_rate
from hyocr_core.shown import message

Value = TypeVar("Value")
_LONGEST = 300
"""Characters of a note."""


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
        if chosen.metric.tasks and not any(sizes):
            raise MetricError(
                f"{chosen.entry}: none of {len(records)} pages has what it measures in its "
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
