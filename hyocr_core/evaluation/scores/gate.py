"""The parity gate: whether an evaluation holds the bounds that were set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hyocr_core.checkpoint.quant_report import GateFigure, GateRecord
from hyocr_core.errors import BadInputError, RunError
from hyocr_core.evaluation.scores.error_rates import BUILT_IN
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, ModelScore
from hyocr_core.settings.shared import OWN_BOUNDS, Gate
from hyocr_core.wording import phrase

_DIGITS = 9
"""Significant digits of a figure, so that no rounding of binary fractions decides at a bound."""

AT_LEAST = ("agreement", "identical")
"""Figures whose bound is a lower one."""

_FIELDS = {"cer": "cer", "wer": "wer", "edit-distance": "edit_distance", "exact": "exact_match", "loops": "loop_rate"}
"""Of a ModelScore: the metrics that come with hyocr."""


def refuse_more_than_text(gate: Gate) -> None:
    """Raise BadInputError for a bound that a runtime which only returns text has no figure for."""
    for metric in ("agreement", "kl"):
        if metric in gate.bounds:
            raise BadInputError(f"gate: vLLM and endpoints return only text, which gives no {metric}; leave it out")


def refuse_failures(record: GateRecord) -> None:
    """Raise RunError with every figure that failed."""
    if not record.accepted:
        raise RunError(f"gate failed: {failures(record)}")


def judge(gate: Gate, result: EvalResult) -> GateRecord:
    """Compare an evaluation with a baseline to the bounds.

    Raises BadInputError when it has no figure for one of them: no baseline, no transcripts, or a runtime that only
    returns text.
    """
    if result.baseline is None or result.comparison is None:
        raise BadInputError("a gate needs a baseline: give the checkpoint that this one was made from")
    figures = []
    for name, bound in gate.bounds.items():
        own = name in OWN_BOUNDS
        value = _OWN[name](result, result.baseline, result.comparison) if own else _worse(name, result, result.baseline)
        if value is None:
            raise BadInputError(f"gate: {_giving_none(name, result)} no {name}; leave it out")
        value = float(f"{value:.{_DIGITS}g}")
        passed = value >= bound if name in AT_LEAST else value <= bound
        figures.append(GateFigure(metric=name, bound=bound, value=value, passed=passed, unit=_unit(name, result)))
    return GateRecord(accepted=all(figure.passed for figure in figures), figures=tuple(figures))


def failures(record: GateRecord) -> str:
    """Every figure that failed with its bound: `cer 1.2 > 0.5 points, agreement 0.93 < 0.98 of next tokens`."""
    return ", ".join(_compared(figure) for figure in record.figures if not figure.passed)


def _giving_none(name: str, result: EvalResult) -> str:
    """What it is that has no figure for a bound."""
    if name in OWN_BOUNDS:
        return f"the runtime {result.model.runtime} gives"
    if name.removeprefix("hyocr-core:") in _FIELDS:
        return "pages without transcripts give"
    return "pages whose transcripts have no such part give"


def _compared(figure: GateFigure) -> str:
    short = f"{figure.value:.4g}"
    value = f"{figure.value:.{_DIGITS}g}" if float(short) == figure.bound else short
    return (
        f"{figure.metric} {value} {'<' if figure.metric in AT_LEAST else '>'} {figure.bound:g} {figure.unit}".rstrip()
    )


def _worse(name: str, result: EvalResult, baseline: ModelScore) -> float | None:
    """How much worse a metric is than the baseline's, in the unit of its bound."""
    mine, other = (_value(name, score, len(result.pages)) for score in (result.model, baseline))
    if mine is None or other is None:
        return None
    unit, better = _unit_and_side(name, result)
    worse = mine - other if better == "smaller" else other - mine
    return 100 * worse if unit == "%" else worse


def _unit_and_side(name: str, result: EvalResult) -> tuple[str, str]:
    """Of a metric: its unit, and whether smaller or larger is better."""
    own = BUILT_IN.get(name.removeprefix("hyocr-core:"))
    return (own.unit, own.better) if own else (result.metrics[name].unit, result.metrics[name].better)


def _unit(name: str, result: EvalResult) -> str:
    """Of a bound, in words."""
    if name in OWN_BOUNDS:
        return _UNITS[name]
    unit, _ = _unit_and_side(name, result)
    return phrase("points") if unit == "%" else unit


def _value(name: str, score: ModelScore, pages: int) -> float | None:
    own = name.removeprefix("hyocr-core:")
    if own in _FIELDS:
        rate: float | None = getattr(score, _FIELDS[own])
        return rate * pages if rate is not None and BUILT_IN[own].together == "sum" else rate
    return score.metrics[name].value if name in score.metrics else None


_OWN: Mapping[str, Callable[[EvalResult, ModelScore, Comparison], float | None]] = {
    "agreement": lambda _result, _baseline, comparison: comparison.agreement,
    "kl": lambda _result, _baseline, comparison: comparison.kl,
    "cut": lambda result, baseline, _: result.model.cut_pages - baseline.cut_pages,
    "identical": lambda result, _baseline, comparison: comparison.identical_pages / len(result.pages),
}
"""The figure of each of OWN_BOUNDS."""

_UNITS = {
    "agreement": phrase("of next tokens"),
    "kl": phrase("nats per token"),
    "cut": phrase("pages"),
    "identical": phrase("of pages"),
}
"""The same of their units."""
