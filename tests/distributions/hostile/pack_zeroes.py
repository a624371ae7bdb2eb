"""A pack that loses all codes; the run would go on, and the checkpoint read nothing."""

from hyocr_plugin_toy import plugin as toy
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("pack_zeroes", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def pack(layer):
    packed = toy.pack(layer)
    packed["weight_packed"].zero_()
    return packed
