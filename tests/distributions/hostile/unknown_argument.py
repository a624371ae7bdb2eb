"""A hook that asks for what the core does not pass."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("unknown_argument", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def quantize_layer(layer, hessian, config):
    return None
