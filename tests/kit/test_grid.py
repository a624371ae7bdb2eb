"""Scales and zero points against plain Python, number by number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyocr_core.kit.grid import CLIP_RATIOS, decode, fit_grid, round_to_nearest

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def sample(inputs: int, outputs: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    weights = torch.randn(inputs, outputs, generator=gen) * torch.rand(outputs, generator=gen)
    return weights.to(dtype).float()


def stored(value: float, dtype: torch.dtype) -> float:
    return torch.tensor(value, dtype=torch.float64).float().to(dtype).item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_full_range_grid_is_the_formula_of_the_paper(bits: int, sym: bool, dtype: torch.dtype) -> None:
    columns = sample(64, 5, 1, dtype)
    grid = fit_grid(columns, dtype, bits=bits, group_size=32, sym=sym, mse=False)
    top = 2**bits - 1
    assert grid.scales.dtype == dtype
    for group in range(2):
        for output in range(5):
            values = columns[32 * group : 32 * group + 32, output].tolist()
            low, high = min(0.0, *values), max(0.0, *values)
            if sym:
                low, high = -max(-low, high), max(-low, high)
            scale = stored((high - low) / top, dtype)
            zero = 2 ** (bits - 1) if sym else min(max(round(-low / scale), 0), top)
            assert grid.scales[group, output].item() == pytest.approx(
                scale, rel=1e-2 if dtype != torch.float32 else 1e-6
            )
            assert grid.zeros[group, output].item() == zero


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(DTYPES), st.sampled_from([4, 8]), st.booleans(), st.booleans(),
    st.sampled_from([1, 3, 32, -1]),
)  # fmt: skip
def test_nearest_codes_decode_to_the_nearest_value(
    seed: int, dtype: torch.dtype, bits: int, sym: bool, mse: bool, group_size: int
) -> None:
    columns = sample(96, 4, seed, dtype)
    grid = fit_grid(columns, dtype, bits=bits, group_size=group_size, sym=sym, mse=mse)
    values = decode(round_to_nearest(columns, grid), grid).double()
    size = 96 if group_size == -1 else group_size
    steps = grid.scales.double().repeat_interleave(size, 0)
    levels = (torch.arange(2**bits)[:, None, None] - grid.zeros.double().repeat_interleave(size, 0)) * steps
    best = (levels - columns.double()).abs().amin(0)
    slack = levels.abs().amax(0) * (2.0**-8 if dtype == torch.bfloat16 else 2.0**-11)
    assert ((values - columns.double()).abs() <= best + slack).all()
    assert values.dtype == torch.float64
    assert (grid.scales > 0).all()


@pytest.mark.parametrize("sym", [False, True])
def test_decode_rounds_once_to_the_dtype_of_the_scales(sym: bool) -> None:
    columns = sample(64, 6, 3)
    grid = fit_grid(columns, torch.bfloat16, bits=8, group_size=64, sym=sym, mse=True)
    codes = round_to_nearest(columns, grid)
    exact = (codes.double() - grid.zeros.double()) * grid.scales.double()
    assert torch.equal(decode(codes, grid), exact.to(torch.bfloat16))


@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("mse", [False, True])
def test_a_group_of_zeros_has_a_safe_scale_and_stays_zero(sym: bool, mse: bool) -> None:
    columns = sample(64, 4, 0)
    columns[:32, 1] = 0
    grid = fit_grid(columns, torch.bfloat16, bits=4, group_size=32, sym=sym, mse=mse)
    assert (grid.scales > 0).all()
    assert (decode(round_to_nearest(columns, grid), grid)[:32, 1] == 0).all()


def test_values_that_vanish_in_the_stored_dtype_do_not_divide_by_zero() -> None:
    columns = torch.full((32, 1), 6e-8)
    grid = fit_grid(columns, torch.float16, bits=8, group_size=32, sym=True, mse=False)
    assert torch.isfinite(decode(round_to_nearest(columns, grid), grid)).all()


@pytest.mark.parametrize("sym", [False, True])
def test_the_search_finds_the_ratio_with_the_least_error(sym: bool) -> None:
    columns = sample(64, 9, 5)
    columns[7] *= 6
    grid = fit_grid(columns, torch.bfloat16, bits=4, group_size=64, sym=sym, mse=True)
    for output in range(9):
        column, errors = columns[:, output : output + 1], []
        for ratio in CLIP_RATIOS:
            # Clipping to a share of the range is fitting the full range of weights clipped to it.
            low, high = column.min().clamp(max=0).item() * ratio, column.max().clamp(min=0).item() * ratio
            ends = torch.tensor([[low], [high]])
            other = fit_grid(ends, torch.bfloat16, bits=4, group_size=-1, sym=sym, mse=False)
            scale, zero = other.scales.double(), other.zeros.double()
            values = ((column.double() / scale).round() + zero).clamp(0, 15).sub(zero) * scale
            errors.append((values - column.double()).square().sum().item())
        values = decode(round_to_nearest(column, slim := grid.split([1] * 9)[output]), slim).double()
        found = (values - column.double()).square().sum().item()
        assert found == pytest.approx(min(errors), rel=0.02)


def test_outputs_are_fitted_alone() -> None:
    columns = sample(64, 1500, 8)
    whole = fit_grid(columns, torch.bfloat16, bits=4, group_size=32, sym=False, mse=True)
    first = fit_grid(columns[:, :700].contiguous(), torch.bfloat16, bits=4, group_size=32, sym=False, mse=True)
    assert torch.equal(whole.split([700, 800])[0].scales, first.scales)
    assert torch.equal(whole.split([700, 800])[0].zeros, first.zeros)
