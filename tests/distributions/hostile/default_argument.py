"""A hook whose stats pluggy would never pass, because they have a default."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("default_argument", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def quantize_layer(layer, config, stats=None):
    return None
