"""Checks against `hyocr_report.json`, for checkpoints that hyocr wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.quant_report import FILE_NAME, QuantReport
from hyocr_core.checkpoint.reader import CONFIG_NAME, digest
from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import HyocrError, MethodError
from hyocr_core.plugin.registry import load_method
from hyocr_core.verification.faults import Fault
from hyocr_core.verification.subject import Subject


def check_files(subject: Subject, report: QuantReport) -> Iterator[Fault]:
    """Every file that reading depends on has the bytes that were written, and there is no other."""
    folder, written = subject.reader.folder, report.output_sha256
    for name, due in written.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            yield Fault(FILE_NAME, f"names {name!r}, which is outside of the folder")
        elif not (folder / name).is_file():
            yield Fault(name, "is missing, hyocr wrote it")
        elif digest(folder / name) != due:
            yield Fault(name, "has other bytes than hyocr wrote (SHA-256 differs)")
    for name in subject.reader.read_names() if covers_all(report) else ():
        if name not in written:
            yield Fault(name, "is none of the files that hyocr wrote, and a runtime may read it")


def covers_all(report: QuantReport) -> bool:
    """Whether the report has digests of more than the weights, as an older hyocr wrote it."""
    return CONFIG_NAME in report.output_sha256


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
        yield Fault(FILE_NAME, str(error))
        return
    for key in sorted(written.keys() | subject.config.keys()):
        now, then = subject.config.get(key), written.get(key)
        if now != then:
            yield Fault("config.json", f"quantization_config: {key} is {_show(now)}, hyocr wrote {_show(then)}")


def _written_again(subject: Subject, report: QuantReport) -> dict[str, Any]:
    """What the method writes for its recorded options."""
    method = load_method(report.method.selector)
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
