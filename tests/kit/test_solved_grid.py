"""The grid by GPTQ's own error against solving every group at every range."""

from __future__ import annotations

import pytest
import torch

from hyocr_core.kit import clipped_grid, decode, fit_grid, fit_grid_by_solving, solve
from hyocr_core.kit.solved_grid import RATIOS
from tests.kit.problems import hessian_of, inputs_of, weights_of


@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("group_size", [32, -1])
def test_each_group_has_the_range_on_which_it_is_solved_best(group_size: int, sym: bool, desc_act: bool) -> None:
    columns, hessian = weights_of(96, 12), hessian_of(inputs_of(96))
    columns[5] *= 6
    found = fit_grid_by_solving(
        columns,
        hessian,
        torch.bfloat16,
        bits=4,
        group_size=group_size,
        sym=sym,
        damp_percent=0.01,
        desc_act=desc_act,
    )
    size = 96 if group_size == -1 else group_size
    chosen = set()
    for group in range(96 // size):
        part = slice(group * size, (group + 1) * size)
        own, moments = columns[part], hessian[part, part]
        damped = moments.double() + 0.01 * moments.double().diagonal().mean() * torch.eye(size)
        lost, scales = [], []
        for ratio in RATIOS:
            grid = clipped_grid(own, torch.bfloat16, bits=4, group_size=-1, sym=sym, ratio=ratio)
            solution = solve(own, moments, grid, damp_percent=0.01, block_size=16, desc_act=desc_act)
            assert solution is not None
            errors = own.double() - decode(solution.codes, grid).double()
            lost.append((errors * (damped @ errors)).sum(0))
            scales.append(grid.scales[0])
        least = torch.stack(lost)
        for output in range(12):
            at = [index for index in range(len(RATIOS)) if scales[index][output] == found.scales[group, output]]
            # Within what a near tie that fp32 rounds the other way makes of all later codes.
            assert least[at, output].min().item() == pytest.approx(least[:, output].min().item(), rel=0.02)
            chosen.update(at)
    assert len(chosen) > 1


def test_a_group_that_no_input_reached_keeps_its_whole_range() -> None:
    columns, hessian = weights_of(64, 5), hessian_of(inputs_of(64))
    hessian[32:], hessian[:, 32:] = 0, 0
    found = fit_grid_by_solving(
        columns, hessian, torch.bfloat16, bits=4, group_size=32, sym=True, damp_percent=0.01, desc_act=True
    )
    whole = fit_grid(columns[32:], torch.bfloat16, bits=4, group_size=32, sym=True, mse=False)
    assert (found.scales[1] <= whole.scales[0]).all()
    assert found.scales.isfinite().all()
