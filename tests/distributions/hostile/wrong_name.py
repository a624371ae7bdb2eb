"""An entry point and a method_spec that disagree on the name."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("another", ToyConfig, "hostile", api_version=1, needs_calibration=False)
