"""Changes the block without having said that it rescales."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("settle_writes", ToyConfig, "hostile", api_version=1)


@hookimpl
def calibrate(block):
    return {name: {} for name in block.layers}


@hookimpl
def settle(block, stats):
    for layer in block.layers.values():
        layer.weight.data.mul_(2)
    return stats
