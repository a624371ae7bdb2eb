"""Which of several quantizations to take, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from hyocr_core.contract.config import FrozenModel
from hyocr_core.evaluation.recorded.pareto import Contender, by_cer, by_kl, by_size
from hyocr_core.evaluation.scores.conclusion import FEWEST, conclude, judged_pages
from hyocr_core.evaluation.scores.numbers import agreed, count, number, points, signed_span, size
from hyocr_core.evaluation.scores.result import Comparison
from hyocr_core.wording import listed, phrase, sentences, tr

AGREEING = 0.98
"""Next tokens that should agree with the baseline's where there are no transcripts, as the docs' first gate asks."""

_NAMED = 3


class Recommendation(FrozenModel):
    """name: of the checkpoint to take; None where the pages do not say."""

    name: str | None
    text: str = Field(description="the recommendation with its reason, or why there is none")


def recommend(contenders: Sequence[Contender]) -> Recommendation:
    """The smallest that loses nothing measurable; of equal sizes the one that is closest to the baseline by KL."""
    pages = judged_pages(contenders[0].result)
    if pages < FEWEST:
        return Recommendation(name=None, text=sentences([tr("{pages} pages are too few to choose by", pages=pages)]))
    good, none = _REASONS[all(each.result.model.cer is not None for each in contenders)]
    left = [each for each in contenders if not _is_behind(each, contenders)] or list(contenders)
    sound = [each for each in left if _is_sound(each)]
    why = tr(good if sound else none, share=f"{AGREEING:.0%}")
    smallest = min(sound or left, key=lambda each: each.size)
    equal = [each for each in sound or left if by_size(each, smallest) == 0]
    chosen = min(equal, key=_distance)
    only = len(sound or left) == 1 and len(contenders) > 1
    which = tr("the only one {why}", why=why) if only else tr("the smallest {why}", why=why)
    take = tr("Take {name}: {which} ({figures})", name=chosen.name, which=which, figures=_figures(chosen))
    text = sentences([take + _ties(chosen, equal), *_doubt(chosen)])
    return Recommendation(name=chosen.name, text=text.replace("\u00a0", " "))


_REASONS = {
    True: (
        phrase("without a measurable loss"),
        phrase("of those that lose least, since none is without a measurable loss"),
    ),
    False: (
        phrase("that agrees on {share} of next tokens or more"),
        phrase("of those that lose least, since none agrees on {share} of next tokens"),
    ),
}
"""By whether there are transcripts: what speaks for one, and what is said where it speaks for none."""


def _is_sound(contender: Contender) -> bool:
    """Whether nothing speaks against it beside the baseline."""
    compared = contender.result.comparison
    if contender.result.model.cer is None:
        agreement = None if compared is None else compared.agreement
        return agreement is not None and agreement >= AGREEING
    return conclude(contender.result).outcome != "worse"


def _is_behind(contender: Contender, contenders: Sequence[Contender]) -> bool:
    """Whether another makes measurably fewer errors; without transcripts, whether one is that is closer by KL."""
    others = [other for other in contenders if other is not contender]
    if contender.result.model.cer is not None:
        return any(by_cer(contender, other) > 0 for other in others)
    return not _is_sound(contender) and any(by_kl(contender, other) > 0 for other in others)


def _distance(contender: Contender) -> tuple[float, float]:
    """From the baseline: KL, then CER; what nobody measured is far."""
    compared, far = contender.result.comparison, float("inf")
    kl = None if compared is None else compared.kl
    cer = contender.result.model.cer
    return far if kl is None else kl, far if cer is None else cer


def _figures(contender: Contender) -> str:
    return listed([size(contender.size), *_of_comparison(contender.result.comparison)])


def _of_comparison(compared: Comparison | None) -> Iterator[str]:
    if compared is None:
        return
    if compared.cer_difference is not None:
        interval = signed_span(compared.cer_difference_interval)
        yield tr("CER {points} points (95 %: {interval})", points=points(compared.cer_difference), interval=interval)
    elif compared.agreement is not None:
        yield tr("{share} of next tokens agree", share=agreed(compared.agreement, compared.agreement_interval))
    if compared.kl is not None:
        yield f"KL {number(compared.kl, 2)}"


def _ties(chosen: Contender, equal: Sequence[Contender]) -> str:
    """What decided among those of its size, and what these pages cannot tell from it."""
    others = [each for each in equal if each is not chosen]
    farther = [each.name for each in others if by_kl(chosen, each) < 0]
    as_good = [each.name for each in others if by_kl(chosen, each) >= 0]
    said = [tr("closer by KL than {names}", names=_names(farther))] if farther else []
    said += [tr("no better than {names}", names=_names(as_good))] if as_good else []
    return tr("; of that size {said}", said=tr(" and ").join(said)) if said else ""


def _names(names: Sequence[str]) -> str:
    first = listed(names[:_NAMED])
    return tr("{names} and {count} more", names=first, count=len(names) - _NAMED) if len(names) > _NAMED else first


def _doubt(chosen: Contender) -> Iterator[str]:
    verdict = conclude(chosen.result)
    if verdict.outcome == "no measurable loss" and verdict.smallest_loss is not None:
        pages, loss = count(judged_pages(chosen.result), "page"), number(100 * verdict.smallest_loss, 2)
        yield tr("These {pages} cannot show less than {loss} points", pages=pages, loss=loss)
