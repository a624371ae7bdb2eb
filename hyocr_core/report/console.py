"""What a finished run prints: a row per layer, then a short summary."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hyocr_core.checkpoint.report import LayerRecord, QuantReport


def layer_table(layers: tuple[LayerRecord, ...]) -> Table:
    """One row per layer: its shape, the method's metrics, seconds; a degraded layer in red."""
    metrics = list(dict.fromkeys(name for layer in layers for name in layer.metrics))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", no_wrap=True)
    table.add_column("shape", no_wrap=True, justify="right")
    for title in (*metrics, "seconds"):
        table.add_column(title.replace("_", " "), justify="right")
    for layer in layers:
        values = [f"{layer.metrics[name]:.3g}" if name in layer.metrics else "-" for name in metrics]
        style = "red" if layer.degraded is not None else None
        table.add_row(layer.name, f"{layer.shape[0]}x{layer.shape[1]}", *values, f"{layer.seconds:.2f}", style=style)
    return table


def summary(report: QuantReport, output: Path) -> RenderableType:
    """Sizes, time, memory, what is degraded, and where the checkpoint lies."""
    before, after = report.weight_bytes_before / 1e6, report.weight_bytes_after / 1e6
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in report.phases.items())
    lines = [
        f"{len(report.layers)} layers quantized, {len(report.ignored)} linears left as they are",
        f"weights {before:.1f} MB -> {after:.1f} MB ({before / after:.2f} times smaller)",
        f"{sum(report.phases.values()):.1f} s ({seconds}), peak memory {report.peak_rss_bytes / 1e9:.2f} GB",
    ]
    if report.calibration is not None:
        used = report.calibration
        lines.insert(0, f"calibrated on {used.samples} samples of {used.source}, {used.tokens} tokens")
    text = [Text(line) for line in lines]
    for layer in report.degraded:
        text.append(Text(f"degraded: {layer.name}: {layer.degraded}", "red"))
    return Group(*text, Text(f"wrote {output}", "bold"))


def print_report(console: Console, report: QuantReport, output: Path) -> None:
    console.print(layer_table(report.layers))
    console.print()
    console.print(summary(report, output))
