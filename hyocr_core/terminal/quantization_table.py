"""What a finished run prints: a row per layer, then a short summary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hyocr_core.checkpoint.quant_report import EvaluationRecord, LayerRecord, QuantReport
from hyocr_core.evaluation.scores.gate import failures
from hyocr_core.evaluation.scores.numbers import agreed, apart, measured, number, percent, seconds, size
from hyocr_core.report.text import told
from hyocr_core.shown import message


def layer_table(layers: tuple[LayerRecord, ...]) -> Table:
    """One row per layer: its shape, the method's metrics, seconds; a degraded layer in red."""
    metrics = list(dict.fromkeys(name for layer in layers for name in layer.metrics))
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column("layer", no_wrap=True)
    table.add_column("shape", no_wrap=True, justify="right")
    rows = [
        [*(f"{layer.metrics[name]:.3g}" if name in layer.metrics else "-" for name in metrics), f"{layer.seconds:.2f}"]
        for layer in layers
    ]
    for title, column in zip((*metrics, "seconds"), zip(*rows, strict=True), strict=True):
        # Where the terminal is narrow, titles are broken and numbers stay whole.
        table.add_column(title.replace("_", " "), justify="right", min_width=max(map(len, column)), overflow="fold")
    for layer, values in zip(layers, rows, strict=True):
        style = "red" if layer.degraded is not None else None
        table.add_row(layer.name, f"{layer.shape[0]}x{layer.shape[1]}", *values, style=style)
    return table


def summary(report: QuantReport, output: Path) -> RenderableType:
    """Sizes, time, memory, how it reads, what is degraded, and where the checkpoint lies."""
    before, after = report.weight_bytes_before, report.weight_bytes_after
    phases = ", ".join(f"{name} {seconds(value)}" for name, value in report.phases.items())
    lines = [
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
    if report.gate is not None:
        held = report.gate.accepted
        text.append(Text("gate held" if held else f"gate failed: {failures(report.gate)}", "green" if held else "red"))
    for layer in report.degraded:
        text.append(Text(message(f"degraded: {layer.name}: {layer.degraded}"), "red"))
    for observer in report.observers:
        if observer.failed is not None:
            text.append(Text(message(f"observer {observer.name} was switched off: {observer.failed}"), "yellow"))
    return Group(*text, Text(message(f"wrote {output}"), "bold"))


def _reading(numbers: EvaluationRecord) -> Iterator[str]:
    yield f"read {numbers.pages} pages of {numbers.data}{told(numbers)}"
    scores = {"": numbers.model, "original ": numbers.baseline, "rounded to nearest ": numbers.rounded}
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


def print_report(console: Console, report: QuantReport, output: Path) -> None:
    # Not cropped: a log may be as wide as it needs to be.
    console.print(layer_table(report.layers), crop=False)
    console.print()
    console.print(summary(report, output))
