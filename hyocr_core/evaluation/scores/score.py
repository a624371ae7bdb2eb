"""From what was read to the numbers: pure functions on texts and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hyocr_core.evaluation.scores.metrics import bootstrap_interval, edit_distances, micro_rate, word_errors, words
from hyocr_core.evaluation.scores.result import Comparison, ModelScore, PageResult, Runtime

Estimate: TypeAlias = tuple[float, tuple[float, float]]


@dataclass(frozen=True)
class Answer:
    """What a model wrote for a page. text: normalized; ended: not cut at the limit of tokens; loop: ends in one."""

    text: str
    tokens: int
    ended: bool
    loop: bool


@dataclass(frozen=True)
class Gap:
    """The model beside the baseline along one answer: tokens compared, how many agree, the sum of their KL."""

    tokens: int
    agreeing: int
    kl: float


@dataclass(frozen=True)
class Checkpoint:
    """What the scores say of a checkpoint beside its answers. first_token_seconds: mean over pages."""

    model: str
    revision: str | None
    runtime: Runtime
    weight_bytes: int | None
    part_bytes: Mapping[str, int]
    seconds: float
    first_token_seconds: float | None


@dataclass(frozen=True)
class Transcripts:
    """The normalized reference of every page, not all empty, and the seed of the bootstrap."""

    texts: Sequence[str]
    seed: int

    @property
    def characters(self) -> list[int]:
        """Characters of each reference."""
        return [len(text) for text in self.texts]

    @property
    def words(self) -> list[int]:
        """Words of each reference."""
        return [len(words(text)) for text in self.texts]

    def micro(self, errors: Sequence[int], sizes: Sequence[int]) -> Estimate:
        """Sum of errors over sum of sizes, and its interval."""
        return micro_rate(errors, sizes), bootstrap_interval(errors, sizes, seed=self.seed)

    def mean(self, rates: Sequence[float | None]) -> Estimate:
        """Mean of the pages that have a rate, and its interval."""
        known = [rate for rate in rates if rate is not None]
        ones = [1] * len(known)
        return micro_rate(known, ones), bootstrap_interval(known, ones, seed=self.seed)


@dataclass(frozen=True)
class Errors:
    """By page: edit distance in characters and in words, and each over the reference's size (None if that is 0)."""

    characters: Sequence[int]
    words: Sequence[int]
    cer: Sequence[float | None]
    wer: Sequence[float | None]


@dataclass(frozen=True)
class Reading:
    """All answers of one checkpoint, in the order of the pages, and their errors where there are transcripts."""

    answers: Sequence[Answer]
    errors: Errors | None


def measure(answers: Sequence[Answer], transcripts: Transcripts | None) -> Reading:
    """Compare every answer with its reference."""
    if transcripts is None:
        return Reading(answers, None)
    texts = [answer.text for answer in answers]
    characters, in_words = edit_distances(transcripts.texts, texts), word_errors(transcripts.texts, texts)
    cer, wer = _rates(characters, transcripts.characters), _rates(in_words, transcripts.words)
    return Reading(answers, Errors(characters, in_words, cer, wer))


def _rates(errors: Sequence[int], sizes: Sequence[int]) -> list[float | None]:
    return [error / size if size else None for error, size in zip(errors, sizes, strict=True)]


def score(checkpoint: Checkpoint, reading: Reading, transcripts: Transcripts | None) -> ModelScore:
    """The scores of one checkpoint."""
    answers = reading.answers
    tokens = sum(answer.tokens for answer in answers)
    values: dict[str, object] = dict.fromkeys(_NEED_TRANSCRIPTS)
    if transcripts is not None and reading.errors is not None:
        values = _accuracy(answers, reading.errors, transcripts)
    return ModelScore.model_validate(
        values
        | {
            "model": checkpoint.model,
            "revision": checkpoint.revision,
            "runtime": checkpoint.runtime,
            "weight_bytes": checkpoint.weight_bytes,
            "part_bytes": dict(checkpoint.part_bytes),
            "loop_rate": sum(answer.loop for answer in answers) / len(answers),
            "tokens": tokens,
            "cut_pages": sum(not answer.ended for answer in answers),
            "seconds": checkpoint.seconds,
            "pages_per_second": len(answers) / checkpoint.seconds,
            "tokens_per_second": tokens / checkpoint.seconds,
            "first_token_seconds": checkpoint.first_token_seconds,
        }
    )


