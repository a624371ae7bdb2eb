"""Statistics that do not say how they merge: what another process gathered could not be added to them."""

import torch
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("plain_stats", ToyConfig, "hostile", api_version=1)


@hookimpl
def calibrate(block):
    return {name: {"mean": torch.ones(1)} for name in block.layers}
