"""What an evaluation says. Rates are fractions, not percent; intervals are 95 %, over pages: `bootstrap_interval`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from hyocr_core.checkpoint.quant_report import GateRecord, Measure, MetricRecord, System, Task, VerdictRecord
from hyocr_core.contract.backend import Forward
from hyocr_core.contract.config import FrozenModel
from hyocr_core.contract.decoding import Decoding

SCHEMA = 4
"""Number of the shape of an EvalResult; another one cannot be read."""

Interval = tuple[float, float]

Role = Literal["model", "baseline", "rounded"]
"""Who reads the pages: the field of an EvalResult with its scores."""

Runtime: TypeAlias = str
"""What gave the numbers, by the name of the backend. Of hyocr's own: `transformers`, Transformers' own model of a
checkpoint; `dequant`, the same model with the weights of a quantized one as hyocr unpacks them, and with its quantized
activations emulated; `vllm` in a process of its own; `endpoint`, a server that speaks the OpenAI protocol."""


class ModelScore(FrozenModel):
    """How one checkpoint read the pages. What needs transcripts is None when there are none."""

    model: str = Field(description="folder, or id on the hub")
    revision: str | None = Field(description="commit on the hub")
    subfolder: str | None = Field(None, description="folder in the hub's repository; None for its root")
    runtime: Runtime
    forward: Forward | None = Field(None, description="what the model computed; None where nobody knows")
    weight_bytes: int | None = Field(description="size of the weight files on disk; None behind an endpoint")
    part_bytes: dict[str, int] = Field(
        description="bytes of the tensors of decoder, vision, embeddings and rest; empty behind an endpoint"
    )
    cer: float | None = Field(description="sum of edit distances over sum of reference characters")
    cer_interval: Interval | None
    page_cer: float | None = Field(description="mean of the pages' own error rates; pages of empty reference left out")
    page_cer_interval: Interval | None
    wer: float | None = Field(description="as cer, in words; a Chinese or Japanese character is a word")
    wer_interval: Interval | None
    page_wer: float | None
    page_wer_interval: Interval | None
    edit_distance: float | None = Field(
        description="mean over pages of the edit distance over the longer of reference and text, 0 to 1"
    )
    exact_match: float | None = Field(description="fraction of pages read without any error")
    length_ratio: float | None = Field(description="characters written over reference characters")
    loop_rate: float = Field(description="fraction of pages that end in a repetition loop, as HunyuanOCR defines it")
    tokens: int = Field(description="tokens written, end of sequence included")
    cut_pages: int = Field(description="pages that reached the limit of new tokens before they ended")
    seconds: float = Field(description="wall time of reading: vision tower, prompt and generation")
    pages_per_second: float
    tokens_per_second: float = Field(description="tokens written over seconds")
    first_token_seconds: float | None = Field(
        description="mean over pages, from the start of the page's batch to its first token; None where the runtime "
        "does not say"
    )
    metrics: dict[str, Measure] = Field({}, description="of the metrics that were named, by name")


def values(score: ModelScore) -> dict[str, float]:
    """The numbers of the metrics that were named, without their intervals."""
    return {name: measure.value for name, measure in score.metrics.items()}


class Comparison(FrozenModel):
    """The model beside the baseline.

    Tokens, agreement and KL with both forced along the baseline's own greedy answers; None for runtimes that only
    return text.
    """

    cer_difference: float | None = Field(description="the model's CER less the baseline's, on the same pages")
    cer_difference_interval: Interval | None = Field(description="paired bootstrap")
    identical_pages: int = Field(description="pages for which both wrote the same text")
    length_ratio: float | None = Field(description="characters written over the baseline's; None if it wrote none")
    tokens: int | None = Field(description="answer tokens compared, end of sequence included")
    agreement: float | None = Field(description="fraction of these tokens for which both find the same token likeliest")
    agreement_interval: Interval | None = Field(None, description="over pages")
    kl: float | None = Field(description="KL(baseline || model), mean per token, nats, whole vocabulary")
    metrics: dict[str, Measure] = Field({}, description="the model's less the baseline's, paired")


class BlockError(FrozenModel):
    """One block beside the baseline's, on a few of the pages."""

    name: str = Field(description="on-disk module name, such as model.layers.0")
    error: float = Field(
        description="both blocks given the baseline's own input: norm of the outputs' difference over the norm of what "
        "the baseline's block adds to its input"
    )
    drift: float = Field(
        description="each model on its own: norm of the difference of the hidden states after this block over the norm "
        "of the baseline's"
    )


