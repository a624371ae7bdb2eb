from __future__ import annotations

from typing import Any

import pytest

from hyocr_core.evaluation.recorded.pareto import Contender
from hyocr_core.evaluation.recorded.recommend import recommend
from hyocr_core.evaluation.scores.rates import bootstrap_interval
from tests.report import built

PAGES = built.some_pages(60)
LENGTHS = [len(page.reference or "") for page in PAGES]


def contender(name: str, size: int, *, more: int = 0, kl: float = 0.01, pages: int = 60, **changes: Any) -> Contender:
    """So many more errors than the baseline on every second page."""
    read = tuple(
        page.model_copy(
            update={
                "errors": (page.baseline_errors or 0) + (more if index % 2 else 0),
                "kl": kl * (1 + index % 3 / 10),
            }
        )
        for index, page in enumerate(PAGES[:pages])
    )
    less = [(page.errors or 0) - (page.baseline_errors or 0) for page in read]
    compared = built.evaluation().comparison
    assert compared is not None
    compared = compared.model_copy(
        update={
            "cer_difference": sum(less) / sum(LENGTHS[:pages]),
            "cer_difference_interval": bootstrap_interval(less, LENGTHS[:pages], seed=0, signed=True),
            "kl": kl,
            **changes,
        }
    )
    return Contender(name, size, built.evaluation(read, comparison=compared))


def without_transcripts(name: str, size: int, agreement: float, kl: float) -> Contender:
    gone: dict[str, Any] = {"cer_difference": None, "cer_difference_interval": None, "agreement": agreement}
    found = contender(name, size, kl=kl, **gone)
    score = found.result.model.model_copy(update={"cer": None, "cer_interval": None})
    pages = tuple(page.model_copy(update={"errors": None, "reference": None}) for page in found.result.pages)
    return Contender(name, size, found.result.model_copy(update={"model": score, "pages": pages}))


def test_the_smallest_without_a_measurable_loss_is_taken() -> None:
    found = recommend([contender("int2", 500, more=3), contender("int4", 900), contender("fp8", 1500)])
    assert found.name == "int4"
    assert found.text.startswith(
        "Take int4: the smallest without a measurable loss (900 bytes, CER +0.00 points (95 %: "
    )
    assert "of that size" not in found.text
    assert "These 60 pages cannot show less than " in found.text


def test_the_only_one_is_called_so() -> None:
    found = recommend([contender("int2", 500, more=3), contender("fp8", 1500)])
    assert found.text.startswith("Take fp8: the only one without a measurable loss (1.5 kB, ")


def test_kl_decides_between_equal_sizes() -> None:
    found = recommend([contender("g64", 905, kl=0.02), contender("g128", 900, kl=0.03)])
    assert found.name == "g64"
    assert "; of that size closer by KL than g128." in found.text


def test_what_kl_tells_apart_and_what_it_does_not_are_named() -> None:
    found = recommend([contender("gptq", 900, kl=0.01), contender("rtn", 901, kl=0.04), contender("awq", 902, kl=0.01)])
    assert "; of that size closer by KL than rtn and no better than awq." in found.text


def test_what_nothing_tells_apart_is_said_to_be_as_good() -> None:
    same = [contender(name, 900) for name in ("one", "two", "three", "four", "five")]
    found = recommend(same)
    assert found.name == "one"
    assert "; of that size no better than two, three, four and 1 more." in found.text


def test_where_all_lose_the_least_loss_counts_and_is_said() -> None:
    found = recommend([contender("bad", 500, more=4), contender("less", 900, more=1)])
    assert found.name == "less"
    assert "the only one of those that lose least, since none is without a measurable loss (" in found.text
    assert "cannot show" not in found.text


def test_a_few_pages_recommend_nothing() -> None:
    found = recommend([contender("one", 900, pages=5), contender("two", 1000, more=5, pages=5)])
    assert (found.name, found.text) == (None, "5 pages are too few to choose by.")


def test_without_transcripts_the_next_tokens_decide() -> None:
    found = recommend([without_transcripts("far", 500, 0.91, 0.01), without_transcripts("near", 900, 0.99, 0.01)])
    assert found.name == "near"
    assert (
        "the only one that agrees on 98% of next tokens or more (900 bytes, 99.00 % of next tokens agree, KL 0.01)."
        in found.text
    )


@pytest.mark.parametrize("agreement", [0.91, 0.97])
def test_without_transcripts_and_agreement_it_is_said_that_none_is_close(agreement: float) -> None:
    found = recommend(
        [without_transcripts("one", 500, agreement, 0.2), without_transcripts("two", 900, agreement, 0.1)]
    )
    assert found.name == "two"
    assert "the only one of those that lose least, since none agrees on 98% of next tokens (900 bytes, " in found.text
