"""Layers of integer codes through every format that holds them."""

from __future__ import annotations

import pytest
import torch

from hyocr_core.contract.types import Layer
from hyocr_core.errors import RunError
from hyocr_core.formats import AwqFormat, GptqFormat, PackQuantizedFormat
from hyocr_core.kit.grid import fit_grid, join_columns, round_to_nearest
from hyocr_core.kit.integer_codes import IntegerStorage, integer_layer, pack_integers, unpack_integers

STORAGES: list[tuple[IntegerStorage, int, bool]] = [
    (GptqFormat(4, 32, sym=True), 4, True),
    (GptqFormat(8, -1, sym=True), 8, True),
    (AwqFormat(32, zero_point=True), 4, False),
    (PackQuantizedFormat(4, 32, sym=False), 4, False),
    (PackQuantizedFormat(8, -1, sym=True), 8, True),
]


@pytest.mark.parametrize(("storage", "bits", "sym"), STORAGES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_layer_survives_every_format(storage: IntegerStorage, bits: int, sym: bool, dtype: torch.dtype) -> None:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(1)).to(dtype)
    layer = Layer("l", weight)
    columns = join_columns([layer])
    size = getattr(storage, "group_size", -1)
    grid = fit_grid(columns, dtype, bits=bits, group_size=size, sym=sym, mse=True)
    result = integer_layer(layer, round_to_nearest(columns, grid), grid)
    assert result.name == "l"
    assert result.dequantized.dtype == dtype
    assert result.dequantized.is_contiguous()
    for output, channel in ((0, 0), (5, 40), (23, 95)):
        group = channel // (len(columns) // len(grid.scales))
        code, zero = int(result.tensors["codes"][channel, output]), int(grid.zeros[group, output])
        value = torch.tensor(code - zero, dtype=dtype) * grid.scales[group, output]
        assert result.dequantized[output, channel] == value
    kept = {name: tensor.clone() for name, tensor in result.tensors.items()}
    packed = pack_integers(result, storage, bits)
    assert torch.equal(unpack_integers(packed, storage), result.dequantized)
    for tensor in packed.values():
        tensor.zero_()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in result.tensors.items())


def test_a_weight_that_overflows_names_the_layer() -> None:
    weight = torch.zeros(2, 32, dtype=torch.float16)
    weight[0, 0] = 65000
    columns = join_columns([Layer("big", weight)])
    grid = fit_grid(columns, torch.float16, bits=4, group_size=32, sym=True, mse=False)
    with pytest.raises(RunError, match=r"^big: its largest weights overflow torch\.float16 once quantized$"):
        integer_layer(Layer("big", weight), torch.zeros(32, 2, dtype=torch.uint8), grid)
