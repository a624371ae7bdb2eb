"""Which candidate scales keep the outputs best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

from hyocr_core import Batch, Batches, Block, Smoothing
from hyocr_core.kit import halved, output_energy, total
from hyocr_plugin_awq.columns import smoothed_errors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hyocr_plugin_awq.config import AwqConfig
    from hyocr_plugin_awq.scales import Candidate

SAMPLED = 512
"""Outputs, evenly spread, that candidates are compared by at first: their losses are then right within percents."""

FINALISTS = 4
"""Candidates that are compared by all outputs."""

Loss = Callable[["Tensor"], float]
"""Of the errors, (K, N), that quantizing makes to all targets side by side."""


@dataclass(frozen=True)
class Call:
    """One call of a module, with everything it was given, its output, and how much its tokens count: see `Batch`."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Tensor
    weights: Tensor | None


def best_candidate(
    found: Sequence[Candidate], columns: Tensor, channels: Tensor, dtype: torch.dtype, loss: Loss, config: AwqConfig
) -> Candidate:
    """Return the candidate whose quantized weights have the least loss, the first of equals.

    columns: (K, N) fp32, of all targets. channels: (K,), the source channel of each.
    """
    # A loss of NaN, from scales with which the weights overflow, is never the least.
    losses = [loss(smoothed_errors(columns, item.scales[channels], dtype, config)) for item in found]
    return found[_least(losses, 1)[0]]


def likely_best(
    found: Sequence[Candidate], columns: Tensor, channels: Tensor, dtype: torch.dtype, loss: Loss, config: AwqConfig
) -> list[Candidate]:
    """Return the candidates, in their order, of which one has the least loss: the best by some of the outputs.

    loss: one that takes the errors of any outputs. columns, channels: as of `best_candidate`.
    """
    step = columns.shape[1] // SAMPLED
    if step <= 1:
        return list(found)
    some = columns[:, ::step].contiguous()
    losses = [loss(smoothed_errors(some, item.scales[channels], dtype, config)) for item in found]
    return [found[index] for index in sorted(_least(losses, FINALISTS))]


def _least(losses: Sequence[float], count: int) -> list[int]:
    """Where the least losses are, the first of equals first; the first of all if all are NaN."""
    return sorted(range(len(losses)), key=lambda index: (losses[index] != losses[index], losses[index]))[:count]


def linear_loss(hessian: Tensor) -> Loss:
    """The squared error of the targets' own outputs over all tokens, up to a factor; no forward pass is needed."""
    half = halved(hessian)
    return lambda errors: output_energy(errors, half)


def module_loss(block: Block, batches: Batches, smoothing: Smoothing, columns: Tensor) -> Loss:
    """The squared error of the inspected module's output over all samples, each with its own positions and mask, every
    token with its weight.

    Keeps the module's inputs and outputs of all samples.
    """
    module = smoothing.inspected
    calls = _record_calls(block, batches, module)
    paths = {id(part): path for path, part in module.named_modules()}
    layers = [block.layers[name] for name in smoothing.targets]
    keys = [f"{paths[id(layer)]}.weight" for layer in layers]

    def loss(errors: Tensor) -> float:
        changed = torch.split((columns + errors).T.to(layers[0].weight.dtype), [len(layer.weight) for layer in layers])
        weights = dict(zip(keys, changed, strict=True))
        own = sum(_squared_error(module, weights, call) for call in calls)
        return total(batches, torch.tensor(own, dtype=torch.float64)).item()

    return loss


def _record_calls(block: Block, batches: Batches, module: nn.Module) -> list[Call]:
    calls: list[Call] = []
    batch: Batch

    def record(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        calls.append(Call(args, kwargs, _first(output), batch.weights))

    handle = module.register_forward_hook(record, with_kwargs=True)
    try:
        for batch in batches:
            block.run(batch)
    finally:
        handle.remove()
    return calls


def _squared_error(module: nn.Module, weights: Mapping[str, Tensor], call: Call) -> float:
    output = _first(functional_call(module, dict(weights), call.args, dict(call.kwargs)))
    errors = (output.float() - call.output.float()).square_()
    if call.weights is not None:
        errors.mul_(call.weights[:, None])
    return errors.sum().item()


def _first(output: Any) -> Tensor:
    """An attention returns its weights too."""
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first
