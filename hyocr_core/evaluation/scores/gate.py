"""The parity gate: whether an evaluation holds the bounds that were set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyocr_core.checkpoint.quant_report import GateFigure, GateRecord
from hyocr_core.errors import BadInputError, ConfigError, RunError
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, ModelScore
from hyocr_core.settings.run_config import Gate, parse_gate

_DIGITS = 9
"""Significant digits of a figure, so that no rounding of binary fractions decides at a bound."""


@dataclass(frozen=True)
class _Measure:
    """at_least: the bound is a lower one. figure: from the model's and the baseline's scores, and both compared."""

    figure: Callable[[EvalResult, ModelScore, Comparison], float | None]
    at_least: bool = False


def needs_transcripts(gate: Gate) -> bool:
    """Whether the pages must have transcripts."""
    return gate.cer is not None or gate.wer is not None


def open_gate(text: str, baseline: str | None) -> Gate:
    """The gate that a command line asks for. Raises ConfigError when it is malformed or there is no baseline."""
    gate = parse_gate(text, "--gate")
    if baseline is None:
        raise ConfigError("--gate needs --baseline, the checkpoint that MODEL was made from")
    return gate


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
    for metric, bound in gate.bounds.items():
        measure = _MEASURES[metric]
        value = measure.figure(result, result.baseline, result.comparison)
        if value is None:
            why = "pages without transcripts" if metric in ("cer", "wer") else f"the runtime {result.model.runtime}"
            raise BadInputError(f"gate: {why} gives no {metric}; leave it out")
        value = float(f"{value:.{_DIGITS}g}")
        passed = value >= bound if measure.at_least else value <= bound
        figures.append(GateFigure(metric=metric, bound=bound, value=value, passed=passed))
    return GateRecord(accepted=all(figure.passed for figure in figures), figures=tuple(figures))


def failures(record: GateRecord) -> str:
    """Every figure that failed with its bound: `cer 1.2 > 0.5, agreement 0.93 < 0.98`."""
    return ", ".join(_compared(figure) for figure in record.figures if not figure.passed)


def _compared(figure: GateFigure) -> str:
    short = f"{figure.value:.4g}"
    value = f"{figure.value:.{_DIGITS}g}" if float(short) == figure.bound else short
    return f"{figure.metric} {value} {'<' if _MEASURES[figure.metric].at_least else '>'} {figure.bound:g}"


def _points(mine: float | None, other: float | None) -> float | None:
    return None if mine is None or other is None else 100 * (mine - other)


def _more_loops(result: EvalResult, _baseline: ModelScore, _comparison: Comparison) -> float:
    return sum(page.loop for page in result.pages) - sum(bool(page.baseline_loop) for page in result.pages)


_MEASURES = {
    "cer": _Measure(lambda result, baseline, _: _points(result.model.cer, baseline.cer)),
    "wer": _Measure(lambda result, baseline, _: _points(result.model.wer, baseline.wer)),
    "agreement": _Measure(lambda _result, _baseline, comparison: comparison.agreement, at_least=True),
    "kl": _Measure(lambda _result, _baseline, comparison: comparison.kl),
    "loops": _Measure(_more_loops),
    "cut": _Measure(lambda result, baseline, _: result.model.cut_pages - baseline.cut_pages),
    "identical": _Measure(
        lambda result, _baseline, comparison: comparison.identical_pages / len(result.pages), at_least=True
    ),
}
"""The figure of each bound of a Gate."""
