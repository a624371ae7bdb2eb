"""Whole models for evaluation, quantized or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.contract.backend import Forward
from hyocr_core.errors import BadInputError
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.models.spelling import EMBEDDING, VISION
from hyocr_core.models.tied import tied_copies
from hyocr_core.runtimes.forward import set_forward
from hyocr_core.runtimes.native import check_native, load_native

if TYPE_CHECKING:
    from transformers import HunYuanVLForConditionalGeneration

Weights: TypeAlias = CheckpointReader | DequantizedCheckpoint | RoundedCheckpoint

FRONT = (f"{VISION}.", f"{EMBEDDING}.")
"""Below these names are the parameters that make the input of block 0."""

SHARED = (torch.bfloat16, torch.float16, torch.float32)


def open_weights(folder: Path) -> CheckpointReader | DequantizedCheckpoint:
    """The checkpoint as full-precision tensors: as it is, or seen through its unpacking when it is quantized."""
    return unpacked(CheckpointReader(folder))


def unpacked(reader: CheckpointReader) -> CheckpointReader | DequantizedCheckpoint:
    """The same of a checkpoint that is open already."""
    return DequantizedCheckpoint(reader) if reader.config.get("quantization_config") else reader


def load_model(folder: Path, device: torch.device, forward: Forward = "reference") -> HunYuanVLForConditionalGeneration:
    """The whole model of a checkpoint folder; see `load_whole`."""
    return load_whole(open_weights(folder), device, forward).skeleton


def load_whole(
    weights: Weights, device: torch.device, forward: Forward = "reference", *, native: bool = False
) -> HunYuanVL:
    """The whole model in memory as `skeleton`, in eval mode.

    A quantized checkpoint has its weights unpacked; where its runtime quantizes activations, the model does too.
    Raises CheckpointError when a tied tensor is there and differs.
    native: Transformers itself loads a quantized checkpoint, and whatever kernels it has for that compute.
    """
    model = HunYuanVL(weights, device, forward)
    tied_copies(model)
    if native and isinstance(weights, DequantizedCheckpoint):
        unpacking = check_native(weights.formats, weights.shapes)
        model.skeleton = load_native(weights.folder, device, unpacking=unpacking)
        set_forward(model.skeleton, forward)
        return model
    model.full(weights.read(weights.tensors))
    if not isinstance(weights, CheckpointReader):
        weights.emulate(model.modules)
    return model


def share_equal(model: HunYuanVL, other: HunYuanVL) -> None:
    """Let `model` use the memory of `other` for every parameter that both have alike."""
    theirs = dict(other.skeleton.named_parameters())
    for name, mine in model.skeleton.named_parameters():
        their = theirs.get(name)
        # Packed weights of a native model differ, and of 8-bit floats not every device can tell.
        if their is not None and mine.dtype == their.dtype in SHARED and torch.equal(mine, their):
            mine.data = their.data


def embed_alike(model: HunYuanVL, other: HunYuanVL) -> bool:
    """Whether both put the same into block 0, known after `share_equal`: vision tower and embedding are shared."""
    if model.forward != other.forward or any(_quantizes_vision(each) for each in (model, other)):
        return False
    fronts = [
        {name: value.data_ptr() for name, value in each.skeleton.named_parameters() if name.startswith(FRONT)}
        for each in (model, other)
    ]
    return fronts[0] == fronts[1]


def _quantizes_vision(model: HunYuanVL) -> bool:
    """Whether inputs of the vision tower's linears may be quantized."""
    if not isinstance(model.reader, DequantizedCheckpoint | RoundedCheckpoint):
        return False
    return not model.reader.shapes.keys().isdisjoint(
        name.removesuffix(".weight") for name in model.tensors_below(VISION).values()
    )


def pick_device(name: str, place: int | None = None) -> torch.device:
    """`auto` is the first GPU, or the CPU; a device this machine lacks is refused.

    place: of this process among several on this machine, which take the GPUs in turn.
    """
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if name == "auto" or (name == "cuda" and place is not None):
        return torch.device("cuda" if place is None else f"cuda:{place % torch.cuda.device_count()}")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInputError(f"device {name!r} cannot be used here; use auto, cpu or cuda:N") from error
    return device
