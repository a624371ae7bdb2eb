"""Small fixed problems for the solver and what goes round it."""

from __future__ import annotations

import torch
from torch import Tensor


def inputs_of(channels: int, tokens: int = 400, seed: int = 0) -> Tensor:
    """Strongly correlated inputs (tokens, K) fp32 with outlier channels."""
    gen = torch.Generator().manual_seed(seed)
    mix = torch.randn(max(channels // 4, 1), channels, generator=gen)
    x = torch.randn(tokens, len(mix), generator=gen) @ mix + 0.3 * torch.randn(tokens, channels, generator=gen)
    x[:, : max(channels // 16, 1)] *= 8
    return x


def weights_of(channels: int, outputs: int, seed: int = 0) -> Tensor:
    """Columns (K, N) fp32 with bf16 values."""
    gen = torch.Generator().manual_seed(seed + 1)
    return (0.05 * torch.randn(channels, outputs, generator=gen)).bfloat16().float()


def hessian_of(inputs: Tensor) -> Tensor:
    """(K, K) fp32."""
    return 2 / len(inputs) * inputs.T @ inputs
