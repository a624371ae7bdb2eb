"""The evaluation as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rich.table import Table

from hyocr_core.contract.config import show as quoted
from hyocr_core.contract.decoding import Decoding
from hyocr_core.evaluation.scores.numbers import (
    NONE,
    RTN,
    measured,
    measured_difference,
    measured_signed_span,
    measured_span,
    number,
    percent,
    points,
    seconds,
    signed_span,
    size,
    span,
)
from hyocr_core.evaluation.scores.result import EvalResult, ModelScore
from hyocr_core.report.text import checkpoint_name

_NAME = 15
"""Letters of a checkpoint's name that are shown, so that everything fits into 80 columns."""


def eval_table(result: EvalResult) -> Table:
    """One row per measure, what decides first; with a baseline its column and the difference beside the model's."""
    scores = {"model": result.model, "baseline": result.baseline, RTN: result.rounded}
    known = {title: score for title, score in scores.items() if score is not None}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{len(result.pages)} pages", no_wrap=True)
    for title in (*known, *(["difference"] if result.comparison else [])):
        table.add_column(title, justify="right")
    for row in _rows(result, known):
        table.add_row(*row)
    return table


def _rows(result: EvalResult, known: Mapping[str, ModelScore]) -> Iterator[tuple[str, ...]]:
    """What was read, and how close to the baseline; sizes and speed; then further rates, and how it was read."""
    differences = dict(_differences(result))

    def measured_rows(rows: _Rows) -> Iterator[tuple[str, ...]]:
        for field, label, show in rows:
            yield label, *(_shown(score, field, show) for score in known.values()), differences.get(field, "")

    yield from measured_rows(_DECISIVE)
    yield from _named(result, tuple(known.values()))
    compared = {"model": result.comparison, "baseline": None, RTN: result.rounded_comparison}
    for field, label, show in _CLOSENESS if result.comparison else ():
        yield label, *(_shown(compared[title], field, show) for title in known)
    yield from measured_rows(_COST)
    for part in result.model.part_bytes:
        sizes = (_shown(score.part_bytes, part, size) for score in known.values())
        yield f"  {part}", *sizes, differences.get(part, "")
    yield from measured_rows(_FURTHER)
    if result.transcribed and result.transcribed < len(result.pages):
        yield "with a transcript", f"{result.transcribed} pages"
    if result.blocks:
        worst = max(result.blocks, key=lambda block: block.error)
        yield "most changed block", f"{worst.name} {worst.error:.3f}"
    yield "peak memory", size(result.peak_rss_bytes)
    yield "checkpoint", *(_short_name(score) for title, score in known.items() if title != RTN)
    yield from measured_rows(_HOW)
    yield from _decoding(result.decoding)
    yield from _asked(result)


def _short_name(score: ModelScore) -> str:
    name = checkpoint_name(score).rpartition("/")[2]
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _asked(result: EvalResult) -> Iterator[tuple[str, str]]:
    if result.task is not None:
        yield "task", result.task
    if result.system is not None:
        yield "system message", quoted(result.system)


def _decoding(decoding: Decoding) -> Iterator[tuple[str, str]]:
    penalty = decoding.repetition_penalty
    yield "repetition penalty", "its own" if penalty is None else f"{penalty:g}"
    yield "token limit", str(decoding.max_new_tokens)
    yield "stopped in loops", "yes" if decoding.stop_loops else "no"


def _named(result: EvalResult, scores: Sequence[ModelScore]) -> Iterator[tuple[str, ...]]:
    """Two rows for each metric that was named: its number and its interval."""
    for name, metric in result.metrics.items():
        found = [score.metrics.get(name) for score in scores]
        compared = result.comparison.metrics.get(name) if result.comparison else None
        numbers = (NONE if each is None else measured(each.value, metric.unit) for each in found)
        spans = (NONE if each is None else measured_span(each.interval, metric.unit) for each in found)
        difference = [] if compared is None else [measured_difference(compared.value, metric.unit)]
        apart = [] if compared is None else [measured_signed_span(compared.interval, metric.unit)]
        yield (metric.title, *numbers, *difference)
        yield ("  95 % interval", *spans, *apart)


def _shown(values: object, field: str, show: Callable[[Any], str]) -> str:
    """What a score, or the sizes of parts, say of a field."""
    if values is None:
        return ""
    value = values.get(field) if isinstance(values, dict) else getattr(values, field)
    return NONE if value is None else show(value)


def _ratio(ratio: float) -> str:
    return f"{ratio:.3f}"


_Rows = tuple[tuple[str, str, Callable[[Any], str]], ...]
"""Field of a ModelScore, label, and how its value is shown."""

_DECISIVE: _Rows = (
    ("cer", "CER", percent),
    ("cer_interval", "  95 % interval", span),
    ("loop_rate", "repetition loops", percent),
    ("cut_pages", "cut at token limit", str),
)
_COST: _Rows = (
    ("pages_per_second", "pages per second", number),
    ("tokens_per_second", "tokens per second", number),
    ("first_token_seconds", "first token after", seconds),
    ("seconds", "read in", seconds),
    ("weight_bytes", "weights", size),
)
_FURTHER: _Rows = (
    ("page_cer", "CER, mean of pages", percent),
    ("page_cer_interval", "  95 % interval", span),
    ("wer", "WER", percent),
    ("wer_interval", "  95 % interval", span),
    ("page_wer", "WER, mean of pages", percent),
    ("page_wer_interval", "  95 % interval", span),
    ("edit_distance", "norm. edit distance", number),
    ("exact_match", "exact match", percent),
    ("length_ratio", "length / reference", _ratio),
)
_HOW: _Rows = (("runtime", "runtime", str), ("forward", "forward", str))

_CLOSENESS: _Rows = (
    ("agreement", "next-token agreement", percent),
    ("agreement_interval", "  95 % interval", span),
    ("kl", "KL, nats per token", partial(number, digits=2)),
    ("tokens", "tokens compared", str),
    ("identical_pages", "identical pages", str),
    ("length_ratio", "length / baseline", _ratio),
)
"""The same of a Comparison."""


def _differences(result: EvalResult) -> Iterator[tuple[str, str]]:
    """Field, or part of the weights -> model less baseline."""
    model, baseline, compared = result.model, result.baseline, result.comparison
    if baseline is None or compared is None:
        return
    if compared.cer_difference is not None and compared.cer_difference_interval is not None:
        yield "cer", f"{points(compared.cer_difference)} points"
        yield "cer_interval", signed_span(compared.cer_difference_interval)
    sizes = {"weight_bytes": (model.weight_bytes, baseline.weight_bytes)}
    sizes |= {part: (after, baseline.part_bytes.get(part)) for part, after in model.part_bytes.items()}
    for name, (after, before) in sizes.items():
        if after is not None and before:
            yield name, f"{after / before - 1:+.0%}"
