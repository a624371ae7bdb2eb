from __future__ import annotations

import pytest

from hyocr_core.evaluation.recorded.pareto import Contender, by_cer, by_kl, by_size, pareto_front
from hyocr_core.evaluation.scores.result import PageResult
from tests.report import built

PAGES = built.some_pages(60)


def contender(name: str, size: int, *, every: int = 0, kl: float = 0.01, pages: int = 60) -> Contender:
    """One more error on every so many pages, and this KL, which varies a little."""
    read = tuple(
        page.model_copy(
            update={
                "errors": (page.errors or 0) + bool(every and index % every == 0),
                "kl": kl * (1 + index % 3 / 10),
            }
        )
        for index, page in enumerate(PAGES[:pages])
    )
    return Contender(name, size, built.evaluation(read))


def front(*contenders: Contender) -> list[str]:
    return [contenders[index].name for index in pareto_front(contenders)]


def test_the_smaller_beats_the_larger_that_reads_alike() -> None:
    assert front(contender("small", 900), contender("large", 1000)) == ["small"]


def test_a_measurable_gain_is_worth_its_size() -> None:
    assert front(contender("small", 900, every=2), contender("large", 1000)) == ["small", "large"]


def test_an_error_within_chance_marks_nothing() -> None:
    """One error more on one of sixty pages: a sharp comparison would keep both."""
    small, large = contender("small", 900, every=60), contender("large", 1000)
    assert by_cer(small, large) == 0
    assert front(small, large) == ["small"]


def test_where_cer_cannot_tell_kl_does() -> None:
    far, near = contender("far", 900, kl=0.02), contender("near", 1000, kl=0.01)
    assert by_cer(far, near) == 0
    assert (by_kl(far, near), by_kl(near, far)) == (1, -1)
    assert front(far, near) == ["far", "near"]
    assert front(contender("far", 1000, kl=0.02), near) == ["near"]


@pytest.mark.parametrize(("size", "side"), [(1000, 0), (1009, 0), (991, 0), (1020, 1), (980, -1)])
def test_sizes_within_a_percent_are_equal(size: int, side: int) -> None:
    assert by_size(contender("mine", size), contender("other", 1000)) == side
    assert by_size(contender("other", 1000), contender("mine", size)) == -side


def test_equals_stay_together() -> None:
    assert front(contender("one", 1000), contender("two", 1005), contender("three", 1000)) == ["one", "two", "three"]
    assert pareto_front([]) == []


def test_a_few_pages_tell_nothing_apart() -> None:
    few, other = contender("few", 900, every=1, kl=0.5, pages=5), contender("other", 900, kl=0.01, pages=5)
    assert by_cer(few, other) == by_kl(few, other) == 0


def test_what_nobody_measured_is_not_marked() -> None:
    bare: tuple[PageResult, ...] = tuple(page.model_copy(update={"errors": None, "kl": None}) for page in PAGES)
    score = built.score(0.01).model_copy(update={"cer": None})
    result = built.evaluation(bare, model=score, baseline=None, comparison=None)
    assert pareto_front([Contender("bare", 900, result)]) == []
