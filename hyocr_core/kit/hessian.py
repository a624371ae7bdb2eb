"""The second moments of layers' inputs, H = 2 / n * sum of w x x^T over the n calibration tokens, w a token's weight.

The output error of a linear over all those tokens is tr(dW H dW^T) (Frantar et al. 2022, arXiv 2210.17323). Where the
full-precision path is known too, D = 2 / n * sum of w x (y - x)^T goes beside it, y the same input there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from hyocr_core.contract.types import Batches, Block, Collected, Stat, Stats
from hyocr_core.errors import RunError
from hyocr_core.kit.checks import is_finite
from hyocr_core.kit.inputs import observe_paired
from hyocr_core.kit.threads import exact_matmul

if TYPE_CHECKING:
    from torch import Tensor

STRIPE = 256
"""Rows of the symmetric sum computed at once; only those left of the diagonal's end are."""


def collect_hessians(block: Block, batches: Batches) -> dict[str, Collected]:
    """Return {"hessian": (K, K) fp32, "tokens": ()}, both sums, for each layer; layers with one input share one object.

    hessian: the lower half of the sum of w x x^T; `settle_hessians` makes the Hessian of it. For `calibrate`. Where the
    batches bring the inputs of the full-precision path, also what `full_precision_targets` needs, both fp32 sums:
    "drift" (K, K) of w x (y - x)^T, or for a single layer of fewer outputs than inputs, which costs less,
    "output_drift" (K, N) of w x (y - x)^T W.
    """
    sums: dict[tuple[str, ...], Stats] = {}

    def observe(names: tuple[str, ...], inputs: Tensor, reference: Tensor | None, weights: Tensor | None) -> None:
        if names not in sums:
            sums[names] = no_moments(inputs.shape[1], inputs.device)
        add_moments(sums[names], inputs, weights)
        if reference is not None and reference is not inputs:
            _add_drift(sums[names], inputs, reference - inputs, weights, [block.layers[name] for name in names])

    observe_paired(block, batches, observe)
    return by_layer(block.groups, {names: summed(own) for names, own in sums.items()})


def no_moments(size: int, device: torch.device) -> Stats:
    """Return `hessian` and `tokens` of no token, of inputs with `size` channels; for `add_moments`."""
    return {
        "hessian": torch.zeros(size, size, dtype=torch.float32, device=device),
        "tokens": torch.zeros((), dtype=torch.int64),
    }


def add_moments(sums: Stats, inputs: Tensor, weights: Tensor | None = None) -> None:
    """Add tokens to what `no_moments` began, in place; inputs, weights: see `add_outer`."""
    add_outer(sums["hessian"], inputs, weights)
    sums["tokens"] += len(inputs)


def by_layer(groups: Iterable[tuple[str, ...]], collected: Mapping[tuple[str, ...], Collected]) -> dict[str, Collected]:
    """Statistics of groups as those of their layers, by name. Raises RunError for a group that no token reached."""
    for names in groups:
        if names not in collected:
            raise _unreached(names[0])
    return {name: collected[names] for names in groups for name in names}


def summed(tensors: Stats) -> Collected:
    """Say of all these tensors that they are sums over tokens."""
    return {name: Stat(tensor, "sum") for name, tensor in tensors.items()}


def settle_hessians(stats: Mapping[str, Stats]) -> None:
    """Make the Hessian of each layer's sum, in place, once where layers share it. For `settle`.

    Raises RunError naming a layer that no token reached, or whose sum overflowed.
    """
    done: set[int] = set()
    for name, own in stats.items():
        if id(own) not in done:
            done.add(id(own))
            _settle(name, own)


def add_outer(total: Tensor, inputs: Tensor, weights: Tensor | None = None) -> None:
    """Add the sum of w x x^T, (K, K), over the rows x of `inputs` to the lower half (whole stripes) of `total` fp32.

    inputs: (tokens, K). weights: (tokens,), not negative and of few different values; None: all 1.
    """
    for weight, (rows,) in _by_weight(weights, inputs):
        values = rows.float()
        with exact_matmul(inputs.dtype):
            for start in range(0, len(total), STRIPE):
                stop = start + STRIPE
                total[start:stop, :stop].addmm_(values[:, start:stop].T, values[:, :stop], alpha=weight)


def add_cross(total: Tensor, inputs: Tensor, others: Tensor, weights: Tensor | None = None) -> None:
    """Add the sum of w x z^T to `total` (K, M) fp32, x the rows of `inputs` (tokens, K), z of `others` (tokens, M)."""
    for weight, (rows, paired) in _by_weight(weights, inputs, others):
        with exact_matmul(inputs.dtype):
            total.addmm_(rows.float().T, paired.float(), alpha=weight)


def _add_drift(
    sums: Stats, inputs: Tensor, changes: Tensor, weights: Tensor | None, layers: Sequence[nn.Linear]
) -> None:
    name = "drift"
    if len(layers) == 1 and layers[0].out_features < layers[0].in_features:
        name, changes = "output_drift", nn.functional.linear(changes, layers[0].weight.to(changes.dtype))
    if name not in sums:
        sums[name] = torch.zeros(inputs.shape[1], changes.shape[1], dtype=torch.float32, device=inputs.device)
    add_cross(sums[name], inputs, changes, weights)


def _by_weight(weights: Tensor | None, *matrices: Tensor) -> Iterator[tuple[float, list[Tensor]]]:
    """Rows of one weight together: scaled, they would be no values of their dtype, which is what makes sums fast."""
    if weights is None:
        yield 1, list(matrices)
        return
    for weight in torch.unique(weights).tolist():
        yield weight, [matrix[weights == weight] for matrix in matrices]


def _settle(name: str, stats: Stats) -> None:
    """Turn the lower half of the sum into the Hessian, and what goes with it, in place."""
    hessian, tokens = stats["hessian"], int(stats["tokens"].item())
    if tokens == 0:
        raise _unreached(name)
    for start in range(0, len(hessian), STRIPE):
        stop = start + STRIPE
        hessian[start:stop, stop:] = hessian[stop:, start:stop].T
    sums = [stats[each] for each in ("hessian", "drift", "output_drift") if each in stats]
    for each in sums:
        each.mul_(2 / tokens)
    if not all(map(is_finite, sums)):
        raise RunError(f"{name}: its inputs are so large that their squares overflow float32")


def _unreached(name: str) -> RunError:
    return RunError(f"{name}: no calibration token reached it; give other samples or ignore the layer")
