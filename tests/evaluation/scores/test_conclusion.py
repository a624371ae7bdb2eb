from __future__ import annotations

from typing import Any

import pytest

from hyocr_core.checkpoint.quant_report import Measure, MetricRecord
from hyocr_core.evaluation.scores.conclusion import FEWEST, conclude
from hyocr_core.evaluation.scores.rates import bootstrap_interval
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, PageResult
from tests.report import built


def pages(count: int, errors: int = 0, before: int = 0, **changes: Any) -> tuple[PageResult, ...]:
    """Pages of 100 characters; every second one has these errors."""
    made = []
    for index in range(count):
        some = index % 2 == 0
        page = built.page(f"{index}.png", "a" * 100, "b" * errors * some + "a" * (100 - errors * some), "a" * 100)
        made.append(page.model_copy(update={"baseline_errors": before * some, **changes}))
    return tuple(made)


def evaluated(read: tuple[PageResult, ...], **changes: Any) -> EvalResult:
    """An evaluation whose comparison is that of its pages."""
    less = [(page.errors or 0) - (page.baseline_errors or 0) for page in read]
    compared = Comparison(
        cer_difference=sum(less) / (100 * len(read)),
        cer_difference_interval=bootstrap_interval(less, [100] * len(read), seed=0, signed=True),
        identical_pages=sum(page.text == page.baseline_text for page in read),
        length_ratio=1.0,
        tokens=1000,
        agreement=0.99,
        agreement_interval=(0.985, 0.995),
        kl=0.01,
    )
    alike = {"loop_rate": 0.0, "cut_pages": 0}
    small, large = (
        built.score(0.0123, weight_bytes=660_000_000, **alike),
        built.score(0.0104, weight_bytes=2_240_000_000, **alike),
    )
    return built.evaluation(read, **{"model": small, "baseline": large, "comparison": compared, **changes})


def without_transcripts(result: EvalResult, **changes: Any) -> EvalResult:
    assert result.comparison is not None
    gone = {"cer_difference": None, "cer_difference_interval": None}
    read = tuple(page.model_copy(update={"reference": None, "errors": None}) for page in result.pages)
    compared = result.comparison.model_copy(update=gone | changes)
    return result.model_copy(update={"comparison": compared, "pages": read})


def test_a_loss_is_said_with_its_interval() -> None:
    verdict = conclude(evaluated(pages(40, errors=2)))
    assert verdict.outcome == "worse"
    assert verdict.text.startswith("3.4× smaller (2.24 GB to 660.0 MB), but it reads worse: CER 1.04 % became 1.23 %, ")
    assert "+1.00 points (95 %: +0." in verdict.text
    assert "cannot show" not in verdict.text


def test_a_gain_is_said_too() -> None:
    verdict = conclude(evaluated(pages(40, before=2)))
    assert verdict.outcome == "better"
    assert ", and it reads better: " in verdict.text


def test_what_the_pages_could_have_shown_is_half_of_the_interval() -> None:
    read = tuple(
        page.model_copy(update={"errors": index % 3, "baseline_errors": (index + 1) % 3})
        for index, page in enumerate(pages(60))
    )
    result = evaluated(read)
    verdict = conclude(result)
    assert verdict.outcome == "no measurable loss"
    assert result.comparison is not None
    assert result.comparison.cer_difference_interval is not None
    low, high = result.comparison.cer_difference_interval
    assert verdict.smallest_loss == pytest.approx((high - low) / 2)
    assert " with no measurable loss: " in verdict.text
    assert f"60 pages cannot show less than {50 * (high - low):.2g} points; about " in verdict.text
    # Four times the pages halve the interval.
    needed = 60 * ((high - low) / 2 / 0.001) ** 2
    assert f"about {float(f'{needed:.2g}'):,.0f} would show 0.1." in verdict.text


def test_pages_that_all_read_as_before_prove_little_when_they_are_few() -> None:
    verdict = conclude(evaluated(pages(8)))
    assert verdict.outcome == "no measurable loss"
    assert "all 8 pages read as before." in verdict.text
    assert "Up to 31.2 % of such pages may still be read otherwise (95 %); 300 pages would leave 1 %." in verdict.text
    assert "0.00 to" not in verdict.text
    many = conclude(evaluated(pages(400)))
    assert "Up to 0.7 % of such pages may still be read otherwise (95 %)." in many.text


def test_other_texts_with_as_many_errors_are_not_called_the_same() -> None:
    read = tuple(page.model_copy(update={"baseline_errors": page.errors}) for page in pages(8, errors=1))
    assert "all 8 pages have as many errors as before" in conclude(evaluated(read)).text


@pytest.mark.parametrize("count", [1, FEWEST - 1])
def test_a_few_pages_give_no_verdict(count: int) -> None:
    verdict = conclude(evaluated(pages(count, errors=5)))
    assert verdict.outcome == "unknown"
    assert verdict.smallest_loss is None
    assert "too few to say what was lost" in verdict.text


