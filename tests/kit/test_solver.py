"""The solver against the paper's own algorithm, written out literally in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hyocr_core.kit.grid import Grid, decode, fit_grid, round_to_nearest
from hyocr_core.kit.solver import damped_factor, factorize, solve
from tests.kit.problems import hessian_of, inputs_of, weights_of


def paper(columns: Tensor, hessian: Tensor, grid: Grid, damp: float, order: list[int]) -> Tensor:
    """Algorithm 1 of arXiv 2210.17323 with the Cholesky factor of the inverse, one column after the other."""
    size = len(columns) // len(grid.scales)
    w = columns.double().T[:, order].clone()
    h = hessian.double()[order][:, order].clone()
    h += torch.eye(len(h), dtype=torch.float64) * damp * h.diagonal().mean()
    factor = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    codes = torch.empty(columns.shape, dtype=torch.uint8)
    for i, channel in enumerate(order):
        scale, zero = grid.scales[channel // size].double(), grid.zeros[channel // size].double()
        code = torch.clamp(torch.round(w[:, i] / scale) + zero, 0, grid.max_code)
        codes[channel] = code.to(torch.uint8)
        error = (w[:, i] - (code - zero) * scale) / factor[i, i]
        w[:, i:] -= error[:, None] * factor[i, i:][None]
    return codes


def problem(inputs: int, outputs: int, seed: int = 0, tokens: int = 400) -> tuple[Tensor, Tensor]:
    """Return columns (K, N) with bf16 values and the Hessian of strongly correlated inputs with outlier channels."""
    return weights_of(inputs, outputs, seed), hessian_of(inputs_of(inputs, tokens, seed))


def grid_of(columns: Tensor, bits: int = 4, group_size: int = 32, sym: bool = True, mse: bool = False) -> Grid:
    return fit_grid(columns, torch.bfloat16, bits=bits, group_size=group_size, sym=sym, mse=mse)


def loss(columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> float:
    error = (columns - decode(codes, grid)).double()
    return (error * (hessian.double() @ error)).sum().item()


@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize(
    ("bits", "group_size", "inputs", "outputs"),
    [(4, 32, 96, 40), (4, -1, 72, 33), (4, 64, 192, 7), (4, 128, 256, 24), (8, 32, 160, 17), (8, -1, 33, 1)],
)
def test_codes_are_those_of_the_paper(
    bits: int, group_size: int, inputs: int, outputs: int, sym: bool, desc_act: bool
) -> None:
    columns, hessian = problem(inputs, outputs, seed=inputs)
    grid = grid_of(columns, bits, group_size, sym)
    order = sorted(range(inputs), key=lambda k: -hessian[k, k].item()) if desc_act else list(range(inputs))
    expected = paper(columns, hessian, grid, 0.01, order)
    solution = solve(columns, hessian, grid, damp_percent=0.01, block_size=50, desc_act=desc_act)
    assert solution is not None
    assert solution.damping == 0.01
    # fp32 may round a near tie the other way, after which the rest of that output differs too.
    same = (solution.codes == expected).all(0).float().mean().item()
    assert same >= 0.9
    assert loss(columns, solution.codes, grid, hessian) == pytest.approx(
        loss(columns, expected, grid, hessian), rel=0.02
    )


@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128, -1])
def test_it_beats_rounding_to_nearest_by_far_on_correlated_inputs(bits: int, group_size: int, desc_act: bool) -> None:
    columns, hessian = problem(256, 32)
    grid = grid_of(columns, bits, group_size)
    solution = solve(columns, hessian, grid, damp_percent=0.01, block_size=128, desc_act=desc_act)
    assert solution is not None
    nearest = loss(columns, round_to_nearest(columns, grid), grid, hessian)
    assert loss(columns, solution.codes, grid, hessian) < 0.5 * nearest


@pytest.mark.parametrize("desc_act", [False, True])
def test_it_is_rounding_to_nearest_on_independent_inputs(desc_act: bool) -> None:
    columns, _ = problem(64, 16)
    hessian = torch.diag(torch.rand(64) + 0.1)
    grid = grid_of(columns)
    solution = solve(columns, hessian, grid, damp_percent=0.01, block_size=16, desc_act=desc_act)
    assert solution is not None
    assert torch.equal(solution.codes, round_to_nearest(columns, grid))


def test_act_order_helps_where_channels_differ() -> None:
    columns, hessian = problem(256, 64)
    hessian = hessian.flip(0, 1)  # the outlier channels come last
    grid = grid_of(columns)
    plain, ordered = (
        solve(columns, hessian, grid, damp_percent=0.01, block_size=128, desc_act=act) for act in (False, True)
    )
    assert plain is not None
    assert ordered is not None
    assert loss(columns, ordered.codes, grid, hessian) < loss(columns, plain.codes, grid, hessian)


def test_channels_no_input_reached_are_rounded_to_nearest() -> None:
    columns, hessian = problem(64, 16)
    dead = [3, 40, 63]
    hessian[dead] = 0
    hessian[:, dead] = 0
    grid = grid_of(columns)
    solution = solve(columns, hessian, grid, damp_percent=0.01, block_size=16, desc_act=True)
    assert solution is not None
    nearest = round_to_nearest(columns, grid)
    assert torch.equal(solution.codes[dead], nearest[dead])
    assert not torch.equal(solution.codes, nearest)


def test_a_hessian_of_zeros_rounds_everything_to_nearest() -> None:
    columns, _ = problem(64, 16)
    grid = grid_of(columns)
    solution = solve(columns, torch.zeros(64, 64), grid, damp_percent=0.01, block_size=16, desc_act=True)
    assert solution is not None
    assert torch.equal(solution.codes, round_to_nearest(columns, grid))


def test_block_size_does_not_change_the_result_beyond_ties() -> None:
    columns, hessian = problem(192, 64)
    grid = grid_of(columns)
    losses = []
    for block_size in (1, 7, 128, 1000):
        solution = solve(columns, hessian, grid, damp_percent=0.01, block_size=block_size, desc_act=True)
        assert solution is not None
        losses.append(loss(columns, solution.codes, grid, hessian))
    assert losses == pytest.approx([losses[0]] * 4, rel=0.01)


def test_arguments_and_threads_are_left_alone_and_the_result_repeats() -> None:
    columns, hessian = problem(128, 24)
    grid = grid_of(columns)
    before, threads = (columns.clone(), hessian.clone()), torch.get_num_threads()
    first, second = (solve(columns, hessian, grid, damp_percent=0.01, block_size=32, desc_act=True) for _ in range(2))
    assert first is not None
    assert second is not None
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(columns, before[0])
    assert torch.equal(hessian, before[1])
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(("depth", "damping"), [(0.05, 0.1), (0.5, 1.0), (5.0, 10.0)])
def test_an_indefinite_hessian_gets_more_damping_from_a_fresh_copy(depth: float, damping: float) -> None:
    columns, _ = problem(64, 8)
    basis, _ = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)))
    hessian = basis @ torch.diag(torch.cat([torch.full((63,), (64 + depth) / 63), torch.tensor([-depth])])) @ basis.T
    grid = grid_of(columns)
    solution = solve(columns, hessian, grid, damp_percent=0.01, block_size=16, desc_act=False)
    assert solution is not None
    assert solution.damping == pytest.approx(damping)
    expected = paper(columns, hessian, grid, damping, list(range(64)))
    assert (solution.codes == expected).float().mean().item() > 0.99


def test_a_hessian_beyond_damping_has_no_solution() -> None:
    columns, _ = problem(64, 8)
    hessian = torch.eye(64)
    hessian[0, 1] = hessian[1, 0] = 100
    assert solve(columns, hessian, grid_of(columns), damp_percent=0.01, block_size=16, desc_act=False) is None


def test_the_factor_is_one_of_the_damped_hessian() -> None:
    _, hessian = problem(48, 1)
    factor = factorize(hessian, 0.01)
    assert factor is not None
    feedback = factor.feedback
    damped = hessian.double() + 0.01 * hessian.diagonal().double().mean() * torch.eye(48, dtype=torch.float64)
    unit = torch.eye(48, dtype=torch.float64) + feedback.double().T
    inverse = torch.linalg.inv(unit)
    diagonal = inverse @ damped @ inverse.T
    off = diagonal - torch.diag(diagonal.diagonal())
    assert torch.equal(feedback, feedback.tril(-1))
    assert off.abs().max() < 1e-4 * damped.abs().max()
    pivots = diagonal.diagonal()
    assert factor.condition == pytest.approx((pivots.max() / pivots.min()).item(), rel=1e-3)


@pytest.mark.parametrize("desc_act", [False, True])
def test_the_factor_solves_and_measures_in_the_channels_own_order(desc_act: bool) -> None:
    columns, hessian = problem(48, 7)
    factor = damped_factor(hessian, damp_percent=0.01, desc_act=desc_act)
    assert factor is not None
    damped = hessian.double() + 0.01 * hessian.diagonal().double().mean() * torch.eye(48, dtype=torch.float64)
    solved, wide = factor.solve(columns), columns.double()
    torch.testing.assert_close(solved.double(), torch.linalg.solve(damped, wide), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(factor.losses(columns).double(), (wide * (damped @ wide)).sum(0), rtol=1e-5, atol=0)


def test_the_condition_is_a_lower_bound_and_exact_for_a_diagonal() -> None:
    for seed in range(3):
        _, hessian = problem(64, 1, seed)
        damped = hessian.double() + 0.01 * hessian.diagonal().double().mean() * torch.eye(64, dtype=torch.float64)
        factor = factorize(hessian, 0.01)
        assert factor is not None
        assert 10 < factor.condition < torch.linalg.cond(damped).item()
    diagonal = torch.linspace(1, 50, 64)
    factor = factorize(torch.diag(diagonal), 0.01)
    assert factor is not None
    damping = 0.01 * diagonal.mean().item()
    assert factor.condition == pytest.approx((50 + damping) / (1 + damping), rel=1e-4)
