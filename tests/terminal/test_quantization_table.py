"""What a finished run prints, and how wide."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from hyocr_core.checkpoint.quant_report import GateFigure, GateRecord, QuantReport
from hyocr_core.terminal.console import PlainConsole
from hyocr_core.terminal.quantization_table import print_report
from tests.report import built


def printed(report: QuantReport, width: int | None = None, *, whole: bool = False) -> list[str]:
    """Lines as on a terminal of that width, or in a log."""
    file = io.StringIO()
    terminal = width is not None
    console = PlainConsole(file=file, width=width, force_terminal=terminal, color_system=None)
    print_report(console, report, Path("out"), whole=whole)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def layers(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines if line.startswith("model.layers.")]


@pytest.mark.parametrize("width", [None, 80, 140])
def test_the_summary_comes_first_and_the_five_worst_layers_behind_it(width: int | None) -> None:
    report = built.quant_report()
    lines = printed(report, width)
    assert lines[0].startswith("calibrated on 128 samples")
    assert lines.index("wrote out") < lines.index("the 5 layers of the largest errors; -v shows all 168")
    worst = sorted(report.layers, key=lambda layer: layer.metrics["output_error"], reverse=True)[:5]
    assert layers(lines) == [layer.name for layer in worst]
    first = next(line for line in lines if line.startswith("model.layers."))
    assert first.split()[1] == f"{worst[0].metrics['output_error']:.3g}"
    assert any("calibration" in line for line in lines)
    assert "…" not in "".join(lines)
    assert width is not None or first.split()[-2:] == [
        f"{worst[0].shape[0]}x{worst[0].shape[1]}",
        f"{worst[0].seconds:.2f}",
    ]
    assert width is None or max(map(len, lines)) <= width


def test_all_of_them_are_shown_when_asked_for() -> None:
    report = built.quant_report()
    lines = printed(report, whole=True)
    assert layers(lines) == [layer.name for layer in report.layers]
    assert not any("-v shows" in line for line in lines)
    assert any("condition" in line for line in lines)


def test_the_worst_layers_stand_in_a_table_on_a_terminal_of_80_columns() -> None:
    lines = printed(built.quant_report(), 80)
    assert layers(lines)
    assert not any("condition" in line for line in lines)


def test_a_degraded_layer_is_among_the_worst() -> None:
    report = built.quant_report()
    poor = report.layers[7].model_copy(update={"degraded": "no factor", "metrics": {}})
    report = report.model_copy(update={"layers": (*report.layers[:7], poor, *report.layers[8:])})
    assert layers(printed(report))[0] == poor.name


def test_a_method_that_measures_nothing_shows_no_layers() -> None:
    report = built.quant_report()
    silent = tuple(layer.model_copy(update={"metrics": {}}) for layer in report.layers)
    assert layers(printed(report.model_copy(update={"layers": silent}))) == []


@pytest.mark.parametrize("accepted", [True, False])
def test_a_gate_that_failed_is_left_to_the_error(accepted: bool) -> None:
    figure = GateFigure(metric="cer", bound=0.5, value=1.0, passed=accepted, unit="points")
    gate = GateRecord(accepted=accepted, figures=(figure,))
    text = "\n".join(printed(built.quant_report(gate=gate)))
    assert ("gate held" in text) == accepted
    assert "gate failed" not in text
