"""What the formats say of tensors: shapes, sizes, and the way back from what hyocr and others write."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from hyocr_core.errors import CheckpointError
from hyocr_core.formats import (
    AwqFormat,
    CompressedFp8Format,
    Format,
    Fp8Format,
    GptqFormat,
    IntQuantizedFormat,
    PackQuantizedFormat,
)
from hyocr_core.kit.grid import Grid

SHAPE = (40, 96)
INTEGERS: list[GptqFormat | AwqFormat | PackQuantizedFormat] = [
    GptqFormat(4, 32, sym=True),
    GptqFormat(8, -1, sym=True, version=2),
    AwqFormat(48, zero_point=True),
    PackQuantizedFormat(4, 32, sym=False),
    PackQuantizedFormat(8, -1, sym=True),
]
FLOATS = [Fp8Format("static"), Fp8Format("dynamic"), CompressedFp8Format("channel", "dynamic")]


def bits_of(written: Format) -> int:
    return written.bits if isinstance(written, GptqFormat | PackQuantizedFormat) else 4


def packed(written: GptqFormat | AwqFormat | PackQuantizedFormat) -> tuple[dict[str, Tensor], Tensor, Grid]:
    """Tensors of a random layer, its codes (K, N) and its grid."""
    generator = torch.Generator().manual_seed(0)
    (outputs, inputs), bits = SHAPE, bits_of(written)
    groups = 1 if written.group_size == -1 else inputs // written.group_size
    codes = torch.randint(0, 2**bits, (inputs, outputs), dtype=torch.uint8, generator=generator)
    symmetric = not isinstance(written, AwqFormat) and written.sym
    zeros = torch.randint(0, 2**bits, (groups, outputs), dtype=torch.uint8, generator=generator)
    grid = Grid(
        (torch.rand(groups, outputs, generator=generator) + 0.1).bfloat16(),
        torch.full_like(zeros, 2 ** (bits - 1)) if symmetric else zeros,
        2**bits - 1,
    )
    return written.pack(codes, grid), codes, grid


def slow(codes: Tensor, grid: Grid, groups: list[int]) -> Tensor:
    """(N, K): every weight by itself, channel k in group groups[k]."""
    inputs, outputs = codes.shape
    values = torch.empty(outputs, inputs)
    for k in range(inputs):
        for n in range(outputs):
            step = int(codes[k, n]) - int(grid.zeros[groups[k], n])
            values[n, k] = step * float(grid.scales[groups[k], n])
    return values


@pytest.mark.parametrize("written", INTEGERS, ids=str)
def test_what_is_packed_keeps_the_layout_and_comes_back(
    written: GptqFormat | AwqFormat | PackQuantizedFormat,
) -> None:
    tensors, codes, grid = packed(written)
    layout = written.layout(SHAPE)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {n: t.shape for n, t in layout.items()}
    assert written.nbytes(SHAPE) == sum(tensor.nbytes for tensor in tensors.values())
    assert written.linear_shape(tuple(tensors[written.codes].shape)) == SHAPE
    groups = [k * len(grid.scales) // SHAPE[1] for k in range(SHAPE[1])]
    assert torch.equal(written.dequantize(tensors, SHAPE, torch.float32), slow(codes, grid, groups))


def test_version_2_of_gptq_stores_zero_points_as_they_are() -> None:
    first, second = GptqFormat(4, 32, sym=False), GptqFormat(4, 32, sym=False, version=2)
    codes = torch.zeros(32, 8, dtype=torch.uint8)
    grid = Grid(torch.ones(1, 8), torch.full((1, 8), 5, dtype=torch.uint8), 15)
    assert first.pack(codes, grid)["qzeros"].tolist() == [[0x44444444]]
    assert second.pack(codes, grid)["qzeros"].tolist() == [[0x55555555]]
    for written in (first, second):
        assert (written.dequantize(written.pack(codes, grid), (8, 32), torch.float32) == -5).all()


@pytest.mark.parametrize(
    ("written", "index"),
    [
        (GptqFormat(4, 32, sym=True, desc_act=True), "g_idx"),
        (PackQuantizedFormat(4, 32, sym=False, permuted=True), "weight_g_idx"),
    ],
    ids=str,
)
def test_permuted_groups_are_honoured(written: GptqFormat | PackQuantizedFormat, index: str) -> None:
    tensors, codes, grid = packed(written)
    groups = torch.randint(0, 3, (SHAPE[1],), dtype=torch.int32, generator=torch.Generator().manual_seed(1))
    tensors[index] = groups
    assert torch.equal(written.dequantize(tensors, SHAPE, torch.float32), slow(codes, grid, groups.tolist()))
    tensors[index] = groups + 1
    with pytest.raises(CheckpointError, match="names groups 1 to 3, there are 3"):
        written.dequantize(tensors, SHAPE, torch.float32)


@pytest.mark.parametrize("written", FLOATS, ids=str)
@pytest.mark.parametrize("lone", [(), (1,)])
def test_fp8_comes_back(written: Fp8Format | CompressedFp8Format, lone: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(SHAPE, generator=generator).to(torch.float8_e4m3fn)
    per_channel = isinstance(written, CompressedFp8Format)
    scale = torch.rand((SHAPE[0], 1) if per_channel else lone, generator=generator)
    tensors = {"weight": codes, "weight_scale": scale}
    if written.activations == "static":
        tensors["input_scale"] = torch.ones(lone)
    found = written.dequantize(tensors, SHAPE, torch.float32)
    for n, k in ((0, 0), (3, 7), (39, 95)):
        factor = scale[n, 0] if per_channel else scale.reshape(())
        assert found[n, k] == codes[n, k].float() * factor
    assert written.linear_shape(SHAPE) == SHAPE
    assert written.nbytes(SHAPE) == 40 * 96 + 2 * (40 if per_channel else 2 if written.activations == "static" else 1)


def test_a_plain_weight_holds_no_codes() -> None:
    assert not Fp8Format("static").holds_codes("weight", torch.bfloat16)
    assert Fp8Format("static").holds_codes("weight", torch.float8_e4m3fn)
    assert not GptqFormat(4, 32, sym=True).holds_codes("weight", torch.bfloat16)
    assert GptqFormat(4, 32, sym=True).holds_codes("qweight", torch.int32)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"scales": None}, "scales is missing"),
        ({"scales": torch.ones(3, 40, dtype=torch.int32)}, "scales is int32, not bfloat16 or float16 or float32"),
        ({"scales": torch.ones(6, 40)}, r"scales has shape \[6, 40\], not \[3, 40\]"),
        ({"bits": torch.ones(1)}, "bits is no tensor of this format"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, Tensor | None], problem: str) -> None:
    tensors = {name: t for name, t in (packed(INTEGERS[0])[0] | change).items() if t is not None}
    with pytest.raises(CheckpointError, match=f"^{problem}$"):
        INTEGERS[0].dequantize(tensors, SHAPE, torch.float32)


@pytest.mark.parametrize(
    ("written", "shape", "problem"),
    [
        (
            GptqFormat(4, 64, sym=True),
            (40, 96),
            "its input channels do not fill groups: 96 is not a multiple of 64",
        ),
        (AwqFormat(32, zero_point=True), (36, 96), "its codes do not fill int32: 36 is not a multiple of 8"),
        (
            PackQuantizedFormat(8, -1, sym=True),
            (40, 97),
            "its codes do not fill int32: 97 is not a multiple of 4",
        ),
    ],
    ids=str,
)
def test_shapes_that_a_format_cannot_hold(written: Format, shape: tuple[int, int], problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem):
        written.layout(shape)
    assert list(written.problems({}, shape)) == [problem]


def test_symmetric_codes_need_no_zero_points() -> None:
    with_zeros = PackQuantizedFormat(4, 32, sym=False)
    assert with_zeros.nbytes(SHAPE) - dataclasses.replace(with_zeros, sym=True).nbytes(SHAPE) == 40 // 8 * 3 * 4


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (GptqFormat(8, -1, True), "int8, per output channel, symmetric"),
        (PackQuantizedFormat(4, 32, False), "int4, groups of 32, zero points"),
        (AwqFormat(64, zero_point=True), "int4, groups of 64, zero points"),
        (Fp8Format("dynamic"), "fp8, one scale, dynamic activations"),
        (CompressedFp8Format("tensor", "static"), "fp8, one scale, static activations"),
        (CompressedFp8Format("channel", "dynamic"), "fp8, scale per output channel, dynamic activations"),
        (IntQuantizedFormat("channel", "dynamic"), "int8, scale per output channel, dynamic activations"),
    ],
)
def test_formats_in_words(written: Format, expected: str) -> None:
    assert written.in_words == expected
