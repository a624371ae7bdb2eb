from __future__ import annotations

from typing import Any

import pytest

from hyocr_core.evaluation.scores.conclusion import conclude
from hyocr_core.evaluation.scores.result import PageResult
from hyocr_core.evaluation.scores.unusable import unusable
from tests.report import built


def some(count: int, **changes: Any) -> tuple[PageResult, ...]:
    """Ten pages, so many of them with these faults."""
    read = built.some_pages(10)
    return (*(page.model_copy(update=changes) for page in read[:count]), *read[count:])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [({"text": ""}, "empty"), ({"loop": True}, "in a loop"), ({"cut": True}, "cut at the limit of tokens")],
)
def test_most_answers_that_say_nothing_are_a_warning(changes: dict[str, Any], kind: str) -> None:
    assert conclude(built.evaluation(some(5, **changes))).warnings == ()
    (warning,) = conclude(built.evaluation(some(6, **changes))).warnings
    assert warning == f"most answers say nothing: 6 of 10 (6 {kind}), and of the baseline's 0 of 10"


def test_a_page_with_two_faults_counts_once() -> None:
    found = unusable(built.evaluation(some(6, loop=True, cut=True)), "model")
    assert (found.any, found.loops, found.cut, found.empty) == (6, 6, 6, 0)
    assert str(found) == "6 of 10 (6 in a loop, 6 cut at the limit of tokens)"


def test_an_empty_answer_to_an_empty_page_is_right() -> None:
    assert unusable(built.evaluation(some(10, text="", reference="")), "model").any == 0
    assert unusable(built.evaluation(some(10, text="", reference=None)), "model").any == 10


def test_where_the_baseline_fails_too_it_is_not_the_quantization() -> None:
    (warning,) = conclude(built.evaluation(some(8, text="", baseline_text=""))).warnings
    assert "and of the baseline's 8 of 10 (8 empty); look at the pages" in warning
    alone = built.evaluation(some(8, cut=True), baseline=None, comparison=None)
    (warning,) = conclude(alone).warnings
    assert warning.endswith("--max-new-tokens, and compare with a baseline")
