"""Checks against `hyocr_report.json`, for checkpoints that hyocr wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import HyocrError, MethodError
from hyocr_core.plugin.registry import load_method
from hyocr_core.verification.faults import Fault
from hyocr_core.verification.subject import Subject


def check_files(subject: Subject, report: QuantReport) -> Iterator[Fault]:
    """Every weight file has the bytes that were written."""
    found = subject.reader.digests()
    for name, digest in report.output_sha256.items():
        if name not in found:
            yield Fault(name, "is missing, hyocr wrote it")
        elif found[name] != digest:
            yield Fault(name, "has other bytes than hyocr wrote (SHA-256 differs)")


def check_layers(subject: Subject, report: QuantReport) -> Iterator[Fault]:
    """What is quantized is what was reported."""
    reported = {layer.name for layer in report.layers}
    stored = {linear.name for linear in subject.quantized.values()}
    for name in sorted(reported - stored):
        yield Fault(name, "is reported as quantized, but it is not")
    for name in sorted(stored - reported):
        yield Fault(name, "is quantized, but the report does not name it")


def check_config(subject: Subject, report: QuantReport) -> Iterator[Fault]:
    """The quantization_config is what was written.

    Raises MethodError when the report is of a hyocr that did not keep it, and the method is not installed in the
    version that was at work.
    """
    try:
        written = report.quantization_config or _written_again(subject, report)
    except MethodError:
        raise
    except HyocrError as error:
        yield Fault("hyocr_report.json", str(error))
        return
    for key in sorted(written.keys() | subject.config.keys()):
        now, then = subject.config.get(key), written.get(key)
        if now != then:
            yield Fault("config.json", f"quantization_config: {key} is {_show(now)}, hyocr wrote {_show(then)}")


def _written_again(subject: Subject, report: QuantReport) -> dict[str, Any]:
    """What the method writes for its recorded options."""
    method = load_method(f"{report.method.distribution}:{report.method.name}")
    if method.entry.version != report.method.version:
        raise MethodError(f"version {report.method.version} wrote it, {method.entry.source} is installed")
    memory = subject.model.memory_names
    known = [name for name in (*(layer.name for layer in report.layers), *report.ignored) if name in memory]
    quantized = {layer.name for layer in report.layers}
    names = QuantizedNames(
        tuple(memory[name] for name in known if name in quantized),
        tuple(memory[name] for name in known if name not in quantized),
    )
    layers = {
        memory[layer.name]: method.config(report.method.config | layer.options)
        for layer in report.layers
        if layer.name in memory
    }
    return method.checkpoint_config(names, layers, method.config(report.method.config))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
