from __future__ import annotations

from typing import Any

import pytest

from hyocr_core.evaluation.recorded.worst import worst_pages
from hyocr_core.evaluation.scores.result import EvalResult, PageResult


def result(*pages: dict[str, Any]) -> EvalResult:
    """Only its pages matter here."""
    rows = tuple(
        PageResult(name=str(index), **{"text": "abc", "loop": False} | page) for index, page in enumerate(pages)
    )
    known: dict[str, Any] = {"pages": rows}
    return EvalResult.model_construct(**known)


def page(errors: int | None, before: int | None, agreeing: int | None = 10, **others: Any) -> dict[str, Any]:
    tokens = None if agreeing is None else 10
    return {
        "errors": errors,
        "baseline_errors": before,
        "agreeing_tokens": agreeing,
        "compared_tokens": tokens,
    } | others


def test_added_errors_go_first_then_errors_then_agreement() -> None:
    assert worst_pages(
        result(
            page(9, 9),  # no worse than the baseline
            page(3, 0),
            page(8, 5),  # as many added, but more in all
            page(4, 0),
            page(0, 4),  # better than the baseline, and right
            page(3, 0, agreeing=2),
            page(3, 0, agreeing=8),
        )
    ) == [3, 2, 5, 6, 1, 0]


def test_pages_without_a_fault_are_not_shown() -> None:
    assert worst_pages(result(page(0, 0), page(0, 0, agreeing=9), page(0, 0))) == [1]
    assert worst_pages(result(page(0, None, None), page(2, None, None), page(5, None, None))) == [2, 1]


def test_the_first_of_equals_goes_first_and_the_count_is_kept() -> None:
    assert worst_pages(result(*[page(1, 0)] * 12)) == list(range(10))
    assert worst_pages(result(*[page(1, 0)] * 12), 3) == [0, 1, 2]


@pytest.mark.parametrize("agreeing", [None, 10])
def test_without_transcripts_the_distance_to_the_baseline_counts(agreeing: int | None) -> None:
    texts = ["abc", "xyz", "abx"]
    pages = [page(None, None, agreeing, text=text, baseline_text="abc") for text in texts]
    assert worst_pages(result(*pages)) == [1, 2]
