"""What a finished run prints: a short summary, then the layers of the largest errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hyocr_core.checkpoint.quant_report import EvaluationRecord, LayerRecord, QuantReport
from hyocr_core.evaluation.scores.numbers import RTN, agreed, apart, measured, number, percent, seconds, size
from hyocr_core.report.facts import METRICS, own_metric
from hyocr_core.report.kinds import kinds_of
from hyocr_core.report.text import metric_title, told
from hyocr_core.shown import message
from hyocr_core.terminal.console import PlainConsole
from hyocr_core.terminal.fitting_tables import fitted

LOG_WIDTH = 1000
"""Columns of what is no terminal: a log may be as wide as it needs to be."""
WORST = 5
"""Layers that are shown unless all are asked for."""


def worst_layers(report: QuantReport) -> tuple[LayerRecord, ...]:
    """The layers of the largest errors, by the method's own measure, and before them those that are degraded."""
    metric = own_metric(report)

    def badness(layer: LayerRecord) -> tuple[bool, float]:
        return layer.degraded is not None, layer.metrics.get(metric or "", 0.0)

    if metric is None and not report.degraded:
        return ()
    return tuple(sorted(report.layers, key=badness, reverse=True)[:WORST])


def layer_table(layers: Sequence[LayerRecord], *, whole: bool) -> Table:
    """One row per layer: errors, the method's other metrics if `whole`, shape, seconds; a degraded layer in red."""
    metrics = list(dict.fromkeys(name for layer in layers for name in layer.metrics))
    errors = [name for name in metrics if name.startswith(METRICS)]
    metrics = [*errors, *(name for name in metrics if name not in errors)] if whole else errors
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("layer", no_wrap=True)
    for title in (*map(metric_title, metrics), "shape", "seconds"):
        table.add_column(title, justify="right")
    for layer in layers:
        values = (f"{layer.metrics[name]:.3g}" if name in layer.metrics else "-" for name in metrics)
        shape = f"{layer.shape[0]}x{layer.shape[1]}"
        style = "red" if layer.degraded is not None else None
        table.add_row(layer.name, *values, shape, f"{layer.seconds:.2f}", style=style)
    return table


def summary(report: QuantReport, output: Path) -> RenderableType:
    """Sizes, time, memory, how it reads, what is degraded, and where the checkpoint lies."""
    before, after = report.weight_bytes_before, report.weight_bytes_after
    phases = ", ".join(f"{name} {seconds(value)}" for name, value in report.phases.items())
    lines = [
        *_kinds(report),
        f"{len(report.layers)} layers quantized, {len(report.ignored)} linears left as they are",
        f"weights {size(before)} -> {size(after)} ({before / after:.2f} times smaller)",
        f"{seconds(sum(report.phases.values()))} ({phases}), peak memory {size(report.peak_rss_bytes)}",
    ]
    if report.calibration is not None:
        used = report.calibration
        lines.insert(0, f"calibrated on {used.samples} samples of {used.source}, {used.tokens} tokens")
    if report.evaluation is not None:
        lines += _reading(report.evaluation)
    lines += report.exceptions
    text = [Text(message(line)) for line in lines]
    # One that failed is what the command says last.
    if report.gate is not None and report.gate.accepted:
        text.append(Text("gate held", "green"))
    for layer in report.degraded:
        text.append(Text(message(f"degraded: {layer.name}: {layer.degraded}"), "red"))
    for observer in report.observers:
        if observer.failed is not None:
            text.append(Text(message(f"observer {observer.name} was switched off: {observer.failed}"), "yellow"))
    return Group(*text, Text(message(f"wrote {output}"), "bold"))


def _kinds(report: QuantReport) -> Iterator[str]:
    """How many linears are stored how, where that differs."""
    kinds = kinds_of(report)
    if len(kinds) > 1:
        yield from (f"{count} layers by {kind}" for kind, count in kinds.items())


def _reading(numbers: EvaluationRecord) -> Iterator[str]:
    yield f"read {numbers.pages} pages of {numbers.data}{told(numbers)}"
    scores = {"": numbers.model, "original ": numbers.baseline, f"{RTN} ": numbers.rounded}
    known = {label: score for label, score in scores.items() if score is not None}
    if numbers.model.cer is not None:
        yield "CER " + ", ".join(f"{label}{percent(score.cer)}" for label, score in known.items())
    agreement = agreed(numbers.model.agreement, numbers.model.agreement_interval)
    if numbers.model.agreement is not None and numbers.model.kl is not None:
        yield (
            f"next-token agreement {agreement}, KL {number(numbers.model.kl, 2)}, "
            f"{numbers.model.identical} pages identical, {numbers.model.loops} end in a loop"
        )
    for name, metric in numbers.metrics.items():
        values = {label: score.metrics[name] for label, score in known.items() if name in score.metrics}
        shown = ", ".join(f"{label}{measured(value, metric.unit)}" for label, value in values.items())
        difference = numbers.differences.get(name)
        yield f"{metric.title} {shown}" + (
            f", less the original's {apart(difference, metric.unit)}" if difference else ""
        )


def print_report(console: Console, report: QuantReport, output: Path, *, whole: bool) -> None:
    """The summary, then a table of the worst layers, or of all if `whole`."""
    if not console.is_terminal:
        console = PlainConsole(file=console.file, width=LOG_WIDTH)
    console.print(summary(report, output))
    layers = report.layers if whole else worst_layers(report)
    if not layers:
        return
    console.print()
    if len(layers) < len(report.layers):
        console.print(f"the {len(layers)} layers of the largest errors; -v shows all {len(report.layers)}")
    console.print(fitted(layer_table(layers, whole=whole), console, console.width))
