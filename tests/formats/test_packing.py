"""Packing against a slow oracle that places every bit by itself, and against the compressed-tensors library."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyocr_core.formats import AwqFormat, GptqFormat, PackQuantizedFormat, ScaledWeight
from hyocr_core.formats.int32 import pack_rows, unpack_rows
from hyocr_core.kit.grid import Grid, decode


def word(codes: list[int], bits: int) -> int:
    """The int32 whose bit `bits * i + b` is bit b of the i-th code."""
    value = 0
    for place, code in enumerate(codes):
        for bit in range(bits):
            value += ((code >> bit) & 1) * 2 ** (bits * place + bit)
    return value - 2**32 if value >= 2**31 else value


def slow_rows(codes: list[list[int]], bits: int) -> list[list[int]]:
    factor = 32 // bits
    return [
        [word([codes[start + i][column] for i in range(factor)], bits) for column in range(len(codes[0]))]
        for start in range(0, len(codes), factor)
    ]


def case(inputs: int, outputs: int, group_size: int, bits: int, sym: bool, seed: int = 0) -> tuple[Tensor, Grid]:
    gen = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**bits, (inputs, outputs), dtype=torch.uint8, generator=gen)
    groups = inputs // group_size
    scales = (torch.rand(groups, outputs, generator=gen) + 0.01).bfloat16()
    zeros = torch.full((groups, outputs), 2 ** (bits - 1), dtype=torch.uint8)
    if not sym:
        zeros = torch.randint(0, 2**bits, (groups, outputs), dtype=torch.uint8, generator=gen)
    return codes, Grid(scales, zeros, 2**bits - 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from([4, 8]), st.integers(0, 99))
def test_every_bit_is_where_the_oracle_puts_it(words: int, columns: int, bits: int, seed: int) -> None:
    rows = words * 32 // bits
    codes, _ = case(rows, columns, rows, bits, sym=True, seed=seed)
    packed = pack_rows(codes, bits)
    assert packed.dtype == torch.int32
    assert packed.tolist() == slow_rows(codes.tolist(), bits)
    assert torch.equal(unpack_rows(packed, bits), codes)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "outputs", "group_size"), [(96, 40, 32), (64, 8, 64), (72, 24, 72)])
def test_gptq_layout(inputs: int, outputs: int, group_size: int, bits: int) -> None:
    codes, grid = case(inputs, outputs, group_size, bits, sym=True)
    tensors = GptqFormat(bits, group_size, sym=True).pack(codes, grid)
    stored_zero = word([2 ** (bits - 1) - 1] * (32 // bits), bits)
    groups = inputs // group_size
    assert set(tensors) == {"qweight", "qzeros", "scales", "g_idx"}
    assert tensors["qweight"].tolist() == slow_rows(codes.tolist(), bits)
    assert tensors["qzeros"].tolist() == [[stored_zero] * (outputs * bits // 32)] * groups
    assert tensors["qzeros"].dtype == tensors["g_idx"].dtype == torch.int32
    assert torch.equal(tensors["scales"], grid.scales)
    assert tensors["g_idx"].tolist() == [channel // group_size for channel in range(inputs)]


@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("inputs", "outputs", "group_size"), [(96, 40, 32), (64, 8, 64), (72, 24, 72)])
def test_compressed_layout(inputs: int, outputs: int, group_size: int, bits: int, sym: bool) -> None:
    codes, grid = case(inputs, outputs, group_size, bits, sym)
    tensors = PackQuantizedFormat(bits, group_size, sym).pack(codes, grid)
    packed = torch.tensor(slow_rows(codes.tolist(), bits), dtype=torch.int64).T
    assert tensors["weight_packed"].tolist() == packed.tolist()
    assert tensors["weight_packed"].shape == (outputs, inputs * bits // 32)
    assert torch.equal(tensors["weight_scale"], grid.scales.T)
    assert tensors["weight_shape"].tolist() == [outputs, inputs]
    assert ("weight_zero_point" in tensors) == (not sym)
    if not sym:
        assert tensors["weight_zero_point"].tolist() == slow_rows(grid.zeros.T.tolist(), bits)


AWQ_PLACES = [(0, 0), (1, 16), (2, 4), (3, 20), (4, 8), (5, 24), (6, 12), (7, 28)]
"""Column of eight -> its lowest bit, as AutoAWQ's kernels take them apart: even columns in the low half."""


