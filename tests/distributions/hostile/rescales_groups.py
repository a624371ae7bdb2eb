"""A method that wants to rescale what it sees a part of only."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("rescales_groups", ToyConfig, "hostile", api_version=1, rescales_block=True, inputs="group")


@hookimpl
def calibrate(block):
    return {name: {} for name in block.layers}
