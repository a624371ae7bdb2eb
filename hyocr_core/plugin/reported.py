"""The methods that a report names, found among the installed ones, with the options that hold for each layer."""

from __future__ import annotations

from typing import NamedTuple

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.contract.config import MethodConfig
from hyocr_core.plugin.method import Method
from hyocr_core.plugin.registry import load_method


class Reported(NamedTuple):
    """What quantized a layer."""

    method: Method
    config: MethodConfig


def reported_methods(report: QuantReport) -> dict[str, Reported]:
    """What quantized each layer, by on-disk name.

    Raises MethodError when a method is not installed, ConfigError when it refuses the options in the report.
    """
    methods = {record.selector: load_method(record.selector) for record in report.methods}
    found = {}
    for layer in report.layers:
        record = report.method_of(layer)
        method = methods[record.selector]
        found[layer.name] = Reported(method, method.config(record.config | layer.options))
    return found
