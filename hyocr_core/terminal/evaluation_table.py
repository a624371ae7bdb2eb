"""The evaluation as a table for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from hyocr_core.evaluation.scores.result import EvalResult, Interval

_NONE = "-"


def eval_table(result: EvalResult) -> Table:
    """One row per measure; with a baseline its column and the difference beside the model's. Fits 80 columns."""
    scores = {"model": result.model, "baseline": result.baseline, "rounded": result.rounded}
    known = {title: score for title, score in scores.items() if score is not None}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{len(result.pages)} pages", no_wrap=True)
    for title in (*known, *(["difference"] if result.comparison else [])):
        table.add_column(title, justify="right", overflow="fold")
    differences = dict(_differences(result))
    for field, label, show in _ROWS:
        table.add_row(label, *(_shown(score, field, show) for score in known.values()), differences.get(field, ""))
    for part in result.model.part_bytes:
        sizes = (_shown(score.part_bytes, part, _size) for score in known.values())
        table.add_row(f"  {part}", *sizes, differences.get(part, ""))
    table.add_row("peak memory", _size(result.peak_rss_bytes))
    compared = {"model": result.comparison, "baseline": None, "rounded": result.rounded_comparison}
    for field, label, show in _CLOSENESS if result.comparison else ():
        table.add_row(label, *(_shown(compared[title], field, show) for title in known))
    if result.blocks:
        worst = max(result.blocks, key=lambda block: block.error)
        table.add_row("most changed block", f"{escape(worst.name)} {worst.error:.3f}")
    return table


def _shown(values: object, field: str, show: Callable[[Any], str]) -> str:
    """What a score, or the sizes of parts, say of a field."""
    if values is None:
        return ""
    value = values.get(field) if isinstance(values, dict) else getattr(values, field)
    return _NONE if value is None else escape(show(value))


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def _interval(interval: Interval) -> str:
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.3f}"


def _fraction(value: float) -> str:
    return f"{value:.4f}"


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

_CLOSENESS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("length_ratio", "length / baseline", _ratio),
    ("identical_pages", "identical pages", str),
    ("tokens", "tokens compared", str),
    ("agreement", "next-token agreement", _percent),
    ("kl", "KL, nats per token", "{:.2g}".format),
)
"""The same of a Comparison."""


def _differences(result: EvalResult) -> Iterator[tuple[str, str]]:
    """Field, or part of the weights -> model less baseline."""
    model, baseline, compared = result.model, result.baseline, result.comparison
    if baseline is None or compared is None:
        return
    if compared.cer_difference is not None and compared.cer_difference_interval is not None:
        yield "cer", f"{100 * compared.cer_difference:+.2f} points"
        yield "cer_interval", _interval(compared.cer_difference_interval)
    sizes = {"weight_bytes": (model.weight_bytes, baseline.weight_bytes)}
    sizes |= {part: (size, baseline.part_bytes.get(part)) for part, size in model.part_bytes.items()}
    for name, (size, before) in sizes.items():
        if size is not None and before:
            yield name, f"{size / before - 1:+.0%}"