_RATES = ("cer", "page_cer", "wer", "page_wer")
_NEED_TRANSCRIPTS = (
    *_RATES,
    *(f"{name}_interval" for name in _RATES),
    *("edit_distance", "exact_match", "length_ratio"),
)


def _accuracy(answers: Sequence[Answer], errors: Errors, transcripts: Transcripts) -> dict[str, object]:
    """The fields of a ModelScore that compare with transcripts."""
    estimates = (
        transcripts.micro(errors.characters, transcripts.characters),
        transcripts.mean(errors.cer),
        transcripts.micro(errors.words, transcripts.words),
        transcripts.mean(errors.wer),
    )
    values: dict[str, object] = {}
    for name, (value, interval) in zip(_RATES, estimates, strict=True):
        values |= {name: value, f"{name}_interval": interval}
    written = [len(answer.text) for answer in answers]
    longer = [max(pair) for pair in zip(written, transcripts.characters, strict=True)]
    distances = [error / size if size else 0.0 for error, size in zip(errors.characters, longer, strict=True)]
    return values | {
        "edit_distance": sum(distances) / len(distances),
        "exact_match": errors.characters.count(0) / len(answers),
        "length_ratio": sum(written) / sum(transcripts.characters),
    }


def compare(reading: Reading, baseline: Reading, gaps: Sequence[Gap], transcripts: Transcripts | None) -> Comparison:
    """The model beside the baseline, page by page. gaps: empty for what was not compared token by token."""
    difference = interval = None
    if transcripts is not None and reading.errors is not None and baseline.errors is not None:
        pairs = zip(reading.errors.characters, baseline.errors.characters, strict=True)
        difference, interval = transcripts.micro([mine - other for mine, other in pairs], transcripts.characters)
    texts = [(mine.text, other.text) for mine, other in zip(reading.answers, baseline.answers, strict=True)]
    written = sum(len(other) for _, other in texts)
    tokens = sum(gap.tokens for gap in gaps)
    return Comparison(
        cer_difference=difference,
        cer_difference_interval=interval,
        identical_pages=sum(mine == other for mine, other in texts),
        length_ratio=sum(len(mine) for mine, _ in texts) / written if written else None,
        tokens=tokens or None,
        agreement=sum(gap.agreeing for gap in gaps) / tokens if tokens else None,
        kl=sum(gap.kl for gap in gaps) / tokens if tokens else None,
    )


def page_results(
    names: Sequence[str],
    reading: Reading,
    baseline: Reading | None,
    gaps: Sequence[Gap],
    transcripts: Transcripts | None,
) -> tuple[PageResult, ...]:
    """One row per page, in the order of the pages."""
    columns = {"name": names} | _columns(reading)
    if transcripts is not None:
        columns["reference"] = transcripts.texts
    if baseline is not None:
        columns |= {f"baseline_{name}": values for name, values in _columns(baseline).items()}
    if gaps:
        columns["compared_tokens"] = [gap.tokens for gap in gaps]
        columns["agreeing_tokens"] = [gap.agreeing for gap in gaps]
        columns["kl"] = [gap.kl / gap.tokens for gap in gaps]
    rows = zip(*columns.values(), strict=True)
    return tuple(PageResult.model_validate(dict(zip(columns, row, strict=True))) for row in rows)


def _columns(reading: Reading) -> dict[str, Sequence[object]]:
    answers, errors = reading.answers, reading.errors
    columns: dict[str, Sequence[object]] = {
        "text": [answer.text for answer in answers],
        "loop": [answer.loop for answer in answers],
    }
    if errors is not None:
        columns |= {"errors": errors.characters, "cer": errors.cer, "wer": errors.wer}
    return columns
