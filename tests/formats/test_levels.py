"""How far weights are from the next value of their format, against a list of all values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hyocr_core.formats import (
    AwqFormat,
    CompressedFp8Format,
    GptqFormat,
    IntegerFormat,
    IntQuantizedFormat,
    PackQuantizedFormat,
    ScaledFormat,
    ScaledWeight,
)
from hyocr_core.kit.grid import Grid

SCALED: dict[str, ScaledFormat] = {
    "fp8": CompressedFp8Format("channel", "dynamic"),
    "int8": IntQuantizedFormat("channel", "dynamic"),
}
INTEGERS: list[IntegerFormat] = [
    GptqFormat(4, 32, sym=False),
    AwqFormat(32, zero_point=True),
    PackQuantizedFormat(8, 32, sym=False),
]


def every_code(written: ScaledFormat) -> Tensor:
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, written.codes_dtype))
    return codes[torch.isfinite(codes.float())]


@pytest.mark.parametrize("written", SCALED.values(), ids=SCALED)
def test_of_bytes_that_a_scale_multiplies(written: ScaledFormat) -> None:
    codes = every_code(written)
    values = torch.tensor(sorted(set(codes.double().tolist())), dtype=torch.float64)
    gaps = (codes.double()[:, None] - values).abs()
    nearest = gaps.masked_fill(gaps == 0, torch.inf).amin(1)
    assert torch.equal(written.spacing(codes.float()).double(), nearest)
    scale = torch.tensor([[0.5]])
    levels = written.levels(ScaledWeight(codes[None], scale).tensors(), (1, len(codes)))
    assert levels is not None
    usual = nearest[(codes.double().square().mean().sqrt() - codes.double()).abs().argmin()]
    assert torch.equal(levels.steps.double()[0], nearest.clamp(min=usual) * 0.5)
    assert codes[levels.highest[0]].float().tolist() == [written.largest_code]
    assert codes[levels.lowest[0]].float().min() == codes.float().min()


@pytest.mark.parametrize("written", INTEGERS, ids=lambda written: type(written).__name__)
def test_of_integers_in_groups(written: IntegerFormat) -> None:
    generator = torch.Generator().manual_seed(0)
    most = 2**written.bits - 1
    codes = torch.randint(0, most + 1, (64, 40), dtype=torch.uint8, generator=generator)
    zeros = torch.randint(0, most + 1, (2, 40), dtype=torch.uint8, generator=generator)
    grid = Grid((torch.rand(2, 40, generator=generator) + 0.1).bfloat16(), zeros, most)
    levels = written.levels(written.pack(codes, grid), (40, 64))
    assert levels is not None
    assert torch.equal(
        levels.steps, torch.cat([grid.scales[:1].expand(32, 40), grid.scales[1:].expand(32, 40)]).T.float()
    )
    assert torch.equal(levels.lowest, codes.T == 0)
    assert torch.equal(levels.highest, most == codes.T)
