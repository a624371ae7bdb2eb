"""Checks of numbers that run on every tensor of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyocr_core.errors import RunError

if TYPE_CHECKING:
    from hyocr_core.contract.types import Layer

WEIGHT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor of any dtype is free of NaN and infinity.

    By its least and largest value, which carry either; on CPU that is ten times as fast as `torch.isfinite`.
    """
    # The 4-bit float has no code for NaN or infinity.
    if not tensor.dtype.is_floating_point or tensor.dtype is torch.float4_e2m1fn_x2 or tensor.numel() == 0:
        return True
    low, high = torch.aminmax(tensor.float() if tensor.dtype.itemsize == 1 else tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def check_weights(layers: Sequence[Layer]) -> None:
    """Raise RunError naming a layer whose weight is not finite, or not of the one dtype that a group has to have."""
    for layer in layers:
        dtype = layer.weight.dtype
        if dtype not in WEIGHT_DTYPES or dtype != layers[0].weight.dtype:
            raise RunError(
                f"{layer.name}: its weight is {dtype}; bfloat16, float16 or float32 throughout a group is needed"
            )
        if not is_finite(layer.weight):
            raise RunError(f"{layer.name}: its weight holds NaN or infinite values")
