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
from hyocr_core.wording import tr

CLOSE = 1.5
"""Below so many times the median's a block's error is nothing special."""


@dataclass(frozen=True)
class Answer:
    """headline: a few words. details: sentences. tone: good, bad or plain; the words say it too.

    meter: the size that is left is drawn beneath.
    """

    question: str
    headline: str
    unit: str
    details: tuple[str, ...]
    tone: str = "plain"
    meter: bool = False


def faster(evidence: Evidence) -> Answer:
    """From a recorded measurement of what serves it; what an evaluation took is no server's time."""
    question, result = tr("How much faster?"), evidence.bench
    if result is None:
        return Answer(
            question, tr("unknown"), "", (tr("Nobody has measured yet how fast it is served. See below how to."),)
        )
    most = result.load.at_once[-1]
    details = tuple(_speeds(result, most))
    compared = result.faster(most)
    if compared is None:
        speed = number(median(result.model.level(most).pages_per_second))
        return Answer(question, speed, tr("pages per second"), details)
    middle, least, highest = compared
    tone = "good" if least > 1 else "bad" if highest < 1 else "plain"
    return Answer(question, times(middle), tr("the pages per second"), details, tone)


def _speeds(result: BenchResult, most: int) -> Iterator[str]:
    for at_once in dict.fromkeys((most, result.load.at_once[0])):
        said = [f"{number(median(each.level(at_once).pages_per_second))}" for each in result.served.values()]
        change = tr("{before} before, {now} now", before=said[0], now=said[-1]) if len(said) > 1 else said[0]
        compared = result.faster(at_once)
        if compared is not None:
            low, high = (times(bound) for bound in compared[1:])
            change = tr("{change} ({low} to {high})", change=change, low=low, high=high)
        runtime = result.model.runtime
        yield tr(
            "Pages per second in {runtime}, {at_once} at once: {change}.",
            runtime=runtime,
            at_once=at_once,
            change=change,
        )
    if result.model.memory_bytes is not None:
        memory = size(result.model.memory_bytes)
        if result.baseline is None:
            yield tr("The server held {memory} of memory.", memory=memory)
        else:
            before = size(result.baseline.memory_bytes)
            yield tr("The server held {memory} of memory, {before} before.", memory=memory, before=before)


def smaller(evidence: Evidence) -> Answer:
    report = evidence.report
    before, after = report.weight_bytes_before, report.weight_bytes_after
    time, memory = seconds(sum(report.phases.values())), size(report.peak_rss_bytes)
    details = [
        tr("{before} of weights became {after}.", before=size(before), after=size(after)),
        tr(
            "{layers} quantized, {left} left as they were, in {time} and {memory} of memory.",
            layers=count(len(report.layers), "linear layer"),
            left=len(report.ignored),
            time=time,
            memory=memory,
        ),
    ]
    return Answer(tr("How much smaller?"), times(before / after), tr("smaller"), tuple(details), meter=True)


def worse(evidence: Evidence) -> Answer:
    question, result = tr("How much worse?"), evidence.evaluation
    if result is None:
        return Answer(question, tr("unknown"), "", (tr("Nobody has measured yet how it reads. See below how to."),))
    compared, pages = result.comparison, len(result.pages)
    details = tuple(_closeness(result))
    if compared is not None and compared.cer_difference is not None and compared.cer_difference_interval is not None:
        outcome = "unknown" if result.verdict is None else result.verdict.outcome
        rates = tr(
            "CER {before} before, {now} now (95 % of the difference: {interval}).",
            before=percent(None if result.baseline is None else result.baseline.cer),
            now=percent(result.model.cer),
            interval=signed_span(compared.cer_difference_interval),
        )
        difference, unit = points(compared.cer_difference), tr("points of CER")
        return Answer(question, difference, unit, (rates, *details), _TONES[outcome])
    if compared is not None and compared.agreement is not None:
        return Answer(question, _agreed(compared), tr("of next tokens agree"), details)
    if compared is not None:
        some = tr("{some} of {all}", some=compared.identical_pages, all=pages)
        return Answer(question, some, tr("pages read identically"), details)
    alone = tr("There is no baseline to compare with: --baseline.")
    return Answer(question, percent(result.model.cer), "CER", (alone, *details))


_TONES: dict[Outcome, str] = {"worse": "bad", "better": "good", "no measurable loss": "good", "unknown": "plain"}


def _agreed(compared: Comparison) -> str:
    return agreed(compared.agreement, compared.agreement_interval)


def _closeness(result: EvalResult) -> Iterator[str]:
    compared = result.comparison
    if compared is not None:
        some, pages = f"{compared.identical_pages:,}", count(len(result.pages), "page")
        identical = tr("{some} of {pages} read identically", some=some, pages=pages)
        if compared.agreement is None:
            yield tr("{identical}.", identical=identical)
        else:
            share = _agreed(compared)
            yield tr("{identical}, {share} of next tokens agree.", identical=identical, share=share)
    rounded: Comparison | None = result.rounded_comparison
    if rounded is not None and rounded.cer_difference is not None:
        yield tr("Plain {rtn} costs {points} points.", rtn=tr(RTN), points=points(rounded.cer_difference))
    loops = round(result.model.loop_rate * len(result.pages))
    if loops:
        yield tr("{pages} ended in a repetition loop.", pages=count(loops, "page"))


def where(blocks: Sequence[BlockFacts], evidence: Evidence, worst: Sequence[tuple[int, PageResult]]) -> Answer:
    details = []
    headline, unit = tr("unknown"), ""
    if blocks:
        block = max(blocks, key=lambda fact: fact.error)
        middle = median_low(fact.error for fact in blocks)
        headline, unit = _named(block)
        off = tr("{block} is off by {error}", block=block.name, error=relative(block.error))
        if middle:
            off = tr("{off}, {ratio} times the median", off=off, ratio=number(block.error / middle, 2))
        if middle and len(blocks) > 1 and block.error < CLOSE * middle:
            off = tr("{off}; the others are close", off=off)
        details.append(tr("{off}.", off=off))
        if block.worst is not None and block.worst.error is not None:
            worst_error = relative(block.worst.error)
            details.append(tr("In it most of all {kind}: {error}.", kind=block.worst.kind, error=worst_error))
    if worst:
        details.append(_worst_page(worst[0][1]))
    degraded = len(evidence.report.degraded)
    if degraded:
        layers = count(degraded, "layer")
        details.append(tr("{layers} fell back to a poorer way and should be looked at.", layers=layers))
    return Answer(tr("Where?"), headline, unit, tuple(details), "bad" if degraded else "plain")


def _named(block: BlockFacts) -> tuple[str, str]:
    last = block.name.rpartition(".")[2]
    name = tr("block {number}", number=last) if last.isdigit() else block.name
    return name, tr("of the {tower}", tower=tr(tower_of(block.name)))


def _worst_page(page: PageResult) -> str:
    if page.errors is None:
        return tr("Page read most differently: {page}.", page=page.name)
    errors = count(page.errors, "error")
    if page.baseline_errors is None:
        return tr("Worst page: {page}, {errors}.", page=page.name, errors=errors)
    before = page.baseline_errors
    return tr("Worst page: {page}, {errors}, {before} before.", page=page.name, errors=errors, before=before)
