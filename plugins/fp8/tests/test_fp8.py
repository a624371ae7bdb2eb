"""Scales, codes and rounding against the table of all 256 codes, written out from the definition of E4M3."""

from __future__ import annotations

import math

import pytest
import torch
from hyocr_plugin_fp8.fp8 import encode, encode_making_up, scales_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyocr_core.kit import damped_factor, walk_columns

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
SHAPES = [(1, 1), (1, 16), (16, 1), (3, 5), (33, 7), (7, 33), (16, 4304), (1153, 3)]


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_every_weight_gets_the_nearest_code(shape: tuple[int, int], dtype: torch.dtype, per_channel: bool) -> None:
    weight = sample(shape, dtype)
    largest = weight.abs().amax(1, keepdim=True) if per_channel else weight.abs().amax()
    scales = scales_of(largest, dtype)
    codes = encode(weight, scales)
    assert codes.dtype == torch.float8_e4m3fn
    assert scales.dtype == dtype
    assert scales.shape == largest.shape
    found = TABLE[codes.view(torch.uint8).int()] * scales.double()
    best = (weight.double()[..., None] - NUMBERS * scales.double().reshape(-1, 1, 1)).abs().amin(-1)
    assert ((weight.double() - found).abs() <= best * (1 + 1e-5)).all()


def test_codes_are_computed_from_the_rounded_scale_in_fp32() -> None:
    # 0.1 / 448 rounds to a bf16 number 0.1 % away; codes for the exact scale, or a quotient rounded to bf16, differ.
    weight = torch.linspace(-0.1, 0.1, 4001)[None]
    scale = scales_of(weight.abs().amax(), torch.bfloat16)
    expected = nearest(weight.double() / scale.double())
    assert torch.equal(encode(weight, scale).double(), expected)
    assert not torch.equal(encode(weight, scales_of(weight.abs().amax(), torch.float32)).double(), expected)
    assert not torch.equal((weight.bfloat16() / scale).to(torch.float8_e4m3fn).double(), expected)


@pytest.mark.parametrize("largest", [0.1, 0.3, 1.0, 447.0, 448.0, 1e-30, 3e38])
def test_a_scale_rounded_down_makes_no_nan(largest: float) -> None:
    edge = torch.tensor([[largest, -largest]])
    for lower in (1.0, 0.999, 0.9, 0.5):
        codes = encode(edge, scales_of(torch.tensor(largest), torch.bfloat16) * lower)
        assert codes.double().abs().tolist() == [[448, 448]] or lower == 1.0
        assert not codes.double().isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_scales_are_never_zero(dtype: torch.dtype) -> None:
    tiny = torch.finfo(dtype).smallest_normal
    largest = torch.tensor([0.0, tiny * 1e-3, tiny, 1.0], dtype=torch.float64).float()
    scales = scales_of(largest, dtype)
    assert scales[0] == 1
    assert (scales > 0).all()
    codes = encode(torch.zeros(2, 3, dtype=dtype), scales_of(torch.zeros(2, 1), dtype))
    assert torch.equal(codes.float(), torch.zeros(2, 3))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40),
    st.sampled_from([torch.bfloat16, torch.float32]),
)
def test_any_finite_weight_is_kept_within_the_precision_of_e4m3(values: list[float], dtype: torch.dtype) -> None:
    weight = torch.tensor([values]).clamp(-1e38, 1e38).to(dtype)
    scales = scales_of(weight.abs().amax(), dtype)
    found = encode(weight, scales).double() * scales.double()
    # Half a step: 2^-4 of a normal number, 2^-10 of the scale below, and the scale's own rounding at the upper end.
    bound = weight.double().abs() * (2**-4 + 2**-8) + scales.double() * 2**-10 * (1 + 1e-6)
    assert scales > 0
    assert ((found - weight.double()).abs() <= bound).all()


def test_layers_side_by_side_get_the_codes_that_casting_gives_each_alone() -> None:
    gen = torch.Generator().manual_seed(1)
    inputs = torch.randn(200, 160, generator=gen) @ torch.randn(160, 160, generator=gen)
    factor = damped_factor(inputs.T @ inputs, damp_percent=0.01, desc_act=True)
    assert factor is not None
    weights = [torch.randn(outputs, 160, generator=gen).bfloat16() for outputs in (48, 16, 7)]
    scales = [scales_of(weight.abs().amax() / 3, weight.dtype) for weight in weights[:2]]
    # The last has a scale per channel; all have values beyond the largest code.
    scales.append(scales_of(weights[2].abs().amax(1, keepdim=True) / 3, weights[2].dtype))
    for weight, own, found in zip(weights, scales, encode_making_up(weights, scales, factor), strict=True):
        codes = torch.empty(160, len(weight), dtype=torch.float8_e4m3fn)
        each = own.float().expand(len(weight), 1).flatten()

        def settle(channel: int, target: Tensor, error: Tensor, codes: Tensor = codes, each: Tensor = each) -> None:
            codes[channel] = encode(target, each)
            error.addcmul_(codes[channel].float(), each, value=-1)

        walk_columns(weight.T.float().contiguous(), factor, 128, settle)
        # Sums over the columns before may add up in another order; a step to a neighbour is what that can do.
        assert (found.float() != codes.T.float()).float().mean() < 0.002
