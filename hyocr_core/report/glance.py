"""The answers at the top of the page: how much faster, how much smaller, how much worse, where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median, median_low

from hyocr_core.checkpoint.quant_report import Outcome
from hyocr_core.evaluation.recorded.evidence import Evidence
from hyocr_core.evaluation.scores.numbers import (
    RTN,
    agreed,
    count,
    number,
    percent,
    points,
    relative,
    seconds,
    signed_span,
    size,
    times,
)
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, PageResult
from hyocr_core.evaluation.scores.speeds import BenchResult
from hyocr_core.models.spelling import tower_of
from hyocr_core.report.facts import BlockFacts

CLOSE = 1.5
"""Below so many times the median's a block's error is nothing special."""


@dataclass(frozen=True)
class Answer:
    """headline: a few words. details: sentences. tone: good, bad or plain; the words say it too."""

    question: str
    headline: str
    unit: str
    details: tuple[str, ...]
    tone: str = "plain"


def faster(evidence: Evidence) -> Answer:
    """From a recorded measurement of what serves it; what an evaluation took is no server's time."""
    question, result = "How much faster?", evidence.bench
    if result is None:
        return Answer(question, "unknown", "", ("Nobody has measured yet how fast it is served. See below how to.",))
    most = result.load.at_once[-1]
    details = tuple(_speeds(result, most))
    compared = result.faster(most)
    if compared is None:
        return Answer(question, number(median(result.model.level(most).pages_per_second)), "pages per second", details)
    middle, least, highest = compared
    tone = "good" if least > 1 else "bad" if highest < 1 else "plain"
    return Answer(question, times(middle), "the pages per second", details, tone)


def _speeds(result: BenchResult, most: int) -> Iterator[str]:
    for at_once in dict.fromkeys((most, result.load.at_once[0])):
        said = [f"{number(median(each.level(at_once).pages_per_second))}" for each in result.served.values()]
        change = f"{said[0]} before, {said[-1]} now" if len(said) > 1 else said[0]
        compared = result.faster(at_once)
        span = "" if compared is None else f" ({times(compared[1])} to {times(compared[2])})"
        yield f"Pages per second in {result.model.runtime}, {at_once} at once: {change}{span}."
    if result.model.memory_bytes is not None:
        before = "" if result.baseline is None else f", {size(result.baseline.memory_bytes)} before"
        yield f"The server held {size(result.model.memory_bytes)} of memory{before}."


def smaller(evidence: Evidence) -> Answer:
    report = evidence.report
    before, after = report.weight_bytes_before, report.weight_bytes_after
    time, memory = seconds(sum(report.phases.values())), size(report.peak_rss_bytes)
    details = [
        f"{size(before)} of weights became {size(after)}.",
        f"{count(len(report.layers), 'linear layer')} quantized, {len(report.ignored)} left as they were, in {time} "
        f"and {memory} of memory.",
    ]
    return Answer("How much smaller?", times(before / after), "smaller", tuple(details))


def worse(evidence: Evidence) -> Answer:
    question, result = "How much worse?", evidence.evaluation
    if result is None:
        return Answer(question, "unknown", "", ("Nobody has measured yet how it reads. See below how to.",))
    compared, pages = result.comparison, len(result.pages)
    details = tuple(_closeness(result))
    if compared is not None and compared.cer_difference is not None and compared.cer_difference_interval is not None:
        outcome = "unknown" if result.verdict is None else result.verdict.outcome
        before = None if result.baseline is None else result.baseline.cer
        change = f"{percent(before)} before, {percent(result.model.cer)} now"
        rates = f"CER {change} (95 % of the difference: {signed_span(compared.cer_difference_interval)})."
        return Answer(question, points(compared.cer_difference), "points of CER", (rates, *details), _TONES[outcome])
    if compared is not None and compared.agreement is not None:
        return Answer(question, _agreed(compared), "of next tokens agree", details)
    if compared is not None:
        return Answer(question, f"{compared.identical_pages} of {pages}", "pages read identically", details)
    return Answer(
        question, percent(result.model.cer), "CER", ("There is no baseline to compare with: --baseline.", *details)
    )


_TONES: dict[Outcome, str] = {"worse": "bad", "better": "good", "no measurable loss": "good", "unknown": "plain"}


def _agreed(compared: Comparison) -> str:
    return agreed(compared.agreement, compared.agreement_interval)


def _closeness(result: EvalResult) -> Iterator[str]:
    compared = result.comparison
    if compared is not None:
        identical = f"{compared.identical_pages:,} of {count(len(result.pages), 'page')} read identically"
        agreement = "" if compared.agreement is None else f", {_agreed(compared)} of next tokens agree"
        yield f"{identical}{agreement}."
    rounded: Comparison | None = result.rounded_comparison
    if rounded is not None and rounded.cer_difference is not None:
        yield f"Plain {RTN} costs {points(rounded.cer_difference)} points."
    loops = round(result.model.loop_rate * len(result.pages))
    if loops:
        yield f"{count(loops, 'page')} ended in a repetition loop."


def where(blocks: Sequence[BlockFacts], evidence: Evidence, worst: Sequence[tuple[int, PageResult]]) -> Answer:
    details = []
    headline, unit = "unknown", ""
    if blocks:
        block = max(blocks, key=lambda fact: fact.error)
        middle = median_low(fact.error for fact in blocks)
        headline, unit = _named(block)
        often = f", {number(block.error / middle, 2)} times the median" if middle else ""
        close = "; the others are close" if middle and len(blocks) > 1 and block.error < CLOSE * middle else ""
        details.append(f"{block.name} is off by {relative(block.error)}{often}{close}.")
        if block.worst is not None and block.worst.error is not None:
            details.append(f"In it most of all {block.worst.kind}: {relative(block.worst.error)}.")
    if worst:
        details.append(_worst_page(worst[0][1]))
    degraded = len(evidence.report.degraded)
    if degraded:
        details.append(f"{count(degraded, 'layer')} fell back to a poorer way and should be looked at.")
    return Answer("Where?", headline, unit, tuple(details), "bad" if degraded else "plain")


def _named(block: BlockFacts) -> tuple[str, str]:
    last = block.name.rpartition(".")[2]
    return f"block {last}" if last.isdigit() else block.name, f"of the {tower_of(block.name)}"


def _worst_page(page: PageResult) -> str:
    if page.errors is None:
        return f"Page read most differently: {page.name}."
    before = "" if page.baseline_errors is None else f", {page.baseline_errors} before"
    return f"Worst page: {page.name}, {count(page.errors, 'error')}{before}."
