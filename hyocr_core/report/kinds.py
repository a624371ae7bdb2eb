"""What kinds of linears a quantized checkpoint has, in words."""

from __future__ import annotations

from collections import Counter

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.models.known_formats import known_formats
from hyocr_core.wording import tr


def kinds_of(report: QuantReport) -> dict[str, int]:
    """Such as `gptq: int4, groups of 128, symmetric` -> how many linears; empty where nobody knows the format."""
    formats = None if report.quantization_config is None else known_formats(report.quantization_config)
    if formats is None:
        return {}
    stored = [(report.method_of(layer).name, formats.of(layer.name)) for layer in report.layers]
    kinds = (tr("{method}: {format}", method=name, format=each.in_words) for name, each in stored if each is not None)
    return dict(Counter(kinds))
