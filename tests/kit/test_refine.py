"""Refitted scales and codes against brute force, and the promise that neither makes the error larger."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hyocr_core.kit import Grid, decode, descend, fit_grid, refine, refit_scales, round_to_nearest, solve
from tests.kit.problems import hessian_of, inputs_of, weights_of

CASES = [(4, 32, 96, 24, True), (4, 32, 96, 24, False), (4, -1, 64, 9, True), (8, 64, 128, 5, True)]


def solved(bits: int, group_size: int, channels: int, outputs: int, sym: bool) -> tuple[Tensor, Tensor, Tensor, Grid]:
    """Columns, Hessian, GPTQ's codes and their grid."""
    columns, hessian = weights_of(channels, outputs), hessian_of(inputs_of(channels))
    hessian.diagonal().add_(0.01 * hessian.diagonal().mean())
    grid = fit_grid(columns, torch.bfloat16, bits=bits, group_size=group_size, sym=sym, mse=False)
    solution = solve(columns, hessian, grid, damp_percent=1e-6, block_size=32, desc_act=True)
    assert solution is not None
    return columns, hessian, solution.codes, grid


def losses(columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> Tensor:
    """e^T H e of each output, fp64, with exact products of codes and scales."""
    steps = grid.scales.double().repeat_interleave(len(columns) // len(grid.scales), 0)
    zeros = grid.zeros.double().repeat_interleave(len(columns) // len(grid.scales), 0)
    errors = columns.double() - (codes.double() - zeros) * steps
    return (errors * (hessian.double() @ errors)).sum(0)


@pytest.mark.parametrize("case", CASES)
def test_refitted_scales_never_lose_and_mostly_gain(case: tuple[int, int, int, int, bool]) -> None:
    columns, hessian, codes, grid = solved(*case)
    before = losses(columns, codes, grid, hessian)
    found = refit_scales(columns, codes, grid, hessian)
    after = losses(columns, codes, found, hessian)
    assert (after <= before * (1 + 1e-9)).all()
    # Eight bits are finer than the rounding of the scales to bf16.
    assert (after < before).double().mean() > (0.5 if case[0] == 4 else -1)
    assert found.scales.dtype == grid.scales.dtype
    assert (found.scales > 0).all()


def test_refitted_scales_are_those_of_least_squares() -> None:
    columns, hessian, codes, grid = solved(4, 32, 96, 24, True)
    exact = Grid(grid.scales.float(), grid.zeros, grid.max_code)
    found = refit_scales(columns, codes, exact, hessian)
    root = torch.linalg.cholesky(hessian.double(), upper=True)
    for output in range(24):
        steps = codes[:, output].double() - 8
        basis = torch.stack([torch.where(torch.arange(96) // 32 == group, steps, 0) for group in range(3)], 1)
        wanted = torch.linalg.lstsq(root @ basis, root @ columns[:, output : output + 1].double()).solution[:, 0]
        torch.testing.assert_close(found.scales[:, output].double(), wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("block_size", [1, 7, 128])
@pytest.mark.parametrize("case", CASES)
def test_descent_never_loses(case: tuple[int, int, int, int, bool], block_size: int) -> None:
    columns, hessian, _, grid = solved(*case)
    codes = round_to_nearest(columns, grid)
    before = losses(columns, codes, grid, hessian)
    found = descend(columns, codes, grid, hessian, block_size)
    after = losses(columns, found, grid, hessian)
    assert (after <= before * (1 + 1e-6)).all()
    assert after.sum() < 0.7 * before.sum()


def test_each_code_of_a_descent_that_came_to_rest_is_the_best_with_the_others_as_they_are() -> None:
    columns, hessian, codes, grid = solved(4, 32, 96, 6, True)
    for _ in range(40):
        codes = descend(columns, codes, grid, hessian, 32)
    best = losses(columns, codes, grid, hessian)
    for channel in range(96):
        for step in (-1, 1):
            other = codes.clone()
            other[channel] = (other[channel].int() + step).clamp(0, 15).to(torch.uint8)
            assert (losses(columns, other, grid, hessian) >= best * (1 - 1e-6)).all()


def test_a_group_of_zeros_keeps_its_scale() -> None:
    columns, hessian = weights_of(96, 4), hessian_of(inputs_of(96))
    columns[32:64] = 0
    grid = fit_grid(columns, torch.bfloat16, bits=4, group_size=32, sym=True, mse=False)
    codes, refined = refine(columns, round_to_nearest(columns, grid), grid, hessian, 0.01, 32)
    assert (refined.scales > 0).all()
    assert torch.isfinite(refined.scales).all()
    assert decode(codes, refined).isfinite().all()


def test_rounds_go_on_gaining_and_change_no_argument() -> None:
    columns, hessian, codes, grid = solved(4, 32, 96, 24, True)
    kept = codes.clone(), grid.scales.clone(), hessian.clone()
    found = [losses(columns, codes, grid, hessian).sum().item()]
    at, own = codes, grid
    for _ in range(3):
        at, own = refine(columns, at, own, hessian, 0.0, 32)
        found.append(losses(columns, at, own, hessian).sum().item())
    assert found == sorted(found, reverse=True)
    assert found[1] < 0.97 * found[0]
    assert all(torch.equal(*pair) for pair in zip(kept, (codes, grid.scales, hessian), strict=True))
