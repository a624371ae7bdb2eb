"""A hook that raises."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("raises", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def quantize_layer(layer):
    raise ValueError("the sky fell\nsecond line")
