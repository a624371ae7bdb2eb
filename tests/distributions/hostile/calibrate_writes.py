"""Rescales the block while it gathers, before the statistics of all processes are one."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("calibrate_writes", ToyConfig, "hostile", api_version=1, rescales_block=True)


@hookimpl
def calibrate(block):
    for layer in block.layers.values():
        layer.weight.data.mul_(2)
    return {name: {} for name in block.layers}
