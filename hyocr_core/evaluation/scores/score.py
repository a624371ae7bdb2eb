"""From what was read to the numbers: pure functions on texts and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from hyocr_core.contract.backend import Forward
from hyocr_core.evaluation.scores.chosen_metrics import ChosenMetric
from hyocr_core.evaluation.scores.measures import Measured, PageTexts, measure_named, measure_own
from hyocr_core.evaluation.scores.rates import bootstrap_interval, micro_rate, normalize, words
from hyocr_core.evaluation.scores.result import Comparison, Interval, ModelScore, PageResult, Runtime


@dataclass(frozen=True)
class Answer:
    """What a model wrote for a page. text: as it wrote it; ended: not cut at the limit of tokens."""

    text: str
    tokens: Annotated[int, Field(ge=0)]
    ended: bool


@dataclass(frozen=True)
class Gap:
    """The model beside the baseline along one answer: tokens compared, how many agree, the sum of their KL."""

    tokens: Annotated[int, Field(gt=0)]
    agreeing: Annotated[int, Field(ge=0)]
    kl: float


@dataclass(frozen=True)
class Checkpoint:
    """What the scores say of a checkpoint beside its answers.

    first_token_seconds: mean over pages. forward: what it computed; None where nobody knows.
    """

    model: str
    revision: str | None
    runtime: Runtime
    weight_bytes: int | None
    part_bytes: Mapping[str, int]
    seconds: float
    first_token_seconds: float | None
    subfolder: str | None = None
    forward: Forward | None = None


@dataclass(frozen=True)
class Asked:
    """The pages that were read.

    references: the transcripts as they are, not all empty; None for a page without. metrics: those that were named.
    seed: of the bootstrap. checks: what is known of pages otherwise; None for a page without.
    """

    names: Sequence[str]
    references: Sequence[str | None]
    seed: int
    metrics: Mapping[str, ChosenMetric]
    checks: Sequence[str | None] = ()

    @property
    def compared(self) -> dict[int, str]:
        """The references as they are compared, by page; only those that are known."""
        known = enumerate(self.references)
        return {place: normalize(reference) for place, reference in known if reference is not None}

    @property
    def characters(self) -> int | None:
        """Characters of all references; None without."""
        return sum(map(len, self.compared.values())) if self.compared else None

    @property
    def words(self) -> int | None:
        """Words of all references; None without."""
        return sum(len(words(text)) for text in self.compared.values()) if self.compared else None


@dataclass(frozen=True)
class Reading:
    """All answers of one checkpoint, in the order of the pages, and what the metrics say of them.

    texts: as they are compared. own: the metrics that come with hyocr; those that need transcripts are missing without.
    named: the others.
    """

    answers: Sequence[Answer]
    texts: Sequence[str]
    own: Mapping[str, Measured]
    named: Mapping[str, Measured]


def measure(answers: Sequence[Answer], asked: Asked) -> Reading:
    """Let the metrics compare every answer with its reference. Raises MetricError for one that gives no number."""
    pages = PageTexts(asked.names, [answer.text for answer in answers], asked.references, asked.seed, asked.checks)
    texts = [normalize(answer.text) for answer in answers]
    return Reading(answers, texts, measure_own(pages), measure_named(asked.metrics, pages))


def score(checkpoint: Checkpoint, reading: Reading, asked: Asked) -> ModelScore:
    """The scores of one checkpoint."""
    answers = reading.answers
    tokens = sum(answer.tokens for answer in answers)
    values: dict[str, object] = dict.fromkeys(_NEED_TRANSCRIPTS)
    if asked.compared:
        values = _accuracy(reading, asked)
    return ModelScore.model_validate(
        values
        | {
            "model": checkpoint.model,
            "revision": checkpoint.revision,
            "subfolder": checkpoint.subfolder,
            "runtime": checkpoint.runtime,
            "forward": checkpoint.forward,
            "weight_bytes": checkpoint.weight_bytes,
            "part_bytes": dict(checkpoint.part_bytes),
            "loop_rate": sum(reading.own["loops"].numbers) / len(answers),
            "tokens": tokens,
            "cut_pages": sum(not answer.ended for answer in answers),
            "seconds": checkpoint.seconds,
            "pages_per_second": len(answers) / checkpoint.seconds,
            "tokens_per_second": tokens / checkpoint.seconds,
            "first_token_seconds": checkpoint.first_token_seconds,
            "metrics": {name: found for name, each in reading.named.items() if (found := each.together) is not None},
        }
    )


_RATES = ("cer", "page_cer", "wer", "page_wer")
_NEED_TRANSCRIPTS = (
    *_RATES,
    *(f"{name}_interval" for name in _RATES),
    *("edit_distance", "exact_match", "length_ratio"),
)


def _accuracy(reading: Reading, asked: Asked) -> dict[str, object]:
    """The fields of a ModelScore that compare with transcripts."""
    values: dict[str, object] = {}
    for name in ("cer", "wer"):
        measured = reading.own[name]
        values |= _rate(name, measured.numbers, measured.sizes, asked.seed)
        known = [rate for rate in measured.rates if rate is not None]
        values |= _rate(f"page_{name}", known, [1] * len(known), asked.seed)
    written = sum(len(reading.texts[place]) for place in asked.compared)
    return values | {
        "edit_distance": micro_rate(reading.own["edit-distance"].numbers, reading.own["edit-distance"].sizes),
        "exact_match": micro_rate(reading.own["exact"].numbers, reading.own["exact"].sizes),
        "length_ratio": written / sum(map(len, asked.compared.values())),
    }


def _rate(name: str, numbers: Sequence[float], sizes: Sequence[float], seed: int) -> dict[str, object]:
    """Sum of numbers over sum of sizes, and its interval."""
    interval = bootstrap_interval(numbers, sizes, seed=seed)
    return {name: micro_rate(numbers, sizes), f"{name}_interval": interval}


def compare(reading: Reading, baseline: Reading, gaps: Sequence[Gap]) -> Comparison:
    """The model beside the baseline, page by page. gaps: empty for what was not compared token by token."""
    cer = reading.own["cer"].less(baseline.own["cer"]) if "cer" in reading.own else None
    written = sum(len(text) for text in baseline.texts)
    tokens = sum(gap.tokens for gap in gaps)
    differences = {name: measured.less(baseline.named[name]) for name, measured in reading.named.items()}
    return Comparison(
        cer_difference=None if cer is None else cer.value,
        cer_difference_interval=None if cer is None else cer.interval,
        identical_pages=sum(mine == other for mine, other in zip(reading.texts, baseline.texts, strict=True)),
        length_ratio=sum(len(text) for text in reading.texts) / written if written else None,
        tokens=tokens or None,
        agreement=sum(gap.agreeing for gap in gaps) / tokens if tokens else None,
        agreement_interval=_agreement_interval(gaps, reading.own["loops"].seed) if tokens else None,
        kl=sum(gap.kl for gap in gaps) / tokens if tokens else None,
        metrics={name: found for name, found in differences.items() if found is not None},
    )


def _agreement_interval(gaps: Sequence[Gap], seed: int) -> Interval:
    return bootstrap_interval([gap.agreeing for gap in gaps], [gap.tokens for gap in gaps], seed=seed)


def page_results(
    asked: Asked, reading: Reading, baseline: Reading | None, gaps: Sequence[Gap]
) -> tuple[PageResult, ...]:
    """One row per page, in the order of the pages."""
    columns: dict[str, Sequence[object]] = {"name": asked.names} | _columns(reading)
    if asked.compared:
        columns["reference"] = [asked.compared.get(place) for place in range(len(asked.names))]
    if baseline is not None:
        columns |= {f"baseline_{name}": values for name, values in _columns(baseline).items()}
    if gaps:
        columns["compared_tokens"] = [gap.tokens for gap in gaps]
        columns["agreeing_tokens"] = [gap.agreeing for gap in gaps]
        columns["kl"] = [gap.kl / gap.tokens for gap in gaps]
    rows = zip(*columns.values(), strict=True)
    return tuple(PageResult.model_validate(dict(zip(columns, row, strict=True))) for row in rows)


def _columns(reading: Reading) -> dict[str, Sequence[object]]:
    count = len(reading.texts)
    named = {name: measured.by_page(measured.shown, count) for name, measured in reading.named.items()}
    noted = {name: measured.by_page(measured.notes, count) for name, measured in reading.named.items()}
    columns: dict[str, Sequence[object]] = {
        "text": reading.texts,
        "loop": [bool(number) for number in reading.own["loops"].numbers],
        "cut": [not answer.ended for answer in reading.answers],
        "metrics": [
            {name: numbers[page] for name, numbers in named.items() if numbers[page] is not None}
            for page in range(count)
        ],
        "notes": [{name: note for name, notes in noted.items() if (note := notes[page])} for page in range(count)],
    }
    if "cer" in reading.own:
        columns["errors"] = reading.own["cer"].by_page([int(number) for number in reading.own["cer"].numbers], count)
        columns |= {name: reading.own[name].by_page(reading.own[name].rates, count) for name in ("cer", "wer")}
    return columns
