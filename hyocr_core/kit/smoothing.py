"""Move a scale per channel from the layers it feeds into what feeds them; the block's output stays what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from hyocr_core.contract.types import Batch, Block, Smoothing
from hyocr_core.errors import RunError
from hyocr_core.kit.checks import is_finite

if TYPE_CHECKING:
    from torch import Tensor


@torch.no_grad()
def fold(block: Block, smoothing: Smoothing, scales: Tensor) -> None:
    """Divide the source's output channels by `scales` and multiply the targets' input channels by them, in place.

    scales: (source channels,), positive. Raises RunError naming the layer when a result overflows its dtype.
    """
    effective = _divide(smoothing, scales)
    columns = effective[smoothing.channels.to(effective.device)]
    for name in smoothing.targets:
        weight = block.layers[name].weight
        _assign(name, weight, weight.float() * columns)


def _divide(smoothing: Smoothing, scales: Tensor) -> Tensor:
    """Divide the source's parameters; return the scales that were really divided by, fp32."""
    parameters = dict(smoothing.source.named_parameters(recurse=False))
    weight = parameters["weight"]
    scales = scales.to(weight.device, torch.float32)
    before = weight.to(torch.float32, copy=True)
    for parameter in parameters.values():
        _assign(smoothing.name, parameter, parameter.float() / (scales[:, None] if parameter.ndim == 2 else scales))
    if len(parameters) > 1 or weight.ndim == 2:
        return scales
    # The norm's weight was rounded once more; multiplying by what it really lost keeps the product exact.
    return before / weight.float()


def _assign(name: str, parameter: Tensor, value: Tensor) -> None:
    rounded = value.to(parameter.dtype)
    if not is_finite(rounded):
        raise RunError(f"{name}: its weights overflow {parameter.dtype} once a smoothing scale is folded into them")
    parameter.copy_(rounded)


@torch.no_grad()
def exact_output(block: Block, batch: Batch) -> Tensor:
    """Return what the block adds to the hidden states of `batch`, computed in fp32 with its weights as they are."""
    dtype = next(block.module.parameters()).dtype
    states = batch.hidden_states.float()
    try:
        block.module.float()
        output = block.run(Batch(batch.name, states, {key: _in_fp32(value) for key, value in batch.context.items()}))
    finally:
        block.module.to(dtype)
    return output - states if output.shape == states.shape else output


def _in_fp32(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_in_fp32(part) for part in value)
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