def slow_awq(codes: list[list[int]]) -> list[list[int]]:
    """Pack rows of columns: eight neighbouring columns to an int32."""
    rows = []
    for row in codes:
        words = []
        for start in range(0, len(row), 8):
            value = sum(row[start + column] << lowest for column, lowest in AWQ_PLACES)
            words.append(value - 2**32 if value >= 2**31 else value)
        rows.append(words)
    return rows


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_awq_layout(groups: int, words: int, seed: int) -> None:
    codes, grid = case(groups * 24, words * 8, 24, 4, sym=False, seed=seed)
    tensors = AwqFormat(24, zero_point=True).pack(codes, grid)
    assert set(tensors) == {"qweight", "qzeros", "scales"}
    assert tensors["qweight"].tolist() == slow_awq(codes.tolist())
    assert tensors["qzeros"].tolist() == slow_awq(grid.zeros.tolist())
    assert tensors["qweight"].dtype == tensors["qzeros"].dtype == torch.int32
    assert torch.equal(tensors["scales"], grid.scales)
    found_codes, found_grid = AwqFormat(24, zero_point=True).unpack(tensors)
    assert torch.equal(found_codes, codes)
    assert torch.equal(found_grid.zeros, grid.zeros)


def test_awq_puts_the_second_column_into_the_fifth_nibble() -> None:
    codes = torch.tensor([[0, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 15]], dtype=torch.uint8)
    grid = Grid(torch.ones(1, 8), torch.zeros(1, 8, dtype=torch.uint8), 15)
    assert AwqFormat(2, zero_point=True).pack(codes, grid)["qweight"].tolist() == [[0x10000], [0xF0000001 - 2**32]]


def test_fp8_tensors_are_copies_under_the_names_of_both_formats() -> None:
    codes, scale = torch.randn(4, 8).to(torch.float8_e4m3fn), torch.tensor(0.5)
    weight = ScaledWeight(codes, scale, torch.tensor(2.0))
    tensors = weight.tensors()
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "weight": (4, 8),
        "weight_scale": (1,),
        "input_scale": (1,),
    }
    assert not {codes.data_ptr(), scale.data_ptr()} & {tensor.data_ptr() for tensor in tensors.values()}
    assert ScaledWeight.of(tensors).dequantized(torch.float32).tolist() == (codes.float() * 0.5).tolist()
    assert "input_scale" not in ScaledWeight(codes, torch.ones(4, 1)).tensors()


@pytest.mark.parametrize("sym", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_unpacking_inverts_both_formats_bit_for_bit(bits: int, sym: bool) -> None:
    codes, grid = case(96, 40, 32, bits, sym)
    expected = decode(codes, grid)
    for format_ in (GptqFormat(bits, 32, sym), PackQuantizedFormat(bits, 32, sym)):
        assert torch.equal(decode(*format_.unpack(format_.pack(codes, grid))), expected)


def test_packed_tensors_are_contiguous_copies() -> None:
    codes, grid = case(64, 16, 32, 4, sym=False)
    inputs = {codes.data_ptr(), grid.scales.data_ptr(), grid.zeros.data_ptr()}
    for format_ in (GptqFormat(4, 32, sym=True), PackQuantizedFormat(4, 32, sym=False)):
        tensors = format_.pack(codes, grid)
        assert all(tensor.is_contiguous() for tensor in tensors.values())
        assert not inputs & {tensor.data_ptr() for tensor in tensors.values()}


@pytest.mark.parametrize(("bits", "sym"), [(4, True), (4, False), (8, True)])
@pytest.mark.parametrize("group_size", [32, 96])
def test_the_compressed_tensors_library_reads_the_same_weight(bits: int, sym: bool, group_size: int) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    codes, grid = case(96, 40, group_size, bits, sym)
    strategy = "channel" if group_size == 96 else "group"
    args = quantization.QuantizationArgs(
        num_bits=bits, symmetric=sym, strategy=strategy, group_size=None if strategy == "channel" else group_size
    )
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    tensors = PackQuantizedFormat(bits, group_size, sym).pack(codes, grid)
    read = compressors.PackedQuantizationCompressor.decompress(tensors, scheme)
    assert torch.equal(read["weight"], decode(codes, grid).T)
