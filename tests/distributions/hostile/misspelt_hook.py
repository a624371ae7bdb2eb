"""A required hook under a name that no hookspec has."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("misspelt_hook", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def quantise_layer(layer, config):
    return None
