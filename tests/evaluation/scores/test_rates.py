from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyocr_core.evaluation.scores.rates import (
    bootstrap_interval,
    edit_distances,
    erring_rate,
    micro_rate,
    normalize,
    unseen_share,
    word_errors,
    words,
)

TEXTS = st.text(alphabet="abé\u0301e \n漢", max_size=9)


@given(TEXTS, TEXTS)
def test_edit_distance_is_levenshteins(slow_distance: Callable[[str, str], int], reference: str, text: str) -> None:
    assert edit_distances([reference], [text]) == [slow_distance(reference, text)]


@pytest.mark.parametrize(
    ("reference", "text", "errors"),
    [
        ("caf\u00e9", "cafe\u0301", 0),  # the same letter, composed and decomposed
        ("line", "line \n\t", 0),
        ("line", " line", 1),  # leading whitespace counts
        ("a b", "a  b", 1),  # and so does whitespace inside
        ("Line", "line", 1),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
    ],
)
def test_what_is_forgiven_and_what_is_not(reference: str, text: str, errors: int) -> None:
    assert edit_distances([reference], [text]) == [errors]


@given(TEXTS)
def test_normalize_is_idempotent(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


def test_distances_need_as_many_texts_as_references() -> None:
    with pytest.raises(ValueError, match="argument"):
        edit_distances(["a", "b"], ["a"])


@given(*[st.text(alphabet="ab. \n\u3000漢字かナ。「é", max_size=12)] * 2)
def test_word_errors_are_levenshteins(slow_word_distance: Callable[[str, str], int], reference: str, text: str) -> None:
    assert word_errors([reference], [text]) == [slow_word_distance(reference, text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Total:  12.50\n€ -- ok", ["Total:", "12.50", "€", "--", "ok"]),
        ("第3页 of 10", ["第", "3", "页", "of", "10"]),
        ("你好，World！", ["你", "好", "，", "World", "！"]),
        ("カレー を", ["カ", "レ", "ー", "を"]),
        ("𠮷野家", ["𠮷", "野", "家"]),  # the first lies outside the 16-bit plane
        ("한국어 문장", ["한국어", "문장"]),
        ("สวัสดีครับ", ["สวัสดีครับ"]),
        (" \u3000\u00a0\t", []),
    ],
)
def test_words_are_what_stands_between_spaces_or_a_character_where_there_are_none(
    text: str, expected: list[str]
) -> None:
    assert words(text) == expected


def test_micro_rate_weighs_characters_not_pages() -> None:
    assert micro_rate([1, 0], [1, 99]) == 0.01
    with pytest.raises(ValueError, match="above 0"):
        micro_rate([3], [0])


def test_bootstrap_interval_matches_a_plain_loop() -> None:
    errors, sizes = [3, 0, 1, 7, 0, 2], [10, 12, 3, 40, 25, 18]
    rng = np.random.default_rng(5)
    rates = []
    for _ in range(20_000):
        drawn = [int(rng.random() * 6) for _ in range(6)]
        rates.append(sum(errors[i] for i in drawn) / sum(sizes[i] for i in drawn))
    expected = np.percentile(rates, [2.5, 97.5])
    assert bootstrap_interval(errors, sizes, seed=1, resamples=20_000) == pytest.approx(expected, abs=4e-3)


def test_bootstrap_interval_covers_the_true_rate() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        sizes = rng.integers(5, 30, size=80)
        hard = rng.random(80) < 0.2  # errors cluster on hard pages, as they do
        errors = rng.binomial(sizes, np.where(hard, 0.3, 0.01))
        low, high = bootstrap_interval(errors, sizes, seed=trial, resamples=1000)
        covered += low <= 0.2 * 0.3 + 0.8 * 0.01 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_bootstrap_interval_of_the_mean_of_pages_covers_its_truth() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        rates = np.where(rng.random(80) < 0.2, rng.uniform(0.1, 0.5, size=80), rng.uniform(0, 0.02, size=80))
        low, high = bootstrap_interval(rates, np.ones(80), seed=trial, resamples=1000)
        covered += low <= 0.2 * 0.3 + 0.8 * 0.01 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_bootstrap_interval_of_a_paired_difference_covers_its_truth() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(300):
        sizes = rng.integers(5, 30, size=80)
        hard = np.where(rng.random(80) < 0.2, 0.3, 0.01)
        worse = rng.binomial(sizes, hard + 0.02) - rng.binomial(sizes, hard)
        low, high = bootstrap_interval(worse, sizes, seed=trial, resamples=1000)
        covered += low <= 0.02 <= high
    assert 0.90 <= covered / 300 <= 0.98


def test_bootstrap_interval_of_paired_differences_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(0)
    sizes = np.full(200, 20)
    baseline = rng.binomial(20, 0.2 * rng.random(200))
    model = baseline + (rng.random(200) < 0.1)
    low, high = bootstrap_interval(model - baseline, sizes, seed=0)
    assert 0 < low < (model - baseline).sum() / sizes.sum() < high
    single_low, single_high = bootstrap_interval(model, sizes, seed=0)
    assert high - low < (single_high - single_low) / 2


def test_bootstrap_interval_is_seeded_and_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, sizes = list(range(17)), list(range(30, 47))
    whole = bootstrap_interval(errors, sizes, seed=3)
    assert whole == bootstrap_interval(errors, sizes, seed=3)
    assert whole != bootstrap_interval(errors, sizes, seed=4)
    monkeypatch.setattr("hyocr_core.evaluation.scores.rates._CHUNK", 64)
    assert whole == bootstrap_interval(errors, sizes, seed=3)


def test_bootstrap_interval_leaves_out_resamples_of_empty_references_only() -> None:
    low, high = bootstrap_interval([0, 1, 3], [0, 4, 4], seed=0)
    assert (low, high) == (0.25, 0.75)


@given(st.integers(1, 400), st.sampled_from([0, 1, 7]), st.booleans())
def test_an_interval_is_never_certain_of_what_no_page_shows(pages: int, errors: int, signed: bool) -> None:
    low, high = bootstrap_interval([errors] * pages, [10] * pages, seed=0, resamples=50, signed=signed)
    unseen = unseen_share(pages)
    # So many of a thousand pages otherwise, and a sample as large would miss them once in twenty times.
    assert (1 - unseen) ** pages == pytest.approx(0.05)
    assert (low, high) == pytest.approx((max(errors / 10 - unseen, -1 if signed else 0), min(errors / 10 + unseen, 1)))


@pytest.mark.parametrize(("pages", "share"), [(1, 0.95), (3, 0.6316), (64, 0.0457), (300, 0.0099)])
def test_what_none_of_so_many_pages_shows_is_the_rule_of_three(pages: int, share: float) -> None:
    assert unseen_share(pages) == pytest.approx(share, abs=1e-4)


def test_what_would_differ_is_as_wrong_as_what_errs() -> None:
    assert erring_rate([0, 2, 4, 300], [10, 10, 10, 100]) == pytest.approx((0.2 + 0.4 + 1) / 3)
    assert erring_rate([0, 0, 5], [10, 10, 0]) == 1
    low, high = bootstrap_interval([0] * 64, [100] * 64, seed=0, signed=True, otherwise=0.1)
    assert (low, high) == pytest.approx((-0.00457, 0.00457), abs=1e-5)


def test_one_page_says_nothing_of_others() -> None:
    assert bootstrap_interval([0], [100], seed=0) == pytest.approx((0, 0.95))
    assert bootstrap_interval([30], [100], seed=0) == pytest.approx((0, 1))
    assert bootstrap_interval([300], [100], seed=0) == pytest.approx((2.05, 3))


@pytest.mark.parametrize(("errors", "sizes"), [([], []), ([1], [0]), ([1, 2], [3])])
def test_bootstrap_interval_refuses_what_has_no_rate(errors: list[int], sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="bootstrap needs"):
        bootstrap_interval(errors, sizes, seed=0)
