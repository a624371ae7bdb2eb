"""Whole models for evaluation, quantized or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import BadInputError
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL

if TYPE_CHECKING:
    from transformers import HunYuanVLForConditionalGeneration


def open_weights(folder: Path) -> CheckpointReader | DequantizedCheckpoint:
    """The checkpoint as full-precision tensors: as it is, or seen through its unpacking when it is quantized."""
    reader = CheckpointReader(folder)
    return DequantizedCheckpoint(reader) if reader.config.get("quantization_config") else reader


def load_model(folder: Path, device: torch.device) -> HunYuanVLForConditionalGeneration:
    """The whole model in memory, in eval mode.

    A quantized checkpoint has its weights unpacked; where its runtime quantizes activations, the model does too.
    """
    source = open_weights(folder)
    adapter = HunYuanVL(source, device)
    model = adapter.full(source.read(source.tensors))
    if isinstance(source, DequantizedCheckpoint):
        source.emulate(adapter.modules)
    return model


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU, or the CPU; a device this machine lacks is refused."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInputError(f"device {name!r} cannot be used here; use auto, cpu or cuda:N") from error
    return device
