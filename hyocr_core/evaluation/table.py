"""The evaluation as a table for people."""

from __future__ import annotations

from rich.table import Table

from hyocr_core.evaluation.result import EvalResult, Interval, ModelScore

_NONE = "-"


def eval_table(result: EvalResult) -> Table:
    """One row per measure; with a baseline its column and the difference beside the model's."""
    read = len(result.pages)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{read} pages")
    table.add_column("model", justify="right")
    if result.baseline is None:
        for label, *values in _score_rows(result.model, None, read):
            table.add_row(label, values[0])
        return table
    table.add_column("baseline", justify="right")
    table.add_column("difference", justify="right")
    for row in [*_score_rows(result.model, result.baseline, read), *_comparison_rows(result, read)]:
        table.add_row(*row)
    return table


def _score_rows(model: ModelScore, baseline: ModelScore | None, read: int) -> list[tuple[str, ...]]:
    scores = [model] if baseline is None else [model, baseline]
    return [
        ("checkpoint", *(score.model for score in scores)),
        ("CER", *(_percent(score.cer) for score in scores)),
        ("  95 % interval", *(_interval(score.cer_interval) for score in scores)),
        ("exact match", *(_percent(score.exact_match) for score in scores)),
        ("cut at the token limit", *(f"{score.cut_pages} of {read}" for score in scores)),
        ("seconds", *(f"{score.seconds:.1f}" for score in scores)),
        ("weights", *(_size(score.weight_bytes) for score in scores), *_saved(model, baseline)),
    ]


def _comparison_rows(result: EvalResult, read: int) -> list[tuple[str, ...]]:
    compared = result.comparison
    if compared is None:
        return []
    return [
        ("CER, paired", "", "", _points(compared.cer_difference)),
        ("  95 % interval", "", "", _interval(compared.cer_difference_interval, signed=True)),
        ("identical pages", "", "", f"{compared.identical_pages} of {read}"),
        ("next-token agreement", "", "", f"{compared.agreement:.2%} of {compared.tokens}"),
        ("KL(baseline || model)", "", "", f"{compared.kl:.2g} nats per token"),
    ]


def _percent(rate: float | None) -> str:
    return _NONE if rate is None else f"{100 * rate:.2f} %"


def _points(difference: float | None) -> str:
    return _NONE if difference is None else f"{100 * difference:+.2f} points"


def _interval(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None:
        return _NONE
    low, high = (f"{100 * bound:+.2f}" if signed else f"{100 * bound:.2f}" for bound in interval)
    return f"{low} to {high}"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _saved(model: ModelScore, baseline: ModelScore | None) -> tuple[str, ...]:
    return () if baseline is None else (f"{model.weight_bytes / baseline.weight_bytes - 1:+.0%}",)
