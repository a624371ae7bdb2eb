"""What an evaluation says. Rates are fractions, not percent; intervals are 95 % bootstrap intervals over pages."""

from __future__ import annotations

from pydantic import Field

from hyocr_core.config import FrozenModel

Interval = tuple[float, float]


class ModelScore(FrozenModel):
    """How one checkpoint read the pages. What needs transcripts is None when there are none."""

    model: str = Field(description="folder, or id on the hub")
    revision: str | None = Field(description="commit on the hub")
    weight_bytes: int = Field(description="size of the weight files on disk")
    cer: float | None = Field(description="sum of edit distances over sum of reference characters")
    cer_interval: Interval | None
    exact_match: float | None = Field(description="fraction of pages read without any error")
    tokens: int = Field(description="tokens written, end of sequence included")
    cut_pages: int = Field(description="pages that reached the limit of new tokens before they ended")
    seconds: float = Field(description="wall time of reading: vision tower, prompt and generation")


class Comparison(FrozenModel):
    """The model beside the baseline, both forced along the baseline's own greedy answers."""

    cer_difference: float | None = Field(description="the model's CER less the baseline's, on the same pages")
    cer_difference_interval: Interval | None = Field(description="paired bootstrap")
    identical_pages: int = Field(description="pages for which both wrote the same text")
    tokens: int = Field(description="answer tokens compared, end of sequence included")
    agreement: float = Field(description="fraction of these tokens for which both find the same token likeliest")
    kl: float = Field(description="KL(baseline || model), mean per token, nats, whole vocabulary")


class PageResult(FrozenModel):
    """One page; texts are as compared."""

    name: str
    reference: str | None = None
    text: str
    errors: int | None = Field(None, description="edit distance to the reference")
    baseline_text: str | None = None
    baseline_errors: int | None = None
    compared_tokens: int | None = None
    agreeing_tokens: int | None = None
    kl: float | None = Field(None, description="mean per token of this page")


class EvalResult(FrozenModel):
    """The whole evaluation. The same input and seed give the same values on one machine, apart from `seconds`."""

    schema_version: int = 1
    hyocr: str
    data: str = Field(description="the source as it was given")
    seed: int
    max_new_tokens: int
    reference_characters: int | None
    model: ModelScore
    baseline: ModelScore | None
    comparison: Comparison | None
    failures: dict[str, str] = Field(description="page -> why it could not be used")
    pages: tuple[PageResult, ...]
