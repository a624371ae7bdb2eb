"""Checkpoints being written: two quantized layers beside what is carried over, finished or not."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.writer import StagedCheckpoint

QUANTIZED = ("model.layers.0.q_proj", "model.layers.10.q_proj")
CONFIG = {"model_type": "hunyuan_vl", "a": [1, 2.5], "name": "混元", "quantization_config": {"bits": 4}}
EXTRA = {"hyocr_report.json": b'{"layers": []}'}


def packed(layer: str) -> dict[str, Tensor]:
    seed = QUANTIZED.index(layer)
    return {
        f"{layer}.qweight": torch.arange(8, dtype=torch.int32).reshape(2, 4) + seed,
        f"{layer}.scales": torch.full((2, 2), 0.5 + seed).bfloat16(),
    }


def carried(reader: CheckpointReader) -> list[str]:
    return [name for name in reader.tensors if name.removesuffix(".weight") not in QUANTIZED]


def add_parts(stage: StagedCheckpoint) -> None:
    for layer in QUANTIZED:
        stage.add_part(layer, packed(layer))


def finish(stage: StagedCheckpoint, model: Path, *, accepted: bool = True, **options: Any) -> None:
    reader = CheckpointReader(model)
    digests = stage.build(reader, carried(reader), QUANTIZED, CONFIG, **options)
    for name, content in EXTRA.items():
        stage.add_file(name, content)
    place = stage.publish(accepted=accepted)
    read = (path for path in place.iterdir() if path.name not in EXTRA)
    assert digests == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in read}


def write(model: Path, target: Path, **options: Any) -> dict[str, bytes]:
    with StagedCheckpoint.open(target, resume=False) as stage:
        add_parts(stage)
        finish(stage, model, **options)
    return contents(target)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Nothing(BaseModel):
    """What a run writes down that has done nothing."""


def begin_journal(stage: StagedCheckpoint) -> None:
    Journal.start(stage.journal_path, {"seed": 0}, Nothing())


def interrupted(target: Path) -> None:
    """A run that was killed after its first part."""
    with StagedCheckpoint.open(target, resume=False) as stage:
        begin_journal(stage)
        stage.add_part(QUANTIZED[0], packed(QUANTIZED[0]))


def fail_after_the_journal(target: Path, error: BaseException) -> None:
    with StagedCheckpoint.open(target, resume=False) as stage:
        begin_journal(stage)
        raise error
