"""Rounding to E4M3 against the table of all 256 codes, written out from the definition of E4M3."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hyocr_core.kit.e4m3 import quantize_inputs, round_scaled_

DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def value_of(code: int) -> float:
    """The number a code stands for: sign, 4 bits of exponent with bias 7, 3 bits of mantissa; one NaN, no infinity."""
    sign, exponent, mantissa = -1 if code & 0x80 else 1, code >> 3 & 15, code & 7
    if code & 0x7F == 0x7F:
        return math.nan
    return sign * (2.0 ** (exponent - 7) * (1 + mantissa / 8) if exponent else 2.0**-6 * mantissa / 8)


TABLE = torch.tensor([value_of(code) for code in range(256)], dtype=torch.float64)
NUMBERS = torch.tensor(sorted({value for value in TABLE.tolist() if not math.isnan(value)}), dtype=torch.float64)


def nearest(values: Tensor) -> Tensor:
    """The nearest numbers of the table, fp64; of two as near, the one whose code ends in 0: every other."""
    flat = values.double().flatten()
    upper = torch.searchsorted(NUMBERS, flat).clamp(1, len(NUMBERS) - 1)
    low, high = NUMBERS[upper - 1], NUMBERS[upper]
    # NUMBERS[126] is 0, so that even places hold even codes on either side of it.
    tie = torch.where(upper % 2 == 0, high, low)
    found = torch.where(flat - low < high - flat, low, torch.where(flat - low > high - flat, high, tie))
    return found.view(values.shape)


def sample(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, scale: float = 0.05, seed: int = 0) -> Tensor:
    """Normal numbers with a few outliers and zeros."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    values.view(-1)[::37] *= 30
    values.view(-1)[::41] = 0
    return values.to(dtype)


def test_torch_reads_codes_as_the_table_says() -> None:
    assert torch.equal(
        torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double().nan_to_num(), TABLE.nan_to_num()
    )
    assert NUMBERS[126] == 0
    assert len(NUMBERS) == 253
    assert NUMBERS[-1] == 448


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0137, 3.7])
def test_rounding_is_that_of_the_table_ties_to_even(scale: float) -> None:
    middles = (NUMBERS[1:] + NUMBERS[:-1]) / 2
    near = [NUMBERS, middles, middles * (1 + 1e-6), middles * (1 - 1e-6), torch.tensor([500.0, -1e9, 2.0**-11])]
    values = (torch.cat([*near, sample((5000,), scale=30).double()]) * scale).float()
    factor = torch.tensor(scale)
    found = round_scaled_(values.clone(), factor)
    scaled = values * factor.reciprocal()
    assert torch.equal(found, nearest(scaled).float() * factor)
    assert torch.equal(found, scaled.clamp(-448, 448).to(torch.float8_e4m3fn).float() * factor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 16), (7, 33), (2, 5, 48), (0, 16), (3000, 400)])
def test_static_inputs_are_rounded_with_one_scale(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = sample(shape, dtype, scale=3)
    before, scale = inputs.clone(), torch.tensor(0.02).to(torch.bfloat16)
    found = quantize_inputs(inputs, scale)
    assert torch.equal(inputs, before)
    expected = nearest(inputs.float() * scale.float().reciprocal()).float() * scale.float()
    assert found.dtype == dtype
    assert torch.equal(found, expected.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 16), (7, 33), (2, 5, 48), (0, 16), (3000, 400)])
def test_dynamic_inputs_get_one_scale_per_token(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = sample(shape, dtype, scale=3)
    found = quantize_inputs(inputs, None)
    assert found.shape == inputs.shape
    assert found.dtype == dtype
    for token, rounded in zip(inputs.reshape(-1, shape[-1])[:50].float(), found.reshape(-1, shape[-1]), strict=False):
        # vLLM's bound keeps the scale of a token of zeros away from zero.
        scale = (token.abs().max() / 448).clamp(min=1 / (448 * 512))
        assert torch.equal(rounded, (nearest(token * scale.reciprocal()).float() * scale).to(dtype))


def test_a_token_of_zeros_and_a_tiny_one_stay_finite() -> None:
    found = quantize_inputs(torch.tensor([[0.0, 0.0], [1e-30, -1e-9]]), None)
    assert torch.equal(found, torch.zeros(2, 2))
