"""What an evaluation comes to, in plain words: how much smaller, what was lost, and what the pages could have shown."""

from __future__ import annotations

from collections.abc import Iterator

from hyocr_core.checkpoint.quant_report import Outcome, VerdictRecord
from hyocr_core.evaluation.scores.numbers import apart, count, number, percent, points, signed_span, size, span
from hyocr_core.evaluation.scores.rates import unseen_share
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, Interval
from hyocr_core.evaluation.scores.unusable import unusable, unusable_warning
from hyocr_core.wording import listed, phrase, sentences, spoken, tr

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
    said = [_linked(outcome, _smaller(result), found), *_power(result, outcome)]
    return VerdictRecord(
        text=_plain(sentences(f"{sentence[:1].upper()}{sentence[1:]}" for sentence in said)),
        outcome=outcome,
        smallest_loss=_smallest_loss(result) if outcome != "unknown" else None,
        warnings=tuple(map(_plain, unusable_warning(result))),
    )


def in_words(result: EvalResult) -> VerdictRecord | None:
    """The verdict as it was recorded; in another language than English, as it is there."""
    return result.verdict if result.verdict is None or spoken() == "en" else conclude(result)


_LINKS: dict[Outcome, str] = {
    "worse": phrase("{smaller}, but {found}"),
    "better": phrase("{smaller}, and {found}"),
    "no measurable loss": phrase("{smaller} with {found}"),
    "unknown": phrase("{smaller}; {found}"),
}
_WORDS: dict[Outcome, str] = {
    "worse": phrase("it reads worse: {difference}"),
    "better": phrase("it reads better: {difference}"),
    "no measurable loss": phrase("no measurable loss: {difference}"),
}


def _linked(outcome: Outcome, smaller: str, found: str) -> str:
    return tr(_LINKS[outcome], smaller=smaller, found=found) if smaller else found


def _plain(text: str) -> str:
    """With spaces that every program knows."""
    return text.replace("\u00a0", " ")


def _smaller(result: EvalResult) -> str:
    after, before = result.model.weight_bytes, result.baseline and result.baseline.weight_bytes
    if not after or not before or abs(after - before) <= ALIKE * max(after, before):
        return ""
    values = {"before": size(before), "after": size(after)}
    if after < before:
        return tr("{ratio}× smaller ({before} to {after})", ratio=number(before / after, 2), **values)
    return tr("{ratio}× larger ({before} to {after})", ratio=number(after / before, 2), **values)


def _found(result: EvalResult) -> tuple[Outcome, str]:
    """What was lost, and how to say it."""
    compared = result.comparison
    if compared is None:
        return "unknown", _alone(result)
    if unusable(result, "baseline").most:
        return "unknown", tr("most answers of the baseline say nothing, so nobody knows what was lost")
    if compared.cer_difference is None or compared.cer_difference_interval is None:
        return "unknown", _without_transcripts(compared, result)
    difference = tr("CER {rates}, {points} points", rates=_rates(result), points=points(compared.cer_difference))
    pages = judged_pages(result)
    if pages < FEWEST:
        few = count(pages, "page")
        return "unknown", tr("{difference} on {pages}, too few to say what was lost", difference=difference, pages=few)
    changed = _changed(result)
    outcome = _outcome(compared.cer_difference_interval, changed)
    if not changed:
        same = compared.identical_pages == len(result.pages)
        read, erred = phrase("all {pages} read as before"), phrase("all {pages} have as many errors as before")
        difference = tr(read if same else erred, pages=count(pages, "page"))
    else:
        interval = signed_span(compared.cer_difference_interval)
        difference = tr("{difference} (95 %: {interval})", difference=difference, interval=interval)
        if changed < FEWEST:
            difference = tr("{difference}, on {pages} alone", difference=difference, pages=count(changed, "page"))
    return outcome, tr(_WORDS[outcome], difference=difference) + _lost_parts(result, compared) + _more_faults(result)


def _lost_parts(result: EvalResult, compared: Comparison) -> str:
    """The metrics beside CER by which it reads worse, each for itself, on six pages or more."""
    lost = []
    for name, metric in result.metrics.items():
        found = compared.metrics.get(name)
        low, high = (found and found.interval) or (0.0, 0.0)
        changed = sum(page.metrics.get(name) != page.baseline_metrics.get(name) for page in result.pages)
        if found is not None and (low > 0 if metric.better == "smaller" else high < 0) and changed >= FEWEST:
            lost.append(f"{tr(metric.title)} {apart(found, metric.unit)}")
    return tr("; worse by part: {parts}", parts=listed(lost)) if lost else ""


def _rates(result: EvalResult) -> str:
    now = percent(result.model.cer)
    return now if result.baseline is None else tr("{before} became {now}", before=percent(result.baseline.cer), now=now)


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
        return tr("{pages} read; neither transcripts nor a baseline say how well", pages=pages)
    return tr(
        "CER {rate} (95 %: {interval}) on {pages}; only a baseline can tell what was lost",
        rate=percent(result.model.cer),
        interval=span(result.model.cer_interval),
        pages=pages,
    )


def _without_transcripts(compared: Comparison, result: EvalResult) -> str:
    read = tr(
        "{some} of {pages} read identically",
        some=f"{compared.identical_pages:,}",
        pages=count(len(result.pages), "page"),
    )
    if compared.agreement is not None and compared.agreement_interval is not None and compared.tokens is not None:
        agreement = _agreement(compared.agreement, compared.agreement_interval, compared.tokens)
        read = tr("{agreement}, {read}", agreement=agreement, read=read)
    read += _more_faults(result)
    return tr("{read}; without transcripts nobody knows which of the two is right", read=read)


def _agreement(agreement: float, interval: Interval, tokens: int) -> str:
    values = {"tokens": count(tokens, "next token"), "interval": span(interval)}
    if agreement == 1:
        return tr("all {tokens} agree (95 %: {interval})", **values)
    return tr("{share} of {tokens} agree (95 %: {interval})", share=percent(agreement), **values)


def _more_faults(result: EvalResult) -> str:
    """Loops and cut answers that the baseline does not have."""
    pages, model, baseline = len(result.pages), result.model, result.baseline
    if baseline is None:
        return ""
    more = {
        phrase("{end} in a repetition loop"): round((model.loop_rate - baseline.loop_rate) * pages),
        phrase("{end} at the limit of tokens"): model.cut_pages - baseline.cut_pages,
    }
    said = [tr(where, end=_end(few)) for where, few in more.items() if few > 0]
    return tr(", but {faults}", faults=tr(" and ").join(said)) if said else ""


def _end(few: int) -> str:
    return tr("{few} more page ends", few=few) if few == 1 else tr("{few} more pages end", few=f"{few:,}")


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
        unseen = percent(unseen_share(pages), 1)
        said = tr("up to {share} of such pages may still be read otherwise (95 %)", share=unseen)
        left = percent(unseen_share(300), 0)
        yield tr("{said}; 300 pages would leave {share}", said=said, share=left) if pages < 150 else said
        return
    asked = next((asked for asked in _ASKED if asked < loss and pages * (loss / asked) ** 2 <= _MANY), None)
    said = tr("{pages} cannot show less than {loss} points", pages=count(pages, "page"), loss=number(100 * loss, 2))
    if asked is not None:
        more, smaller = _about(pages * (loss / asked) ** 2), number(100 * asked)
        said = tr("{said}; about {pages} would show {loss}", said=said, pages=more, loss=smaller)
    yield said


def _about(pages: float) -> str:
    """To two digits."""
    return f"{float(f'{pages:.2g}'):,.0f}"
