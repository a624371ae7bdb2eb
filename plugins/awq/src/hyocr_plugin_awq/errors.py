"""What errors of weights do to outputs: tr(E^T H E) for columns of errors E (K, N) and H = 2 / n * sum of w x x^T.

Up to the factor 2 / n it is the squared error of the outputs, summed over all calibration tokens, each with its weight
w, and outputs, so that no token is needed to compare candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

STRIPE = 512
"""Rows of the triangle multiplied at once."""

MEASURED_OUTPUTS = 512
"""Outputs per layer, evenly spread, that its error metrics are taken from: enough to be right within percents."""


def halved(hessian: Tensor) -> Tensor:
    """Return L, (K, K) bf16 lower triangular, with L + L^T = H for a symmetric H."""
    lower = hessian.tril()
    lower.diagonal().mul_(0.5)
    return lower.bfloat16()


def output_energy(columns: Tensor, half: Tensor) -> float:
    """Return tr(C^T H C) of `columns` C (K, N), multiplied in bf16: good to about three digits.

    half: `halved` of H; only what is left of its diagonal's end is multiplied.
    """
    columns = columns.bfloat16()
    total = 0.0
    for start in range(0, len(half), STRIPE):
        stop = start + STRIPE
        product = half[start:stop, :stop] @ columns[:stop]
        total += product.mul_(columns[start:stop]).sum(dtype=torch.float32).item()
    return 2 * total


def relative_error(columns: Tensor, values: Tensor, hessian: Tensor) -> float:
    """Return sqrt(tr(E^T H E) / tr(W^T H W)), E = W - V, for `columns` W and what they were rounded to, V: (K, N)."""
    half = halved(hessian)
    whole = output_energy(columns, half)
    return max(output_energy(columns - values, half) / whole, 0.0) ** 0.5 if whole > 0 else 0.0


def measured(outputs: int) -> slice:
    """Which of a layer's outputs are measured."""
    return slice(None, None, -(-outputs // MEASURED_OUTPUTS))
