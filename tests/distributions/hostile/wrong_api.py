"""A method for a later plugin API, with a hook this core does not know."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("wrong_api", ToyConfig, "hostile", api_version=2, needs_calibration=False)


@hookimpl
def quantize_model(model):
    return None
