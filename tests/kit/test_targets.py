"""Targets of the full-precision path against least squares in fp64, and what they are worth after rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hyocr_core.kit import (
    Factor,
    add_cross,
    damped_factor,
    decode,
    fit_grid,
    full_precision_targets,
    quantize_columns,
)
from tests.kit.problems import hessian_of, inputs_of, weights_of

CHANNELS, OUTPUTS, TOKENS = 96, 24, 500
DAMPING = 0.01


class Problem:
    """Inputs of a layer on both paths: full, (tokens, K), and quantized, which lacks some of it and has some noise."""

    def __init__(self, seed: int, outputs: int = OUTPUTS) -> None:
        gen = torch.Generator().manual_seed(seed)
        self.columns = weights_of(CHANNELS, outputs, seed)
        self.full = inputs_of(CHANNELS, TOKENS, seed)
        mixed = torch.eye(CHANNELS) + 0.05 * torch.randn(CHANNELS, CHANNELS, generator=gen) / CHANNELS**0.5
        self.quantized = self.full @ mixed + 0.05 * torch.randn(self.full.shape, generator=gen)
        self.hessian = hessian_of(self.quantized)
        self.stats = {"drift": torch.zeros(CHANNELS, CHANNELS)}
        add_cross(self.stats["drift"], self.quantized, self.full - self.quantized)
        self.stats["drift"] *= 2 / TOKENS

    def factor(self, desc_act: bool) -> Factor:
        factor = damped_factor(self.hessian, damp_percent=DAMPING, desc_act=desc_act)
        assert factor is not None
        return factor

    def oracle(self) -> Tensor:
        """Least squares in fp64 on the tokens themselves; the damping is rows of their own that ask for no change."""
        x, y, w = self.quantized.double(), self.full.double(), self.columns.double()
        held = (DAMPING * self.hessian.double().diagonal().mean() * TOKENS / 2).sqrt() * torch.eye(
            CHANNELS, dtype=torch.float64
        )
        right = torch.cat([y @ w, held @ w])
        found: Tensor = torch.linalg.lstsq(torch.cat([x, held]), right, driver="gelsd").solution
        return found

    def outputs_lost(self, values: Tensor) -> float:
        """|Y W - X V|."""
        wanted = self.full.double() @ self.columns.double()
        return float((wanted - self.quantized.double() @ values.double()).norm())

    def rounded(self, strength: float) -> Tensor:
        """What GPTQ makes of targets of this strength, dequantized."""
        factor = self.factor(desc_act=True)
        targets = full_precision_targets(self.columns, self.stats, factor, strength)
        grid = fit_grid(targets, torch.bfloat16, bits=4, group_size=32, sym=True, mse=False)
        return decode(quantize_columns(targets, factor, grid, 32), grid)


@pytest.mark.parametrize("desc_act", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("outputs", [OUTPUTS, 2 * CHANNELS])
def test_targets_are_those_of_least_squares(outputs: int, seed: int, desc_act: bool) -> None:
    problem = Problem(seed, outputs)
    expected = problem.oracle()
    moved = (expected - problem.columns.double()).norm()
    of_outputs = {"output_drift": problem.stats["drift"] @ problem.columns}
    for stats in (problem.stats, of_outputs):
        found = full_precision_targets(problem.columns, stats, problem.factor(desc_act))
        assert (found.double() - expected).norm() < 1e-3 * moved


@pytest.mark.parametrize("strength", [0.0, 0.5, 0.75])
def test_strength_is_a_share_of_the_way(strength: float) -> None:
    problem = Problem(0)
    factor = problem.factor(desc_act=False)
    start = problem.columns
    end = full_precision_targets(start, problem.stats, factor)
    found = full_precision_targets(start, problem.stats, factor, strength)
    torch.testing.assert_close(found, start + strength * (end - start))


@pytest.mark.parametrize("seed", range(6))
def test_after_rounding_outputs_are_nearer_to_the_full_precision_ones_than_plain_gptq_comes(seed: int) -> None:
    problem = Problem(seed)
    plain, half, whole = (problem.outputs_lost(problem.rounded(strength)) for strength in (0.0, 0.5, 1.0))
    assert whole < half < plain
    assert whole < 0.8 * plain


def test_equal_paths_and_an_unknown_one_move_nothing() -> None:
    problem = Problem(0)
    for stats in ({"drift": torch.zeros(CHANNELS, CHANNELS)}, {}):
        found = full_precision_targets(problem.columns, stats, problem.factor(desc_act=True))
        assert torch.equal(found, problem.columns)
