"""What GPTQ's codes will lose with each candidate, without a code being chosen.

GPTQ's loss is sum_k D_k r_k^2, D the pivots of the damped Hessian and r_k the error of rounding channel k once the
errors before it are made up for (Chee et al. 2023, arXiv 2307.13304). Spread evenly over a step of the grid, r_k^2 is a
twelfth of the step's square. Steps follow from the ranges of groups, so that one factorization is enough for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit import Factor, one_thread
from hyocr_plugin_awq.columns import pieces

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_awq.config import AwqConfig
    from hyocr_plugin_awq.scales import Candidate

SAMPLED = 512
"""Outputs, evenly spread, that are at least looked at."""

ROOM = 2.0
"""Times the largest weight that a dtype must hold, so that the grid that is rounded to it does not overflow."""


def expected_best(
    found: Sequence[Candidate],
    columns: Tensor,
    channels: Tensor,
    dtype: torch.dtype,
    hessian: Tensor,
    factor: Factor,
    config: AwqConfig,
) -> Candidate:
    """Return the candidate with the least loss to expect of GPTQ's codes, the first of equals.

    columns: (K, N) fp32, of all targets. channels: (K,), the source channel of each. hessian: (K, K) fp32, and its
    factor, whose order of channels stands for that of all candidates.
    """
    scales = torch.stack([item.scales[channels] for item in found])
    losses = (damped_pivots(scales, hessian.diagonal(), factor) * squared_ranges(columns, scales, config)).sum(1)
    fits = torch.isfinite((columns.abs().amax(1) * scales * ROOM).to(dtype)).all(1)
    return found[int(torch.where(fits, losses, torch.inf).argmin())]


def damped_pivots(scales: Tensor, diagonal: Tensor, factor: Factor) -> Tensor:
    """The pivots of the Hessian of inputs divided by each row of `scales`, (candidates, K), with their own damping.

    diagonal: (K,) of the undivided Hessian, to which `factor` belongs. Damping is a share of the mean diagonal, which
    a few strong channels make up until they are scaled down: taken out, and what it is after division put in.
    """
    pivots = factor.pivots
    if factor.order is not None:
        pivots = torch.empty_like(pivots).index_copy_(0, factor.order, pivots)
    own = (pivots - factor.damping * diagonal.mean()).clamp_(min=0)
    squares = scales.square()
    return own / squares + factor.damping * (diagonal / squares).mean(1, keepdim=True)


def squared_ranges(columns: Tensor, scales: Tensor, config: AwqConfig) -> Tensor:
    """The sum of squared ranges over outputs, (candidates, K), of the group that each scaled channel is in.

    columns: (K, N). scales: (candidates, K).
    """
    some = columns[:, :: max(columns.shape[1] // SAMPLED, 1)].contiguous()
    sums = torch.zeros_like(scales)
    with one_thread():
        for _, rows, outputs in pieces(some, config.group_size):
            piece = some[rows, outputs]
            for row, own in zip(sums[:, rows], scales[:, rows], strict=True):
                row += _ranges(piece * own[:, None], config.sym).square_().sum()
    return sums


def _ranges(piece: Tensor, sym: bool) -> Tensor:
    """What the grid of each output of a piece (g, n), which is one group, spans: (n,)."""
    low, high = piece.amin(0).clamp_(max=0), piece.amax(0).clamp_(min=0)
    return 2 * torch.maximum(-low, high) if sym else high - low
