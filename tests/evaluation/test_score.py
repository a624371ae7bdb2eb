from __future__ import annotations

from hyocr_core.evaluation.metrics import bootstrap_interval
from hyocr_core.evaluation.score import Answer, Checkpoint, Gap, Transcripts, compare, score

REFERENCES = ["x" * size for size in range(30, 47)]
ANSWERS = [Answer("x" * (30 + index) + "y" * index, 9, ended=index != 3) for index in range(17)]
CHECKPOINT = Checkpoint("folder", None, 1234, 5.0)


def test_intervals_follow_the_seed() -> None:
    sizes = [len(reference) for reference in REFERENCES]
    expected = [bootstrap_interval(range(17), sizes, seed=seed) for seed in range(8)]
    scores = [score(CHECKPOINT, ANSWERS, Transcripts(REFERENCES, seed)) for seed in range(8)]
    assert [each.cer_interval for each in scores] == expected
    assert len(set(expected)) > 1


def test_score_counts_characters_pages_and_tokens() -> None:
    result = score(CHECKPOINT, ANSWERS, Transcripts(REFERENCES, 0))
    assert result.cer == sum(range(17)) / sum(range(30, 47))
    assert result.exact_match == 1 / 17
    assert (result.tokens, result.cut_pages, result.weight_bytes, result.seconds) == (17 * 9, 1, 1234, 5.0)


def test_comparison_is_paired_and_weighs_tokens() -> None:
    baseline = [Answer("x" * (30 + index), 9, ended=True) for index in range(17)]
    gaps = [Gap(9, 9, 0.0)] * 16 + [Gap(1, 0, 2.9)]
    result = compare(ANSWERS, baseline, gaps, Transcripts(REFERENCES, 2))
    assert result.cer_difference == sum(range(17)) / sum(range(30, 47))
    sizes = [len(reference) for reference in REFERENCES]
    assert result.cer_difference_interval == bootstrap_interval(range(17), sizes, seed=2)
    assert (result.identical_pages, result.tokens, result.agreement, result.kl) == (1, 145, 144 / 145, 2.9 / 145)
