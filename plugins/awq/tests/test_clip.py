"""The clip search against brute force over every ratio in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hyocr_plugin_awq.clip import RATIOS, clipped_grid
from hyocr_plugin_awq.columns import full_range_grid, rounded
from hyocr_plugin_awq.config import AwqConfig
from torch import Tensor


def problem(inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    """Columns with a few large weights in each group, and a Hessian of correlated inputs."""
    gen = torch.Generator().manual_seed(inputs + outputs)
    columns = 0.05 * torch.randn(inputs, outputs, generator=gen)
    columns[torch.rand(inputs, outputs, generator=gen) < 0.02] *= 4
    x = torch.randn(200, inputs // 2, generator=gen) @ torch.randn(inputs // 2, inputs, generator=gen)
    return columns, x.T @ x / 100


def group_error(columns: Tensor, values: Tensor, hessian: Tensor, size: int) -> Tensor:
    """d^T H d of every group of every output, (K / size, N) fp64."""
    errors = (columns.double() - values.double()).view(-1, size, columns.shape[1])
    blocks = torch.stack([hessian[i : i + size, i : i + size] for i in range(0, len(columns), size)]).double()
    return torch.einsum("gkn,gkl,gln->gn", errors, blocks, errors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("options", "inputs", "outputs"),
    [
        ({"group_size": 32}, 96, 40),
        ({"group_size": 128, "zero_point": False}, 256, 7),
        ({"group_size": 32, "bits": 8}, 64, 1),
        ({"group_size": -1}, 72, 33),
    ],
)
def test_each_group_gets_the_ratio_with_the_least_error(
    options: dict[str, Any], inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    config = AwqConfig(**options)
    size = inputs if config.group_size == -1 else config.group_size
    columns, hessian = problem(inputs, outputs)
    columns = columns.to(dtype).float()
    tried = [
        group_error(columns, rounded(columns, full_range_grid(columns * ratio, dtype, config)), hessian, size)
        for ratio in RATIOS
    ]
    best = torch.stack(tried).amin(0)
    found = group_error(columns, rounded(columns, clipped_grid(columns, hessian, dtype, config)), hessian, size)
    assert torch.allclose(found, best, rtol=1e-3, atol=1e-9)
    if config.bits == 4:
        assert (best < tried[0]).any()


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, hessian = problem(96, 40)
    config = AwqConfig(group_size=32)
    whole = clipped_grid(columns, hessian, torch.bfloat16, config)
    monkeypatch.setattr("hyocr_plugin_awq.columns.PIECE", 32 * 7)
    cut = clipped_grid(columns, hessian, torch.bfloat16, config)
    assert torch.equal(whole.scales, cut.scales)
    assert torch.equal(whole.zeros, cut.zeros)


def test_without_a_reason_to_clip_the_range_is_full() -> None:
    config = AwqConfig(group_size=32)
    columns = torch.arange(16.0).repeat(2)[:, None].repeat(1, 5)  # on the grid already
    grid = clipped_grid(columns, torch.eye(32), torch.bfloat16, config)
    assert torch.equal(grid.scales, full_range_grid(columns, torch.bfloat16, config).scales)
    assert torch.equal(rounded(columns, grid), columns)
