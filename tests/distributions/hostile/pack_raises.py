"""A hook that raises late, when a layer is already quantized."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("pack_raises", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def pack(layer):
    raise KeyError(layer.name)
