"""Which layers integer formats can hold, decided before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping

from hyocr_core.contract.config import Fallback
from hyocr_core.errors import ConfigError

GROUP_SIZES = (32, 64, 128)

MISREAD = ("model.vision_tower.patch_merger.mlp",)
"""vLLM's integer kernels on CPU take the strided input of this linear for a contiguous one, and compute nonsense."""


def group_fallback(shape: tuple[int, int], group_size: int, *, per_layer: bool) -> Fallback | None:
    """What becomes of a linear (N, K) that no group divides, such as the vision tower's 1152 x 4304.

    It gets one scale for each output channel where the format has settings `per_layer`, and stays as it is elsewhere.
    """
    inputs = shape[1]
    if group_size == -1 or any(inputs % size == 0 for size in GROUP_SIZES):
        return None
    known = ", ".join(str(size) for size in GROUP_SIZES)
    why = f"its {inputs} input channels are divided by no group ({known})"
    if per_layer:
        return Fallback({"group_size": -1}, f"{why}, so that each output channel has one scale")
    return Fallback(None, f"{why}, and the format has one group size for all; format: compressed-tensors can store it")


def check_shapes(
    shapes: Mapping[str, tuple[int, int]], *, bits: int, group_size: int, packs_outputs: str | None = None
) -> None:
    """Raise ConfigError for the first layer (name -> (N, K)) whose codes or groups would not come out even.

    group_size: -1 is one group per output channel.
    packs_outputs: what the format packs along the output channels, such as `zero points`, with what to do instead.
    """
    factor = 32 // bits
    for name, (outputs, inputs) in shapes.items():
        _check_inputs(name, inputs, bits, group_size)
        if packs_outputs is not None and outputs % factor:
            raise ConfigError(f"{name}: its {outputs} output channels are not a multiple of {factor}; {packs_outputs}")


def _check_inputs(name: str, inputs: int, bits: int, group_size: int) -> None:
    factor = 32 // bits
    if inputs % factor:
        raise ConfigError(
            f"{name}: its width of {inputs} input channels is not a multiple of {factor}, "
            f"so {bits}-bit codes do not fill whole int32; leave the layer out with `ignore`"
        )
    if group_size != -1 and inputs % group_size:
        works = ", ".join(str(size) for size in (*(g for g in GROUP_SIZES if inputs % g == 0), -1))
        raise ConfigError(
            f"{name}: group_size {group_size} does not divide its width of {inputs} input channels; "
            f"use one of: {works}, or leave the layer out with `ignore`"
        )