def test_errors_on_a_few_pages_are_no_loss_whatever_the_bootstrap_says() -> None:
    """Of four pages that differ all are worse once in eight times, and resampling hardly ever draws none of them."""
    for differing, outcome in ((4, "no measurable loss"), (6, "worse")):
        read = tuple(
            page.model_copy(update={"errors": 2 if index < differing else 0, "baseline_errors": 0})
            for index, page in enumerate(pages(200))
        )
        result = evaluated(read)
        assert result.comparison is not None
        assert result.comparison.cer_difference_interval is not None
        assert result.comparison.cer_difference_interval[0] > 0
        verdict = conclude(result)
        assert verdict.outcome == outcome
        assert (", on 4 pages alone." in verdict.text) == (differing == 4)


def test_only_pages_with_a_transcript_judge() -> None:
    read = pages(8, errors=1)
    half = tuple(
        page.model_copy(update={"reference": None, "errors": None, "baseline_errors": None}) for page in read[:3]
    )
    result = evaluated(read).model_copy(update={"pages": (*half, *read[3:])})
    assert " on 5 pages, too few to say what was lost." in conclude(result).text


def test_three_tokens_that_agree_are_no_certainty() -> None:
    result = without_transcripts(evaluated(pages(1)), tokens=3, agreement=1.0, agreement_interval=(0.05, 1.0))
    verdict = conclude(result)
    assert verdict.outcome == "unknown"
    assert "; all 3 next tokens agree (95 %: 5.00 to 100.00), 1 of 1 page read identically; " in verdict.text
    assert "without transcripts nobody knows which of the two is right." in verdict.text


def test_runtimes_that_only_return_text_are_compared_by_it() -> None:
    nothing = {"tokens": None, "agreement": None, "agreement_interval": None, "kl": None}
    verdict = conclude(without_transcripts(evaluated(pages(40, errors=1)), **nothing))
    assert "; 20 of 40 pages read identically; " in verdict.text


def test_without_a_baseline_nobody_knows_what_was_lost() -> None:
    verdict = conclude(evaluated(pages(40), baseline=None, comparison=None))
    assert verdict.text == "CER 1.23 % (95 %: 0.98 to 1.54) on 40 pages; only a baseline can tell what was lost."
    assert verdict.outcome == "unknown"


def test_sizes_within_a_percent_are_not_worth_a_word() -> None:
    alike = built.score(0.0123, weight_bytes=1_000_000), built.score(0.0104, weight_bytes=1_009_000)
    for model, baseline in (alike, alike[::-1]):
        assert conclude(evaluated(pages(8), model=model, baseline=baseline)).text.startswith("No measurable loss")
    larger = evaluated(
        pages(8), model=built.score(0.01, weight_bytes=2000), baseline=built.score(0.01, weight_bytes=1000)
    )
    assert conclude(larger).text.startswith("2× larger (1.0 kB to 2.0 kB) with no")


def test_more_loops_and_cut_answers_are_a_loss_of_their_own() -> None:
    model = built.score(0.0123, weight_bytes=None, loop_rate=0.075, cut_pages=2)
    text = conclude(evaluated(pages(40), model=model, baseline=built.score(0.01, loop_rate=0.0, cut_pages=0))).text
    assert ", but 3 more pages end in a repetition loop and 2 more pages end at the limit of tokens." in text
    model = built.score(0.0123, weight_bytes=None, loop_rate=0.025, cut_pages=0)
    text = conclude(evaluated(pages(40), model=model, baseline=built.score(0.01, loop_rate=0.0, cut_pages=0))).text
    assert ", but 1 more page ends in a repetition loop." in text


def test_nothing_is_concluded_from_a_baseline_that_says_nothing() -> None:
    verdict = conclude(evaluated(pages(40, baseline_text="")))
    assert verdict.outcome == "unknown"
    assert "most answers of the baseline say nothing, so nobody knows what was lost." in verdict.text


TEDS = MetricRecord(title="tables (TEDS)", unit="%", better="larger", distribution="hyocr-core", version="0.1.0")


@pytest.mark.parametrize(
    ("interval", "changed", "said"),
    [
        ((-0.08, -0.02), FEWEST, True),
        ((-0.08, 0.01), FEWEST, False),
        ((0.02, 0.08), FEWEST, False),
        ((-0.08, -0.02), FEWEST - 1, False),
    ],
)
def test_a_loss_by_part_is_named(interval: tuple[float, float], changed: int, said: bool) -> None:
    read = tuple(
        page.model_copy(update={"metrics": {"teds": 0.5}, "baseline_metrics": {"teds": 0.5 + (index < changed)}})
        for index, page in enumerate(pages(40))
    )
    result = evaluated(read, metrics={"teds": TEDS})
    assert result.comparison is not None
    found = {"teds": Measure(value=-0.05, interval=interval)}
    compared = result.comparison.model_copy(update={"metrics": found})
    verdict = conclude(result.model_copy(update={"comparison": compared}))
    assert verdict.outcome == "no measurable loss", "which is of the CER"
    assert ("; worse by part: tables (TEDS) −5.00 (−8.00 to −2.00)" in verdict.text) == said
