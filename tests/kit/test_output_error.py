"""The quadratic form of errors against fp64 and against the outputs themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hyocr_core.contract.types import Layer
from hyocr_core.errors import RunError
from hyocr_core.kit.grid import decode, fit_grid, round_to_nearest
from hyocr_core.kit.integer_codes import output_errors
from hyocr_core.kit.output_error import (
    MEASURED_OUTPUTS,
    checked_hessian,
    halved,
    measured,
    output_energy,
    relative_errors,
)


def problem(inputs: int, outputs: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return columns (K, N) and inputs (tokens, K), strongly correlated, with outlier channels."""
    gen = torch.Generator().manual_seed(seed)
    mix = torch.randn(max(inputs // 4, 1), inputs, generator=gen)
    x = torch.randn(400, len(mix), generator=gen) @ mix + 0.3 * torch.randn(400, inputs, generator=gen)
    x[:, : max(inputs // 16, 1)] *= 8
    return 0.05 * torch.randn(inputs, outputs, generator=gen), x


def hessian_of(x: Tensor) -> Tensor:
    return (2 / len(x) * x.double().T @ x.double()).float()


@pytest.mark.parametrize("inputs", [1, 33, 256, 512, 600, 1100])
@pytest.mark.parametrize("outputs", [1, 24])
def test_output_energy_is_the_quadratic_form(inputs: int, outputs: int) -> None:
    columns, x = problem(inputs, outputs)
    hessian = hessian_of(x)
    exact = (columns.double() * (hessian.double() @ columns.double())).sum().item()
    before = columns.clone(), hessian.clone()
    assert output_energy(columns, halved(hessian)) == pytest.approx(exact, rel=0.01)
    assert torch.equal(columns, before[0])
    assert torch.equal(hessian, before[1])


def test_half_of_a_hessian_is_the_triangle_that_makes_it_whole() -> None:
    hessian = hessian_of(problem(96, 1)[1])
    half = halved(hessian)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, half.tril())
    assert (half + half.T - hessian).abs().max() < 2**-7 * hessian.abs().max()


def test_relative_errors_are_those_of_the_outputs() -> None:
    columns, x = problem(128, 40)
    near, far = columns + 0.001 * torch.randn(columns.shape), columns.roll(1, 0)
    found = relative_errors(columns, [near, far, columns], hessian_of(x))
    outputs = x.double() @ columns.double()
    expected = [((x.double() @ each.double() - outputs).norm() / outputs.norm()).item() for each in (near, far)]
    assert found == pytest.approx([*expected, 0.0], rel=0.01)


def test_outputs_that_are_all_zero_have_no_error() -> None:
    columns, _ = problem(16, 4)
    assert relative_errors(columns, [columns + 1], torch.zeros(16, 16)) == [0.0]


@pytest.mark.parametrize("outputs", [1, 511, 512, 513, 4304])
def test_measured_outputs_are_spread_over_all(outputs: int) -> None:
    picked = list(range(outputs))[measured(outputs)]
    assert min(outputs, MEASURED_OUTPUTS // 2) <= len(picked) <= MEASURED_OUTPUTS
    assert picked[0] == 0
    assert len({second - first for first, second in pairwise(picked)}) <= 1
    assert outputs - picked[-1] <= max(outputs // MEASURED_OUTPUTS + 1, 1)


@pytest.mark.parametrize("outputs", [7, 1300])
def test_errors_of_codes_and_of_rounding_are_those_of_the_outputs(outputs: int) -> None:
    columns, x = problem(96, outputs)
    grid = fit_grid(columns, torch.float32, bits=4, group_size=32, sym=True, mse=False)
    nearest = round_to_nearest(columns, grid)
    codes = (nearest + 1).clamp(max=15)
    found = output_errors(columns, codes, grid, hessian_of(x))
    whole = x.double() @ columns.double()

    def error(values: Tensor) -> float:
        return float((x.double() @ values.double() - whole).norm() / whole.norm())

    assert found.keys() == {"output_error", "output_error_rtn"}
    assert found["output_error"] == pytest.approx(error(decode(codes, grid)), rel=0.05)
    assert found["output_error_rtn"] == pytest.approx(error(decode(nearest, grid)), rel=0.05)
    assert found["output_error"] > 2 * found["output_error_rtn"]


def test_a_hessian_that_cannot_be_used_names_the_first_layer() -> None:
    layers = [Layer("q", torch.zeros(4, 8)), Layer("k", torch.zeros(2, 8))]
    good = torch.eye(8)
    assert checked_hessian(layers, {"hessian": good}) is good
    with pytest.raises(RunError, match=r"^q: needs calibration statistics and was given none$"):
        checked_hessian(layers, None)
    with pytest.raises(RunError, match=r"^q: the Hessian is \(4, 4\), its inputs have 8 channels$"):
        checked_hessian(layers, {"hessian": torch.eye(4)})
    for value in (float("nan"), float("inf")):
        with pytest.raises(RunError, match=r"^q: the Hessian of its inputs holds NaN or infinite values$"):
            checked_hessian(layers, {"hessian": torch.full((8, 8), value)})
