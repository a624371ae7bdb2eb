"""A method under the name of another distribution's."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("toy", ToyConfig, "hostile", api_version=1, needs_calibration=False)
