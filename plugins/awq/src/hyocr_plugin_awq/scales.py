"""The scales that are tried for one smoothing group (Lin et al. 2023, arXiv 2306.00978, section 3.2).

A weight that is scaled up before rounding, its input scaled down to match, loses less of what matters: s = x^r, x the
mean magnitude of the channel's input, and r between no scaling and all of it. With duo scaling s = x^r / w^(1-r), w the
mean magnitude of the channel's weights relative to the largest of their group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_plugin_awq.config import AwqConfig

SMALLEST = 1e-4
"""Magnitudes are at least this share of the largest, so that scales of channels nothing reached stay within reason."""


@dataclass(frozen=True)
class Candidate:
    """ratio: r; None for no scaling. scales: (source channels,) fp32."""

    ratio: float | None
    scales: Tensor


def candidates(
    magnitudes: Tensor, columns: Tensor, channels: Tensor, source_channels: int, config: AwqConfig
) -> list[Candidate]:
    """No scaling, then r = i / n_grid.

    magnitudes: (K,), mean |x|. columns: (K, N) fp32, the weights of all targets side by side.
    channels: (K,) int64, the source channel of each; channels that share one get the average of their magnitudes.
    """
    found = [Candidate(None, torch.ones(source_channels, device=columns.device))]
    inputs = _per_source(magnitudes, channels, source_channels)
    weights = _per_source(weight_magnitudes(columns, config.group_size), channels, source_channels)
    for step in range(0 if config.duo_scaling else 1, config.n_grid + 1):
        ratio = step / config.n_grid
        scales = inputs**ratio
        if config.duo_scaling:
            scales = scales / weights ** (1 - ratio)
        found.append(Candidate(ratio, scales / (scales.max() * scales.min()).sqrt()))
    return found


def weight_magnitudes(columns: Tensor, group_size: int) -> Tensor:
    """Return, for each input channel (K,), the mean of |w| / max |w| over the outputs, the maximum over its group."""
    means = torch.empty(len(columns), device=columns.device)
    size = len(columns) if group_size == -1 else group_size
    for start in range(0, len(columns), size):
        group = columns[start : start + size].abs()
        largest = group.amax(0)
        means[start : start + size] = (group / torch.where(largest == 0, 1, largest)).mean(1)
    return means


def _per_source(values: Tensor, channels: Tensor, source_channels: int) -> Tensor:
    """Average `values` (K,) over the channels that share a source: (source channels,), bounded from below."""
    counts = torch.bincount(channels, minlength=source_channels)
    sums = torch.zeros(source_channels, device=values.device).index_add_(0, channels, values)
    means = sums / counts.clamp(min=1)
    if means.max() <= 0:
        return torch.ones_like(means)
    # A source channel that feeds nothing has no scale of its own.
    return torch.where(counts == 0, 1, means).clamp_(min=SMALLEST * means.max().item())
