"""A hook that quantizes in place, behind the back of the version counter."""

from hyocr_plugin_toy import plugin as toy
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("writes_input", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def quantize_layer(layer, config):
    layer.weight.data.mul_(2)
    return toy.quantize_layer(layer, config)
