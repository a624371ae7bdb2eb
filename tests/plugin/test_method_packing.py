"""`pack` and `unpack` are held against each other, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from hyocr_core.contract.types import Layer
from hyocr_core.errors import HookError
from tests.plugin.odd import NAME, WHERE, odd, toy

if TYPE_CHECKING:
    from tests.conftest import PluginFolder


PACKS = "@hookimpl\ndef pack(layer):\n    packed = toy.pack(layer)\n    {}\n    return packed\n"


def test_what_is_packed_exactly_is_what_pack_returns(plugins: PluginFolder, layer: Layer) -> None:
    method = toy(plugins)
    quantized = method.quantize_layer(layer, None, method.config({}))
    exact, plain = method.pack_exactly(quantized, method.config({})), method.pack(quantized, method.config({}))
    assert exact.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in exact.items())


@pytest.mark.parametrize(
    ("lie", "hook", "problem"),
    [
        ("packed['weight_scale'][2] = float('nan')", "unpack", "returned NaN or infinite values"),
        (
            "packed['weight_packed'].zero_()",
            "pack",
            "lost something: unpack does not give the weight back: 48 of 48 values differ, the first at [0, 0]: ",
        ),
        (
            "packed['weight_packed'][5, 1] ^= 1 << 24",
            "pack",
            "lost something: unpack does not give the weight back: 1 of 48 values differ, the first at [5, 7]: ",
        ),
        (
            "packed['weight_scale'] = packed['weight_scale'].float()",
            "pack",
            "lost something: unpack does not give the weight back: "
            "torch.float32 (6, 8) instead of torch.bfloat16 (6, 8)",
        ),
        (
            "packed['weight_packed'] = packed['weight_packed'][:, :1]",
            "unpack",
            "returned a weight of shape [6, 4], the layer has [6, 8]",
        ),
    ],
)
def test_a_pack_that_lies_names_the_plugin_and_the_layer(
    plugins: PluginFolder, layer: Layer, lie: str, hook: str, problem: str
) -> None:
    method = odd(plugins, PACKS.format(lie))
    quantized = method.quantize_layer(layer, None, method.config({}))
    with pytest.raises(HookError) as caught:
        method.pack_exactly(quantized, method.config({}))
    assert str(caught.value).startswith(WHERE.format(hook=hook) + problem)


def test_a_zero_may_lose_its_sign_when_it_is_packed(plugins: PluginFolder, layer: Layer) -> None:
    """Integer codes know one zero; the toy's dequantized weights have both."""
    method = toy(plugins)
    layer.weight[0, :2] = torch.tensor([-1e-9, 1e-9])
    quantized = method.quantize_layer(layer, None, method.config({}))
    assert quantized.dequantized[0, :2].signbit().tolist() == [True, False]
    assert method.pack_exactly(quantized, method.config({}))


def test_unpack_is_told_of_the_layer(plugins: PluginFolder, layer: Layer) -> None:
    body = (
        "@hookimpl\ndef unpack(tensors, layer):\n"
        f"    assert (layer.name, layer.shape, layer.kind) == ({NAME!r}, (6, 8), 'linear')\n"
        "    assert layer.dtype is torch.bfloat16\n"
        "    return toy.unpack(tensors)\n"
    )
    method = odd(plugins, body)
    method.pack_exactly(method.quantize_layer(layer, None, method.config({})), method.config({}))
