"""An optional hook under a name that no hookspec has: pluggy alone would never call it."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("misspelt_optional", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def check_layer(shapes):
    return None
