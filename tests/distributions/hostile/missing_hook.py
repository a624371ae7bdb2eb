"""A method that can pack but not unpack."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("missing_hook", ToyConfig, "hostile", api_version=1, needs_calibration=False)
