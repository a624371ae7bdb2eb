"""Show a method the inputs of a block's layers; what most calibrations are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from hyocr_core.errors import RunError
from hyocr_core.numerics import is_finite
from hyocr_core.types import Batches, Block

if TYPE_CHECKING:
    from torch import Tensor, nn

Observer = Callable[[tuple[str, ...], "Tensor"], None]


@torch.no_grad()
def observe_inputs(block: Block, batches: Batches, observe: Observer) -> None:
    """Run `block` over `batches` and call `observe(names, inputs)` for each group of layers that share an input.

    inputs: (tokens, in_features), in the model's dtype, real tokens only.
    Raises RunError naming the layer and the sample when an input is NaN or infinite.
    """
    sample = ""

    def watch(names: tuple[str, ...]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            inputs = args[0].detach().flatten(0, -2)
            if not is_finite(inputs):
                raise RunError(f"{names[0]}: its input is NaN or infinite for the sample {sample}")
            observe(names, inputs)

        return hook

    handles = [block.layers[group[0]].register_forward_pre_hook(watch(group)) for group in block.groups]
    try:
        for batch in batches:
            sample = batch.name
            block.run(batch)
    finally:
        for handle in handles:
            handle.remove()
