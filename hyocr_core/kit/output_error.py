"""What errors of weights do to outputs: tr(E^T H E) for columns of errors E (K, N) and H = 2 / n * sum of w x x^T.

Up to the factor 2 / n it is the squared error of the outputs, summed over all calibration tokens, each with its weight
w, and outputs, so that no token is needed to compare candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch

from hyocr_core.contract.types import Layer, Stats
from hyocr_core.errors import RunError
from hyocr_core.kit.checks import is_finite

if TYPE_CHECKING:
    from torch import Tensor

STRIPE = 512
"""Rows of the triangle multiplied at once."""

MEASURED_OUTPUTS = 128
"""Outputs per layer, evenly spread, that its error metrics are taken from: enough to be right within percents."""


def checked_hessian(layers: Sequence[Layer], stats: Stats | None) -> Tensor:
    """The (K, K) Hessian of layers that share statistics; raises RunError naming the layer when it cannot be used."""
    name, inputs = layers[0].name, layers[0].weight.shape[1]
    if stats is None:
        raise RunError(f"{name}: needs calibration statistics and was given none")
    hessian = stats["hessian"].to(layers[0].weight.device)
    if hessian.shape != (inputs, inputs):
        raise RunError(f"{name}: the Hessian is {tuple(hessian.shape)}, its inputs have {inputs} channels")
    if not is_finite(hessian):
        raise RunError(f"{name}: the Hessian of its inputs holds NaN or infinite values")
    return hessian


def halved(hessian: Tensor) -> Tensor:
    """Return L, (K, K) bf16 lower triangular, with L + L^T = H for a symmetric H."""
    lower = hessian.tril()
    lower.diagonal().mul_(0.5)
    return lower.bfloat16()


def output_energy(columns: Tensor, half: Tensor) -> float:
    """Return tr(C^T H C) of `columns` C (K, N), multiplied in bf16: good to about three digits.

    half: `halved` of H; only what is left of its diagonal's end is multiplied.
    """
    return _energies([columns], half)[0]


def _energies(matrices: Iterable[Tensor], half: Tensor) -> list[float]:
    """The energies of several matrices, for which the host waits once."""
    parts = torch.stack([_energy_parts(matrix.bfloat16(), half) for matrix in matrices])
    return [2 * sum(part) for part in parts.tolist()]


def _energy_parts(columns: Tensor, half: Tensor) -> Tensor:
    """Half the energy, stripe by stripe, (stripes,) fp32."""
    parts = []
    for start in range(0, len(half), STRIPE):
        stop = start + STRIPE
        product = half[start:stop, :stop] @ columns[:stop]
        parts.append(product.mul_(columns[start:stop]).sum(dtype=torch.float32))
    return torch.stack(parts)


def relative_errors(columns: Tensor, rounded: Sequence[Tensor], hessian: Tensor) -> list[float]:
    """Return sqrt(tr(E^T H E) / tr(W^T H W)), E = W - V, for columns W and each V that they were rounded to: (K, N)."""
    half = halved(hessian)
    whole, *lost = _energies(chain([columns], (columns - values for values in rounded)), half)
    return [max(each / whole, 0.0) ** 0.5 if whole > 0 else 0.0 for each in lost]


def measured(outputs: int) -> slice:
    """Which of a layer's outputs are measured."""
    return slice(None, None, -(-outputs // MEASURED_OUTPUTS))
