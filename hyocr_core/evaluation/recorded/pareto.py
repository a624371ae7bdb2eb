"""Which of several quantizations are worth having: intervals and KL decide, and sizes within a percent are equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyocr_core.evaluation.scores.conclusion import ALIKE, FEWEST
from hyocr_core.evaluation.scores.rates import bootstrap_interval
from hyocr_core.evaluation.scores.result import EvalResult, PageResult

_RESAMPLES = 2_000
"""Enough to say on which side of 0 an interval lies."""


@dataclass(frozen=True)
class Contender:
    """A quantization. size: bytes of its weights. result: of the pages that all have read."""

    name: str
    size: int
    result: EvalResult


def pareto_front(contenders: Sequence[Contender]) -> list[int]:
    """Indices of those that no other beats, in their order; one of which nothing was measured is not among them.

    One is beaten by another that is neither larger nor measurably worse, and is smaller or measurably better.
    """
    known = [index for index, each in enumerate(contenders) if _is_measured(each.result)]
    return [mine for mine in known if not any(_beats(contenders[other], contenders[mine]) for other in known)]


def _is_measured(result: EvalResult) -> bool:
    return result.model.cer is not None or (result.comparison is not None and result.comparison.kl is not None)


def _beats(other: Contender, mine: Contender) -> bool:
    if other is mine or by_size(other, mine) > 0:
        return False
    better = by_cer(other, mine) or by_kl(other, mine)
    return better <= 0 and (better < 0 or by_size(other, mine) < 0)


def by_size(mine: Contender, other: Contender) -> int:
    """-1 if this is smaller, 1 if it is larger, 0 for sizes within a percent."""
    if abs(mine.size - other.size) <= ALIKE * max(mine.size, other.size):
        return 0
    return -1 if mine.size < other.size else 1


def by_cer(mine: Contender, other: Contender) -> int:
    """-1 if this makes fewer errors, 1 if it makes more, 0 if these pages cannot tell."""
    pairs = [
        (own, theirs)
        for own, theirs in zip(mine.result.pages, other.result.pages, strict=True)
        if own.errors is not None and theirs.errors is not None
    ]
    less = [(own.errors or 0) - (theirs.errors or 0) for own, theirs in pairs]
    return _side(less, [len(own.reference or "") for own, _ in pairs], mine.result.seed)


def by_kl(mine: Contender, other: Contender) -> int:
    """-1 if this is closer to the baseline, 1 if it is farther from it, 0 if these pages cannot tell."""
    pairs = list(zip(mine.result.pages, other.result.pages, strict=True))
    sums = [(_kl_sum(own), _kl_sum(theirs)) for own, theirs in pairs]
    less = [own - theirs for own, theirs in sums if own is not None and theirs is not None]
    if len(less) < len(sums):
        return 0
    return _side(less, [own.compared_tokens or 0 for own, _ in pairs], mine.result.seed)


def _kl_sum(page: PageResult) -> float | None:
    return None if page.kl is None or page.compared_tokens is None else page.kl * page.compared_tokens


def _side(less: Sequence[float], sizes: Sequence[float], seed: int) -> int:
    """On which side of 0 the paired interval of the difference lies."""
    if sum(map(bool, less)) < FEWEST or not any(sizes):
        return 0
    low, high = bootstrap_interval(less, sizes, seed=seed, resamples=_RESAMPLES, signed=True)
    return 1 if low > 0 else -1 if high < 0 else 0
