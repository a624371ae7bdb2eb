"""Show a method the inputs of a block's layers; what most calibrations are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from hyocr_core.contract.types import Batch, Batches, Block
from hyocr_core.kit.checks import FiniteChecks, finite_checks

if TYPE_CHECKING:
    from torch import Tensor, nn

InputsObserver = Callable[[tuple[str, ...], "Tensor"], None]
WeightedObserver = Callable[[tuple[str, ...], "Tensor", "Tensor | None"], None]
PairedObserver = Callable[[tuple[str, ...], "Tensor", "Tensor | None", "Tensor | None"], None]


def observe_inputs(block: Block, batches: Batches, observe: InputsObserver) -> None:
    """Call `observe(names, inputs)` for every batch and each group of layers that share an input.

    inputs: (tokens, in_features), in the model's dtype, real tokens only. The block is run over the batches, unless it
    is one group, whose input they are.
    Raises RunError naming the layer and the sample when an input is NaN or infinite; by a device, at the end.
    """
    observe_weighted(block, batches, lambda names, inputs, _weights: observe(names, inputs))


def observe_weighted(block: Block, batches: Batches, observe: WeightedObserver) -> None:
    """The same with `observe(names, inputs, weights)`, for methods that weigh tokens; weights: see `Batch`."""
    observe_paired(block, batches, lambda names, inputs, _reference, weights: observe(names, inputs, weights))


@torch.no_grad()
def observe_paired(block: Block, batches: Batches, observe: PairedObserver) -> None:
    """The same with `observe(names, inputs, reference, weights)`.

    reference: (tokens, in_features), the same input on the full-precision path, `inputs` itself where nothing before
    the group is quantized; None unless the method's spec asks for it and for groups.
    """
    with finite_checks() as checks:
        if block.of_group:
            _observe_group(block.groups[0], batches, observe, checks)
        else:
            _observe_block(block, batches, observe, checks)


def _observe_group(names: tuple[str, ...], batches: Batches, observe: PairedObserver, checks: FiniteChecks) -> None:
    for batch in batches:
        inputs = _checked(batch.hidden_states, names[0], batch, checks)
        reference = batch.reference
        if reference is not None:
            same = reference is batch.hidden_states
            reference = inputs if same else _checked(reference, names[0], batch, checks)
        observe(names, inputs, reference, batch.weights)


def _observe_block(block: Block, batches: Batches, observe: PairedObserver, checks: FiniteChecks) -> None:
    batch: Batch

    def watch(names: tuple[str, ...]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
            observe(names, _checked(args[0].detach(), names[0], batch, checks), None, batch.weights)

        return hook

    handles = [block.layers[group[0]].register_forward_pre_hook(watch(group)) for group in block.groups]
    try:
        for batch in batches:
            block.run(batch)
    finally:
        for handle in handles:
            handle.remove()


def _checked(inputs: Tensor, layer: str, batch: Batch, checks: FiniteChecks) -> Tensor:
    """The inputs (..., K) of a layer as (tokens, K)."""
    checks.add(inputs, f"{layer}: its input is NaN or infinite for the sample {batch.name}")
    return inputs.flatten(0, -2)
