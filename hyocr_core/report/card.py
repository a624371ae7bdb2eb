"""The model card of a quantized checkpoint: what it is made from and how, and how to serve it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from hyocr_core.checkpoint.report import QuantReport
from hyocr_core.formats import read_format, runtimes
from hyocr_core.formats.runtimes import TRANSFORMERS, must_unpack

FILE_NAME = "README.md"
TEMPLATE = Path(__file__).with_name("card.md.j2")
CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag")
"""What the card of the base model says of every copy of it."""

LOAD = """\
from transformers import {imports}

processor = HunYuanVLProcessor.from_pretrained({name})
model = HunYuanVLForConditionalGeneration.from_pretrained({name}, dtype="auto"{how})"""


def model_card(
    report: QuantReport, name: str, quantization_config: Mapping[str, Any], base_card: Path, *, from_hub: bool
) -> str:
    """Return the text of the checkpoint's README.md.

    name: of the checkpoint's folder. base_card: the base model's own card, if there is one. from_hub: the base model
    is named by its hub id.
    """
    source = report.model.source
    data = ModelCardData(
        base_model=source if from_hub else None,
        base_model_relation="quantized" if from_hub else None,
        library_name="transformers",
        tags=["hyocr", "ocr", report.method.name, str(quantization_config["quant_method"])],
        **_carried(base_card),
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        quoted_name=shlex.quote(name),
        base_link=f"[{source}](https://huggingface.co/{source})" if from_hub else source,
        report=report,
        quant_method=quantization_config["quant_method"],
        before=f"{report.weight_bytes_before / 1e6:.1f}",
        after=f"{report.weight_bytes_after / 1e6:.1f}",
        ratio=f"{report.weight_bytes_before / report.weight_bytes_after:.2f}",
        options=json.dumps(report.method.config, indent=2),
        accuracy=_accuracy(name, source),
        runtimes=runtimes(quantization_config, _shapes(report)),
        snippet=_snippet(name, quantization_config, report),
    )
    return str(card).rstrip() + "\n"


def _carried(base_card: Path) -> dict[str, Any]:
    if not base_card.is_file():
        return {}
    # Metadata that the hub would refuse is the base model's affair.
    metadata = ModelCard.load(base_card, ignore_metadata_errors=True).data.to_dict()
    return {key: metadata[key] for key in CARRIED if key in metadata}


def _shapes(report: QuantReport) -> dict[str, tuple[int, int]]:
    return {layer.name: layer.shape for layer in report.layers}


def _accuracy(name: str, source: str) -> str:
    measure = f"hyocr eval {shlex.quote(name)} --data your-pages/ --baseline {shlex.quote(source)}"
    return f"Not measured yet. On your own pages:\n\n```sh\n{measure}\n```"


def _snippet(name: str, quantization_config: Mapping[str, Any], report: QuantReport) -> str | None:
    """How Transformers loads it; None when it does not."""
    shapes = _shapes(report)
    if not any(
        runtime.name == TRANSFORMERS and runtime.loads == "yes" for runtime in runtimes(quantization_config, shapes)
    ):
        return None
    unpack = must_unpack(read_format(quantization_config), shapes)
    names = ["HunYuanVLForConditionalGeneration", "HunYuanVLProcessor"]
    return LOAD.format(
        name=json.dumps(name),
        imports=", ".join(["CompressedTensorsConfig", *names] if unpack else names),
        how=", quantization_config=CompressedTensorsConfig(dequantize=True)" if unpack else "",
    )
