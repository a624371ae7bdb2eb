"""From what was read to the numbers: pure functions on texts and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hyocr_core.evaluation.metrics import bootstrap_interval, edit_distances, micro_rate
from hyocr_core.evaluation.result import Comparison, ModelScore, PageResult


@dataclass(frozen=True)
class Answer:
    """What a model wrote for a page. text: normalized; ended: not cut at the limit of tokens."""

    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Gap:
    """The model beside the baseline along one answer: tokens compared, how many agree, the sum of their KL."""

    tokens: int
    agreeing: int
    kl: float


@dataclass(frozen=True)
class Checkpoint:
    """What the scores say of a checkpoint beside its answers."""

    model: str
    revision: str | None
    weight_bytes: int
    seconds: float


@dataclass(frozen=True)
class Transcripts:
    """The normalized reference of every page, and how each result is measured against them."""

    texts: Sequence[str]
    seed: int

    @property
    def sizes(self) -> list[int]:
        """Characters of each reference."""
        return [len(text) for text in self.texts]

    def errors(self, answers: Sequence[Answer]) -> list[int]:
        """Edit distance of each answer to its reference."""
        return edit_distances(self.texts, [answer.text for answer in answers])

    def rate(self, errors: Sequence[int]) -> tuple[float, tuple[float, float]]:
        """Errors per reference character, and the bootstrap interval."""
        return micro_rate(errors, self.sizes), bootstrap_interval(errors, self.sizes, seed=self.seed)


def score(checkpoint: Checkpoint, answers: Sequence[Answer], transcripts: Transcripts | None) -> ModelScore:
    """The scores of one checkpoint."""
    cer = cer_interval = exact_match = None
    if transcripts is not None:
        errors = transcripts.errors(answers)
        cer, cer_interval = transcripts.rate(errors)
        exact_match = errors.count(0) / len(errors)
    return ModelScore(
        model=checkpoint.model,
        revision=checkpoint.revision,
        weight_bytes=checkpoint.weight_bytes,
        cer=cer,
        cer_interval=cer_interval,
        exact_match=exact_match,
        tokens=sum(answer.tokens for answer in answers),
        cut_pages=sum(not answer.ended for answer in answers),
        seconds=checkpoint.seconds,
    )


def compare(
    answers: Sequence[Answer], baseline: Sequence[Answer], gaps: Sequence[Gap], transcripts: Transcripts | None
) -> Comparison:
    """The model beside the baseline, page by page."""
    difference = interval = None
    if transcripts is not None:
        pairs = zip(transcripts.errors(answers), transcripts.errors(baseline), strict=True)
        difference, interval = transcripts.rate([mine - other for mine, other in pairs])
    tokens = sum(gap.tokens for gap in gaps)
    return Comparison(
        cer_difference=difference,
        cer_difference_interval=interval,
        identical_pages=sum(mine.text == other.text for mine, other in zip(answers, baseline, strict=True)),
        tokens=tokens,
        agreement=sum(gap.agreeing for gap in gaps) / tokens,
        kl=sum(gap.kl for gap in gaps) / tokens,
    )


def page_results(
    names: Sequence[str],
    answers: Sequence[Answer],
    baseline: Sequence[Answer] | None,
    gaps: Sequence[Gap],
    transcripts: Transcripts | None,
) -> tuple[PageResult, ...]:
    """One row per page, in the order of the pages."""
    columns: dict[str, Sequence[object]] = {"name": names, "text": [answer.text for answer in answers]}
    if transcripts is not None:
        columns |= {"reference": transcripts.texts, "errors": transcripts.errors(answers)}
    if baseline is not None:
        columns["baseline_text"] = [answer.text for answer in baseline]
    if baseline is not None and transcripts is not None:
        columns["baseline_errors"] = transcripts.errors(baseline)
    if gaps:
        columns["compared_tokens"] = [gap.tokens for gap in gaps]
        columns["agreeing_tokens"] = [gap.agreeing for gap in gaps]
        columns["kl"] = [gap.kl / gap.tokens for gap in gaps]
    rows = zip(*columns.values(), strict=True)
    return tuple(PageResult.model_validate(dict(zip(columns, row, strict=True))) for row in rows)
