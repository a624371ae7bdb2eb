"""A method made of the toy, with some of its hooks replaced, and a layer to call them on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from hyocr_core.contract.types import Batch, Layer
from hyocr_core.plugin.registry import Method, load_method

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

NAME = "model.layers.3.mlp.up_proj"
WHERE = "method odd (hyocr-plugin-odd 0.0.1), hook {hook}, " + NAME + ": "

SOURCE = """
import torch
from hyocr_core import ConfigError, MethodSpec, Prepared, QuantizedLayer, RunError, Stat, hookimpl
from hyocr_plugin_toy import plugin as toy
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

@hookimpl
def method_spec():
    return MethodSpec("odd", ToyConfig, "odd", api_version=1, needs_calibration=False)
"""

RESULT = "@hookimpl\ndef quantize_layer(layer, stats, config):\n    good = toy.quantize_layer(layer, config)\n    {}\n"
GROUP = """
@hookimpl
def quantize_group(layers, config):
    good = [toy.quantize_layer(layer, config) for layer in layers]
    {}
"""


def some_layer() -> Layer:
    """Of random numbers, always the same."""
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    return Layer(NAME, weight)


def odd(plugins: PluginFolder, body: str) -> Method:
    """Load the toy method with some of its hooks replaced by `body`."""
    plugins.toy()
    plugins.module("odd", SOURCE + body)
    return load_method("odd")


def toy(plugins: PluginFolder) -> Method:
    plugins.toy()
    return load_method("toy")


def pair(layer: Layer) -> list[Layer]:
    """Two layers that share an input."""
    return [Layer("q", layer.weight), Layer("k", layer.weight.neg())]


class NoBatches:
    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Batch]:
        return iter(())
