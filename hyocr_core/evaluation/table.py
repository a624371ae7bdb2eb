"""The evaluation as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from hyocr_core.evaluation.result import EvalResult, Interval

_NONE = "-"


def eval_table(result: EvalResult) -> Table:
    """One row per measure; with a baseline its column and the difference beside the model's. Fits 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{len(result.pages)} pages", no_wrap=True)
    scores = [result.model] if result.baseline is None else [result.model, result.baseline]
    for title in ("model", "baseline", "difference")[: 1 if result.comparison is None else 3]:
        table.add_column(title, justify="right", overflow="fold")
    differences = dict(_differences(result))
    for field, label, show in _ROWS:
        table.add_row(label, *(escape(show(getattr(score, field))) for score in scores), differences.get(field, ""))
    for part in result.model.part_bytes:
        table.add_row(f"  {part}", *(_size(score.part_bytes[part]) for score in scores), differences[part])
    table.add_row("peak memory", _size(result.peak_rss_bytes))
    for label, text in _closeness(result):
        table.add_row(label, "", "", text)
    return table


def _percent(rate: float | None) -> str:
    return _NONE if rate is None else f"{100 * rate:.2f} %"


def _interval(interval: Interval | None) -> str:
    return _NONE if interval is None else f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def _ratio(ratio: float | None) -> str:
    return _NONE if ratio is None else f"{ratio:.3f}"


def _fraction(value: float | None) -> str:
    return _NONE if value is None else f"{value:.4f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _rate(count: float) -> str:
    return f"{count:.2f}" if count < 10 else f"{count:.0f}"


_ROWS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("model", "checkpoint", str),
    ("runtime", "runtime", str),
    ("cer", "CER", _percent),
    ("cer_interval", "  95 % interval", _interval),
    ("page_cer", "CER, mean of pages", _percent),
    ("page_cer_interval", "  95 % interval", _interval),
    ("wer", "WER", _percent),
    ("wer_interval", "  95 % interval", _interval),
    ("page_wer", "WER, mean of pages", _percent),
    ("page_wer_interval", "  95 % interval", _interval),
    ("edit_distance", "norm. edit distance", _fraction),
    ("exact_match", "exact match", _percent),
    ("length_ratio", "length / reference", _ratio),
    ("loop_rate", "repetition loops", _percent),
    ("cut_pages", "cut at token limit", str),
    ("pages_per_second", "pages per second", _rate),
    ("tokens_per_second", "tokens per second", _rate),
    ("first_token_seconds", "first token after", _seconds),
    ("seconds", "read in", _seconds),
    ("weight_bytes", "weights", _size),
)
"""Field of a ModelScore, label, and how its value is shown."""


def _differences(result: EvalResult) -> Iterator[tuple[str, str]]:
    """Field, or part of the weights -> model less baseline."""
    model, baseline, compared = result.model, result.baseline, result.comparison
    if baseline is None or compared is None:
        yield from dict.fromkeys(model.part_bytes, "").items()
        return
    if compared.cer_difference is not None and compared.cer_difference_interval is not None:
        low, high = (f"{100 * bound:+.2f}" for bound in compared.cer_difference_interval)
        yield "cer", f"{100 * compared.cer_difference:+.2f} points"
        yield "cer_interval", f"{low} to {high}"
    yield "weight_bytes", _saved(model.weight_bytes, baseline.weight_bytes)
    for part, size in model.part_bytes.items():
        yield part, _saved(size, baseline.part_bytes[part])


def _saved(size: int, baseline: int) -> str:
    return f"{size / baseline - 1:+.0%}" if baseline else ""


def _closeness(result: EvalResult) -> Iterator[tuple[str, str]]:
    compared = result.comparison
    if compared is None:
        return
    yield "length / baseline", _ratio(compared.length_ratio)
    yield "identical pages", f"{compared.identical_pages} of {len(result.pages)}"
    yield "next-token agreement", f"{compared.agreement:.2%} of {compared.tokens}"
    yield "KL(baseline || model)", f"{compared.kl:.2g} nats/token"
