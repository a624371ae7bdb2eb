from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from hyocr_core.evaluation.scores.rates import bootstrap_interval
from hyocr_core.evaluation.scores.score import (
    Answer,
    Asked,
    Checkpoint,
    Gap,
    compare,
    measure,
    page_results,
    score,
)

REFERENCES = ["x" * size for size in range(30, 47)]
NAMES = [str(index) for index in range(17)]
ANSWERS = [Answer("x" * (30 + index) + "y" * index, 9, ended=index != 3) for index in range(17)]
LOOP = "no" * 2000
CHECKPOINT = Checkpoint("folder", None, "dequant", 1234, {"decoder": 1000, "rest": 200}, 5.0, 0.25)

UNKNOWN = Asked(NAMES, [None] * len(NAMES), 0, {})
"""Pages without transcripts."""


def asked(references: Sequence[str | None], seed: int = 0) -> Asked:
    return Asked([str(index) for index in range(len(references))], references, seed, {})


Distance = Callable[[str, str], int]


def seeded_texts(seed: int) -> tuple[list[str], list[str]]:
    """Pages in two scripts, one of them empty, and readings of them with errors of every kind."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    alphabet = "abcd  \n漢字。"
    references = [("漢" + "".join(rng.choices(alphabet, k=rng.randint(0, 25)))).strip() for _ in range(40)]
    references[7] = ""
    texts = []
    for reference in references:
        kept = [character for character in reference if rng.random() > 0.1]
        texts.append("".join(rng.choice(alphabet) if rng.random() < 0.05 else character for character in kept).strip())
    texts[7], texts[8], texts[9] = "abc", "", references[9]
    return references, texts


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_an_independent_computation(
    seed: int, slow_distance: Distance, slow_word_distance: Distance
) -> None:
    references, texts = seeded_texts(seed)
    pairs = list(zip(references, texts, strict=True))
    answers = [Answer(text, 1, ended=True) for text in texts]
    transcripts = asked(references, 4)
    result = score(CHECKPOINT, measure(answers, transcripts), transcripts)
    characters = [slow_distance(*pair) for pair in pairs]
    in_words = [slow_word_distance(*pair) for pair in pairs]
    word_counts = [slow_word_distance(reference, "") for reference in references]
    sizes = [len(reference) for reference in references]
    assert result.cer == pytest.approx(sum(characters) / sum(sizes))
    assert result.wer == pytest.approx(sum(in_words) / sum(word_counts))
    own = [error / size for error, size in zip(characters, sizes, strict=True) if size]
    own_words = [error / size for error, size in zip(in_words, word_counts, strict=True) if size]
    assert len(own) == 39, "the page of empty reference has no rate of its own"
    assert result.page_cer == pytest.approx(sum(own) / 39)
    assert result.page_wer == pytest.approx(sum(own_words) / 39)
    assert result.cer_interval == bootstrap_interval(characters, sizes, seed=4)
    assert result.wer_interval == bootstrap_interval(in_words, word_counts, seed=4)
    assert result.page_cer_interval == bootstrap_interval(own, [1] * 39, seed=4)
    assert result.page_wer_interval == bootstrap_interval(own_words, [1] * 39, seed=4)
    distances = [
        0 if reference == text else error / max(len(reference), len(text))
        for (reference, text), error in zip(pairs, characters, strict=True)
    ]
    assert result.edit_distance == pytest.approx(sum(distances) / 40)
    assert result.exact_match == sum(reference == text for reference, text in pairs) / 40
    assert result.length_ratio == pytest.approx(len("".join(texts)) / len("".join(references)))
    rows = page_results(transcripts, measure(answers, transcripts), None, ())
    assert [row.errors for row in rows] == characters
    assert (rows[7].errors, rows[7].cer, rows[7].wer) == (3, None, None)
    assert [row.cer for row in rows if row.cer is not None] == pytest.approx(own)
    assert [row.wer for row in rows if row.wer is not None] == pytest.approx(own_words)


def test_edit_distance_goes_from_none_to_all() -> None:
    transcripts = asked(["abc", "", "", "ab"])
    answers = [Answer(text, 1, ended=True) for text in ("xyz!", "", "a", "ab")]
    assert score(CHECKPOINT, measure(answers, transcripts), transcripts).edit_distance == (1 + 0 + 1 + 0) / 4


def test_intervals_follow_the_seed() -> None:
    sizes = [len(reference) for reference in REFERENCES]
    expected = [bootstrap_interval(range(17), sizes, seed=seed) for seed in range(8)]
    seeded = [asked(REFERENCES, seed) for seed in range(8)]
    scores = [score(CHECKPOINT, measure(ANSWERS, transcripts), transcripts) for transcripts in seeded]
    assert [each.cer_interval for each in scores] == expected
    assert len(set(expected)) > 1


def test_score_counts_characters_pages_tokens_and_time() -> None:
    transcripts = asked(REFERENCES)
    result = score(CHECKPOINT, measure(ANSWERS, transcripts), transcripts)
    assert result.cer == sum(range(17)) / sum(range(30, 47))
    assert result.exact_match == 1 / 17
    assert result.loop_rate == 0
    assert (result.tokens, result.cut_pages, result.seconds) == (17 * 9, 1, 5.0)
    assert (result.pages_per_second, result.tokens_per_second) == (17 / 5, 17 * 9 / 5)
    assert result.first_token_seconds == 0.25
    assert (result.runtime, result.weight_bytes) == ("dequant", 1234)
    assert result.part_bytes == {"decoder": 1000, "rest": 200}


def test_pages_without_a_transcript_count_for_nothing_that_needs_one() -> None:
    """Whatever is written on them: the scores are those of the others alone, and they stand in their own rows."""
    some = asked([reference if index % 3 else None for index, reference in enumerate(REFERENCES)])
    places = [index for index in range(17) if index % 3]
    alone = asked([REFERENCES[index] for index in places])
    whole = score(CHECKPOINT, measure(ANSWERS, some), some)
    known = score(CHECKPOINT, measure([ANSWERS[index] for index in places], alone), alone)
    for field in ("cer", "cer_interval", "page_cer", "wer", "page_wer_interval", "edit_distance", "length_ratio"):
        assert getattr(whole, field) == getattr(known, field)
    assert (whole.tokens, some.characters) == (17 * 9, alone.characters)
    rows = page_results(some, measure(ANSWERS, some), measure(ANSWERS, some), ())
    for index, row in enumerate(rows):
        assert row.reference == (REFERENCES[index] if index % 3 else None)
        assert row.errors == row.baseline_errors == (index if index % 3 else None)
        assert row.cer == (index / len(REFERENCES[index]) if index % 3 else None)


def test_without_transcripts_speed_loops_and_sizes_remain() -> None:
    result = score(CHECKPOINT, measure(ANSWERS, UNKNOWN), UNKNOWN)
    unknown = {name for name, value in result.model_dump().items() if value is None}
    rates = {"cer", "page_cer", "wer", "page_wer"}
    missing = {"edit_distance", "exact_match", "length_ratio", "revision", "subfolder", "forward"}
    assert unknown == rates | {f"{rate}_interval" for rate in rates} | missing


def test_comparison_is_paired_and_weighs_tokens() -> None:
    baseline = [Answer("x" * (30 + index), 9, ended=True) for index in range(17)]
    gaps = [Gap(9, 9, 0.0)] * 16 + [Gap(1, 0, 2.9)]
    transcripts = asked(REFERENCES, 2)
    result = compare(measure(ANSWERS, transcripts), measure(baseline, transcripts), gaps)
    assert result.cer_difference == sum(range(17)) / sum(range(30, 47))
    sizes = [len(reference) for reference in REFERENCES]
    assert result.cer_difference_interval == bootstrap_interval(range(17), sizes, seed=2)
    assert (result.identical_pages, result.tokens, result.agreement, result.kl) == (1, 145, 144 / 145, 2.9 / 145)
    assert result.length_ratio == (sum(range(30, 47)) + sum(range(17))) / sum(range(30, 47))


def test_a_baseline_that_wrote_nothing_gives_no_length_ratio() -> None:
    silent = [Answer("", 1, ended=True)] * 17
    result = compare(measure(ANSWERS, UNKNOWN), measure(silent, UNKNOWN), [Gap(1, 1, 0.0)] * 17)
    assert result.length_ratio is None
    assert result.cer_difference is None


def test_what_only_returns_text_is_compared_by_its_text() -> None:
    texts = [Answer("abc", 0, ended=True)] * 17
    result = compare(measure(texts, UNKNOWN), measure(texts, UNKNOWN), ())
    assert result.identical_pages == 17
    assert (result.tokens, result.agreement, result.kl) == (None, None, None)


def test_rows_hold_both_readings() -> None:
    baseline = [Answer(reference, 2, ended=True) for reference in REFERENCES]
    transcripts = asked(REFERENCES)
    mine, theirs = measure(ANSWERS, transcripts), measure(baseline, transcripts)
    row = page_results(transcripts, mine, theirs, [Gap(2, 1, 0.5)] * 17)[4]
    assert (row.name, row.reference, row.text, row.baseline_text) == ("4", "x" * 34, "x" * 34 + "yyyy", "x" * 34)
    assert (row.errors, row.cer, row.wer, row.loop) == (4, 4 / 34, 1.0, False)
    assert (row.baseline_errors, row.baseline_cer, row.baseline_wer, row.baseline_loop) == (0, 0.0, 0.0, False)
    assert (row.compared_tokens, row.agreeing_tokens, row.kl) == (2, 1, 0.25)


def test_a_loop_of_what_is_not_compared_counts() -> None:
    """White space at the end is forgiven when texts are compared, and is a loop all the same."""
    transcripts = asked(["ab", "ab", "ab", "ab"])
    answers = [Answer(text, 9, ended=False) for text in ("ab" + "\n" * 3000, LOOP, "ab", "ab\n")]
    reading = measure(answers, transcripts)
    assert score(CHECKPOINT, reading, transcripts).loop_rate == 0.5
    rows = page_results(transcripts, reading, reading, ())
    assert [(row.text == "ab", row.loop, row.baseline_loop) for row in rows] == [
        (True, True, True),
        (False, True, True),
        (True, False, False),
        (True, False, False),
    ]
