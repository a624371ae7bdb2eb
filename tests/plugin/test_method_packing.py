"""`pack` and `unpack` are held against each other, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hyocr_core.contract.types import Layer
from hyocr_core.errors import HookError
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.tiny import write_checkpoint
from tests.plugin.odd import NAME, SOURCE, WHERE, odd, toy

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
        ("packed['weight_scale'][2] = float('nan')", "pack", "returned NaN or infinite values in 'weight_scale'"),
        (
            "packed = {name: tensor.mul(0) for name, tensor in packed.items()}",
            "pack",
            "returned nothing but zeros, the weight is not zero",
        ),
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


CHEAT = """
KEPT = {{}}

@hookimpl
def pack(layer):
    KEPT[layer.name] = layer.dequantized
    packed = toy.pack(layer)
    {}
    return packed

@hookimpl
def unpack(layer):
    return KEPT[layer.name]
"""


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        ("packed['weight_scale'][1] = float('nan')", "returned NaN or infinite values in 'weight_scale'"),
        ("packed = {name: tensor.mul(0) for name, tensor in packed.items()}", "returned nothing but zeros"),
        ("packed['weight_packed'].zero_()", "does not hold the weight: the format that checkpoint_config names"),
        ("packed['weight_scale'].zero_()", "does not hold the weight: the format that checkpoint_config names"),
    ],
)
def test_what_runtimes_would_read_counts_whatever_unpack_says(
    lie: str, problem: str, plugins: PluginFolder, tmp_path: Path
) -> None:
    plugins.toy()
    plugins.module("odd", SOURCE + CHEAT.format(lie))
    write_checkpoint(tmp_path / "model")
    with pytest.raises(HookError, match=f"hook pack, .*: {problem}"):
        quantize(RunConfig(model=str(tmp_path / "model"), output=tmp_path / "out", method="odd", device="cpu"))
    assert not (tmp_path / "out").exists()


def test_a_weight_of_zeros_is_no_quantized_one(plugins: PluginFolder, layer: Layer) -> None:
    body = "@hookimpl\ndef quantize_layer(layer, config):\n    good = toy.quantize_layer(layer, config)\n"
    method = odd(plugins, f"{body}    good.dequantized.zero_()\n    return good\n")
    with pytest.raises(HookError, match="dequantized is all zeros, the weight is not"):
        method.quantize_layer(layer, None, method.config({}))
    layer.weight.zero_()
    method.pack_exactly(method.quantize_layer(layer, None, method.config({})), method.config({}))
