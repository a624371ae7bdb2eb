"""Weights and inputs of int8: against loops, the library, and Transformers on a whole model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hyocr_core.formats import IntQuantizedFormat, ScaledWeight

DYNAMIC, STATIC = IntQuantizedFormat("channel", "dynamic"), IntQuantizedFormat("tensor", "static")


def slow_inputs(inputs: Tensor, scale: float | None) -> list[list[float]]:
    """One value at a time, in Python's floats; round() takes ties to even, as vLLM's kernel does."""
    rows = []
    for row in inputs.tolist():
        step = (max(map(abs, row)) / 127 or 1.0) if scale is None else scale
        rows.append([min(max(round(value / step), -128), 127) * step for value in row])
    return rows


def test_inputs_of_a_token_share_a_scale() -> None:
    inputs = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 7)[:, None]
    inputs[3] = 0
    before = inputs.clone()
    found = DYNAMIC.quantize_inputs(inputs, {})
    torch.testing.assert_close(found, torch.tensor(slow_inputs(inputs, None)))
    assert torch.equal(inputs, before)
    assert torch.equal(DYNAMIC.quantize_inputs(inputs.view(1, 7, 33), {})[0], found)
    assert DYNAMIC.quantize_inputs(inputs.bfloat16(), {}).dtype == torch.bfloat16


def test_static_inputs_are_cut_off_at_both_ends() -> None:
    inputs = torch.tensor([[-100.0, -64.0, -63.9, 0.24, 0.25, 0.75, 63.4, 64.0]])
    found = STATIC.quantize_inputs(inputs, {"input_scale": torch.tensor([0.5])})
    assert found.tolist() == slow_inputs(inputs, 0.5) == [[-64.0, -64.0, -64.0, 0.0, 0.0, 1.0, 63.5, 63.5]]


@pytest.mark.parametrize("written", [DYNAMIC, STATIC], ids=str)
def test_what_is_packed_keeps_the_layout_and_comes_back(written: IntQuantizedFormat) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-128, 128, (5, 12), dtype=torch.int8, generator=generator)
    scale = (torch.rand((5, 1) if written.per_channel else (), generator=generator) + 0.1).bfloat16()
    static = torch.tensor(0.5).bfloat16() if written.activations == "static" else None
    tensors = ScaledWeight(codes, scale, static).tensors()
    assert list(written.problems({n: (tuple(t.shape), t.dtype) for n, t in tensors.items()}, (5, 12))) == []
    assert written.nbytes((5, 12)) == sum(tensor.nbytes for tensor in tensors.values())
    found = written.dequantize(tensors, (5, 12), torch.float32)
    for n, k in ((0, 0), (4, 11), (2, 7)):
        assert found[n, k] == int(codes[n, k]) * float(scale[n, 0] if written.per_channel else scale)
    assert written.linear_shape((5, 12)) == (5, 12)
    assert written.holds_codes("weight", torch.int8)
    assert not written.holds_codes("weight", torch.bfloat16)


@pytest.mark.parametrize("written", [DYNAMIC, STATIC], ids=str)
def test_the_nearest_code_is_at_most_half_a_step_away(written: IntQuantizedFormat) -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    weight *= torch.tensor([[1e-3], [1.0], [9.0], [0.0]])
    largest = weight.abs().amax(1, keepdim=True) if written.per_channel else weight.abs().max()
    error = (written.nearest(weight) - weight).abs()
    assert (error <= largest / 127 / 2 * 1.001).all()
    assert (written.nearest(weight)[3] == 0).all()


def test_the_compressed_tensors_library_reads_the_same_weight() -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    codes = torch.randint(-128, 128, (6, 16), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    tensors = ScaledWeight(codes, (torch.rand(6, 1) + 0.1).bfloat16()).tensors()
    scheme = quantization.QuantizationScheme(targets=["Linear"], **DYNAMIC.config_group())
    read = compressors.BaseCompressor.get_value_from_registry("int-quantized").decompress(tensors, scheme)
    assert torch.equal(read["weight"], DYNAMIC.decode(tensors, torch.bfloat16))
