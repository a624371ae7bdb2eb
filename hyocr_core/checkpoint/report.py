"""`hyocr_report.json`: what was done to a checkpoint. The pipeline writes it; whoever loads the checkpoint reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from hyocr_core.config import FrozenModel, parse_config
from hyocr_core.errors import CheckpointError

FILE_NAME = "hyocr_report.json"


class MethodRecord(FrozenModel):
    name: str
    distribution: str
    version: str
    config: dict[str, Any]


class ModelRecord(FrozenModel):
    source: str = Field(description="hub id, or the folder's name: never a local path")
    revision: str | None
    sha256: dict[str, str] = Field(description="digest of every file the result depends on")


class CalibrationRecord(FrozenModel):
    source: str
    seed: int
    samples: int
    tokens: int
    failures: dict[str, str] = Field(description="sample -> why it could not be used")
    sha256: str = Field(description="digest over the samples used")
    page_sha256: list[str] = Field([], description="digest of the pixels of every page used")


class LayerRecord(FrozenModel):
    name: str
    shape: tuple[int, int]
    seconds: float
    metrics: dict[str, float]
    degraded: str | None


class QuantReport(FrozenModel):
    """The whole file. `layers` are the quantized linears by on-disk module name, in model order."""

    schema_version: int = 1
    hyocr: str
    method: MethodRecord
    model: ModelRecord
    calibration: CalibrationRecord | None
    ignored: tuple[str, ...]
    rescaled: tuple[str, ...] = Field(description="tensors that are not quantized but were changed by folded scales")
    layers: tuple[LayerRecord, ...]
    output_sha256: dict[str, str] = Field(description="digest of every weight file of the result")
    weight_bytes_before: int
    weight_bytes_after: int
    phases: dict[str, float] = Field(description="seconds of wall time by phase, of this run only when resumed")
    peak_rss_bytes: int
    resumed_after_block: int | None
    environment: dict[str, str]

    @property
    def degraded(self) -> tuple[LayerRecord, ...]:
        return tuple(layer for layer in self.layers if layer.degraded is not None)


def read_report(folder: Path) -> QuantReport:
    """The report of a checkpoint hyocr wrote; CheckpointError when there is none or it cannot be read."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: is quantized, but not by hyocr ({FILE_NAME} is missing)")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    return parse_config(QuantReport, data, str(path))
