"""What an evaluation comes to, in plain words: how much smaller, what was lost, and what the pages could have shown."""

from __future__ import annotations

from collections.abc import Iterator

from hyocr_core.checkpoint.quant_report import Outcome, VerdictRecord
from hyocr_core.evaluation.scores.numbers import apart, count, number, percent, points, signed_span, size, span
from hyocr_core.evaluation.scores.rates import unseen_share
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, Interval
from hyocr_core.evaluation.scores.unusable import unusable, unusable_warning

FEWEST = 6
"""Pages that differ: a loss on each of fewer is chance once in 16 times or more often."""

ALIKE = 0.01
"""Sizes within so much of the larger one are equal."""

_ASKED = (0.001, 0.005, 0.01, 0.05)
"""Losses of CER that somebody may want to see."""
_MANY = 5000
"""Pages: nobody transcribes more."""


def conclude(result: EvalResult) -> VerdictRecord:
    """The verdict of an evaluation, from its numbers alone."""
    outcome, found = _found(result)
    sentences = [_LINKS[outcome].join(filter(None, [_smaller(result), found])), *_power(result, outcome)]
    return VerdictRecord(
        text=_plain(" ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in sentences)),
        outcome=outcome,
        smallest_loss=_smallest_loss(result) if outcome != "unknown" else None,
        warnings=tuple(map(_plain, unusable_warning(result))),
    )


_LINKS: dict[Outcome, str] = {
    "worse": ", but ",
    "better": ", and ",
    "no measurable loss": " with ",
    "unknown": "; ",
}
_WORDS: dict[Outcome, str] = {
    "worse": "it reads worse",
    "better": "it reads better",
    "no measurable loss": "no measurable loss",
}


def _plain(text: str) -> str:
    """With spaces that every program knows."""
    return text.replace("\u00a0", " ")


def _smaller(result: EvalResult) -> str:
    after, before = result.model.weight_bytes, result.baseline and result.baseline.weight_bytes
    if not after or not before or abs(after - before) <= ALIKE * max(after, before):
        return ""
    ratio = f"{number(before / after, 2)}× smaller" if after < before else f"{number(after / before, 2)}× larger"
    return f"{ratio} ({size(before)} to {size(after)})"


def _found(result: EvalResult) -> tuple[Outcome, str]:
    """What was lost, and how to say it."""
    compared = result.comparison
    if compared is None:
        return "unknown", _alone(result)
    if unusable(result, "baseline").most:
        return "unknown", "most answers of the baseline say nothing, so nobody knows what was lost"
    if compared.cer_difference is None or compared.cer_difference_interval is None:
        return "unknown", _without_transcripts(compared, result)
    difference = f"CER {_before(result)}{percent(result.model.cer)}, {points(compared.cer_difference)} points"
    pages = judged_pages(result)
    if pages < FEWEST:
        return "unknown", f"{difference} on {count(pages, 'page')}, too few to say what was lost"
    changed = _changed(result)
    outcome = _outcome(compared.cer_difference_interval, changed)
    if not changed:
        as_before = (
            "read as before" if compared.identical_pages == len(result.pages) else "have as many errors as before"
        )
        difference = f"all {count(pages, 'page')} {as_before}"
    else:
        few = "" if changed >= FEWEST else f", on {count(changed, 'page')} alone"
        difference = f"{difference} (95 %: {signed_span(compared.cer_difference_interval)}){few}"
    return outcome, f"{_WORDS[outcome]}: {difference}{_lost_parts(result, compared)}{_more_faults(result)}"


def _lost_parts(result: EvalResult, compared: Comparison) -> str:
    """The metrics beside CER by which it reads worse, each for itself, on six pages or more."""
    lost = []
    for name, metric in result.metrics.items():
        found = compared.metrics.get(name)
        low, high = (found and found.interval) or (0.0, 0.0)
        changed = sum(page.metrics.get(name) != page.baseline_metrics.get(name) for page in result.pages)
        if found is not None and (low > 0 if metric.better == "smaller" else high < 0) and changed >= FEWEST:
            lost.append(f"{metric.title} {apart(found, metric.unit)}")
    return f"; worse by part: {', '.join(lost)}" if lost else ""


def _before(result: EvalResult) -> str:
    return "" if result.baseline is None else f"{percent(result.baseline.cer)} became "


def _outcome(interval: Interval, changed: int) -> Outcome:
    if changed < FEWEST or interval[0] <= 0 <= interval[1]:
        return "no measurable loss"
    return "worse" if interval[0] > 0 else "better"


def judged_pages(result: EvalResult) -> int:
    """The pages that the CER is of: those with a transcript; all where there are none."""
    return sum(page.reference is not None for page in result.pages) or len(result.pages)


def _changed(result: EvalResult) -> int:
    """The pages with more errors than the baseline's, or fewer."""
    return sum(page.errors != page.baseline_errors for page in result.pages)


def _alone(result: EvalResult) -> str:
    pages = count(judged_pages(result), "page")
    if result.model.cer is None:
        return f"{pages} read; neither transcripts nor a baseline say how well"
    read = f"CER {percent(result.model.cer)} (95 %: {span(result.model.cer_interval)}) on {pages}"
    return f"{read}; only a baseline can tell what was lost"


def _without_transcripts(compared: Comparison, result: EvalResult) -> str:
    read = f"{compared.identical_pages:,} of {count(len(result.pages), 'page')} read identically"
    if compared.agreement is not None and compared.agreement_interval is not None and compared.tokens is not None:
        read = f"{_agreement(compared.agreement, compared.agreement_interval, compared.tokens)}, {read}"
    return f"{read}{_more_faults(result)}; without transcripts nobody knows which of the two is right"


def _agreement(agreement: float, interval: Interval, tokens: int) -> str:
    agreeing = "all" if agreement == 1 else f"{percent(agreement)} of"
    return f"{agreeing} {count(tokens, 'next token')} agree (95 %: {span(interval)})"


def _more_faults(result: EvalResult) -> str:
    """Loops and cut answers that the baseline does not have."""
    pages, model, baseline = len(result.pages), result.model, result.baseline
    if baseline is None:
        return ""
    more = {
        "in a repetition loop": round((model.loop_rate - baseline.loop_rate) * pages),
        "at the limit of tokens": model.cut_pages - baseline.cut_pages,
    }
    said = [
        f"{few:,} more {'page ends' if few == 1 else 'pages end'} {where}" for where, few in more.items() if few > 0
    ]
    return f", but {' and '.join(said)}" if said else ""


def _smallest_loss(result: EvalResult) -> float | None:
    """The least CER that a loss on these pages must have to be told from chance: half of the interval's width."""
    if result.comparison is None or result.comparison.cer_difference_interval is None:
        return None
    low, high = result.comparison.cer_difference_interval
    return (high - low) / 2


def _power(result: EvalResult, outcome: Outcome) -> Iterator[str]:
    """What these pages could have shown, and how many would show more."""
    pages, loss = judged_pages(result), _smallest_loss(result)
    if outcome != "no measurable loss" or loss is None:
        return
    if not _changed(result):
        unseen = unseen_share(pages)
        more = f"; 300 pages would leave {percent(unseen_share(300), 0)}" if pages < 150 else ""
        yield f"up to {percent(unseen, 1)} of such pages may still be read otherwise (95 %){more}"
        return
    asked = next((asked for asked in _ASKED if asked < loss and pages * (loss / asked) ** 2 <= _MANY), None)
    more = "" if asked is None else f"; about {_about(pages * (loss / asked) ** 2)} would show {number(100 * asked)}"
    yield f"{count(pages, 'page')} cannot show less than {number(100 * loss, 2)} points{more}"


def _about(pages: float) -> str:
    """To two digits."""
    return f"{float(f'{pages:.2g}'):,.0f}"