class LayerError(FrozenModel):
    """One quantized linear beside the baseline's, on a few of the pages."""

    name: str
    shape: tuple[int, int]
    bits: float = Field(description="stored bits per weight, scales and zero points included")
    weight_error: float = Field(description="norm of the weight's change over the weight's norm")
    output_error: float = Field(description="the same of the outputs on the baseline's own inputs")
    weight_max: float = Field(description="largest absolute weight of the baseline")
    input_max: float = Field(description="largest absolute input on the baseline's pages")


class Diagnosis(FrozenModel):
    """Where the model departs from the baseline."""

    blocks: tuple[BlockError, ...] = ()
    layers: tuple[LayerError, ...] = ()


class PageResult(FrozenModel):
    """One page; texts are as compared. A rate is None where the reference is empty."""

    name: str
    reference: str | None = None
    text: str
    errors: int | None = Field(None, description="edit distance to the reference")
    cer: float | None = None
    wer: float | None = None
    loop: bool = Field(description="ends in a repetition loop")
    cut: bool = Field(False, description="reached the limit of new tokens")
    baseline_text: str | None = None
    baseline_errors: int | None = None
    baseline_cer: float | None = None
    baseline_wer: float | None = None
    baseline_loop: bool | None = None
    baseline_cut: bool | None = None
    compared_tokens: int | None = None
    agreeing_tokens: int | None = None
    kl: float | None = Field(None, description="mean per token of this page")
    metrics: dict[str, float] = Field({}, description="the page's numbers by the metrics that were named")
    baseline_metrics: dict[str, float] = Field({}, description="the same of what the baseline wrote")
    notes: dict[str, str] = Field({}, description="what is broken in the text, by the metric that noted it")
    baseline_notes: dict[str, str] = Field({}, description="the same of what the baseline wrote")


class EvalResult(FrozenModel):
    """The whole evaluation.

    The same input and seed give the same values on one machine, interrupted or not, apart from times, speeds and
    peak memory.
    """

    schema_version: int = SCHEMA
    hyocr: str
    data: str = Field(description="the source as it was given")
    seed: int
    decoding: Decoding
    max_pixels: int | None = Field(None, description="most pixels of a page, if fewer than the processor allows")
    task: Task = None
    system: System = None
    transcribed: int | None = Field(
        None, description="pages with a transcript, which is what error rates are of; None where nobody noted it"
    )
    reference_characters: int | None
    reference_words: int | None
    model: ModelScore
    baseline: ModelScore | None
    comparison: Comparison | None
    rounded: ModelScore | None = Field(
        None, description="the baseline with every quantized linear rounded to nearest in the model's own format"
    )
    rounded_comparison: Comparison | None = None
    blocks: tuple[BlockError, ...] = Field((), description="in model order; empty without a baseline")
    layers: tuple[LayerError, ...] = ()
    peak_rss_bytes: int = Field(description="most memory this process ever held, of all checkpoints together")
    environment: dict[str, str] = Field(description="device, and versions of what the numbers depend on")
    failures: dict[str, str] = Field(description="page -> why it could not be used")
    left_out: dict[str, str] = Field({}, description="page or file of the source -> why it was not drawn")
    unread: dict[str, str] = Field({}, description="page -> why a runtime gave no answer; it counts nowhere")
    metrics: dict[str, MetricRecord] = Field(
        {}, description="the metrics that were named, or follow from the task, by name"
    )
    verdict: VerdictRecord | None = Field(None, description="what it comes to, in words")
    gate: GateRecord | None = Field(None, description="whether bounds hold, if there are any and every page was read")
    pages: tuple[PageResult, ...]
