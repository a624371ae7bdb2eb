"""What is foreseen of GPTQ's codes against the codes themselves, solved for every candidate."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hyocr_plugin_awq.columns import full_range_grid
from hyocr_plugin_awq.config import AwqConfig
from hyocr_plugin_awq.expected import SAMPLED, damped_pivots, expected_best, squared_ranges
from hyocr_plugin_awq.layers import solving_factor
from hyocr_plugin_awq.scales import Candidate, candidates
from torch import Tensor

from hyocr_core.kit import Factor, decode, factorize, quantize_columns


def inputs_of(tokens: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The magnitudes, (K,), and the Hessian of correlated inputs, some channels far stronger than others."""
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, size // 4, generator=gen) @ torch.randn(size // 4, size, generator=gen)
    x = (x + 0.3 * torch.randn(tokens, size, generator=gen)) * torch.randn(size, generator=gen).exp()
    return x.abs().mean(0), (2 / tokens * x.double().T @ x.double()).float()


def factor_of(hessian: Tensor) -> Factor:
    factor = solving_factor(hessian)
    assert factor is not None
    return factor


def solved_loss(columns: Tensor, scales: Tensor, hessian: Tensor, config: AwqConfig) -> float:
    """tr(E^T H E) of the codes that GPTQ finds for the scaled columns."""
    folded, own = columns * scales[:, None], hessian / scales[:, None] / scales
    grid = full_range_grid(folded, torch.float32, config)
    codes = quantize_columns(folded, factor_of(own), grid, 128)
    errors = ((decode(codes, grid) - folded) / scales[:, None]).double()
    return (errors * (hessian.double() @ errors)).sum().item()


STORED: tuple[dict[str, Any], ...] = ({}, {"zero_point": False}, {"bits": 8})
OPTIONS = [{"group_size": size, **stored} for size, stored in itertools.product((32, 128, -1), STORED)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_chosen_scales_are_those_with_which_codes_of_gptq_lose_least(options: dict[str, Any], seed: int) -> None:
    config, channels = AwqConfig(**options), torch.arange(128)
    gen = torch.Generator().manual_seed(seed)
    columns = 0.05 * torch.randn(128, 96, generator=gen)
    magnitudes, hessian = inputs_of(600, 128, seed)
    found = candidates(magnitudes, columns, channels, 128, config)
    chosen = expected_best(found, columns, channels, torch.float32, hessian, factor_of(hessian), config)
    losses = [solved_loss(columns, item.scales, hessian, config) for item in found]
    lost = losses[next(index for index, item in enumerate(found) if item is chosen)]
    assert lost < 1.15 * min(losses)
    assert lost < 0.9 * max(losses)


@pytest.mark.parametrize("ordered", [True, False])
def test_pivots_of_divided_inputs_are_those_of_their_own_hessian(ordered: bool) -> None:
    _, hessian = inputs_of(400, 48)
    scales = torch.rand(3, 48, generator=torch.Generator().manual_seed(1)) + 0.5
    order = torch.argsort(hessian.diagonal(), descending=True) if ordered else torch.arange(48)
    factor = factorize(hessian[order][:, order], 1e-6)
    assert factor is not None
    if ordered:
        factor = Factor(factor.feedback, factor.pivots, factor.damping, order)
    for row, found in zip(scales, damped_pivots(scales, hessian.diagonal(), factor), strict=True):
        own = factorize((hessian / row[:, None] / row)[order][:, order], 1e-6)
        assert own is not None
        assert found[order].tolist() == pytest.approx(own.pivots.tolist(), rel=0.02)


def test_each_candidate_has_the_damping_of_its_own_diagonal() -> None:
    diagonal = torch.tensor([1000.0, 3.0, 1.0, 0.0])
    scales = torch.tensor([[1.0, 1.0, 1.0, 1.0], [10.0, 1.0, 1.0, 0.5]])
    found = damped_pivots(scales, diagonal, factor_of(torch.diag(diagonal)))
    divided = diagonal / scales**2
    assert torch.allclose(found, divided + 0.01 * divided.mean(1, keepdim=True), rtol=1e-4)


@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("group_size", [32, -1])
def test_ranges_are_those_of_the_grids(zero_point: bool, group_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = AwqConfig(group_size=group_size, zero_point=zero_point)
    gen = torch.Generator().manual_seed(2)
    columns, scales = torch.randn(96, 13, generator=gen), torch.rand(4, 96, generator=gen) + 0.5
    columns[:32] = columns[:32].abs() + 1
    found = squared_ranges(columns, scales, config)
    for row, own in zip(scales, found, strict=True):
        steps = full_range_grid(columns * row[:, None], torch.float32, config).scales
        expected = (15 * steps).square().sum(1).repeat_interleave(96 // len(steps))
        assert own.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    monkeypatch.setattr("hyocr_plugin_awq.columns.PIECE", 32 * 5)
    assert torch.allclose(squared_ranges(columns, scales, config), found)


def test_a_group_of_zeros_has_no_range_and_no_scales_are_better_than_none() -> None:
    config, channels = AwqConfig(group_size=32), torch.arange(32)
    columns, hessian = torch.zeros(32, 8), torch.eye(32)
    assert squared_ranges(columns, torch.ones(1, 32), config).eq(0).all()
    found = candidates(torch.rand(32), columns, channels, 32, config)
    assert expected_best(found, columns, channels, torch.bfloat16, hessian, factor_of(hessian), config) is found[0]


def test_a_wide_layer_is_judged_by_outputs_from_all_over_it() -> None:
    config = AwqConfig(group_size=32)
    columns = torch.randn(32, 3 * SAMPLED, generator=torch.Generator().manual_seed(2))
    columns[:, SAMPLED:] *= 5
    scales = torch.ones(1, 32)
    whole = torch.cat([squared_ranges(columns[:, start::3].contiguous(), scales, config) for start in range(3)]).sum(0)
    assert (3 * squared_ranges(columns, scales, config))[0].tolist() == pytest.approx(whole.tolist(), rel=0.05)


def test_scales_with_which_weights_overflow_are_never_chosen() -> None:
    channels, config = torch.arange(32), AwqConfig(group_size=32)
    columns, hessian = torch.ones(32, 2 * SAMPLED), torch.eye(32)
    hessian[0, 0] = 1e6
    # Weak, but for an output that no range is taken of.
    columns[0], columns[0, 1] = 0.01, 20000.0
    found = [Candidate(None, torch.ones(32)), Candidate(1.0, torch.cat((torch.tensor([30.0]), torch.ones(31))))]
    best = {
        dtype: expected_best(found, columns, channels, dtype, hessian, factor_of(hessian), config)
        for dtype in (torch.float16, torch.bfloat16)
    }
    assert best == {torch.float16: found[0], torch.bfloat16: found[1]}
