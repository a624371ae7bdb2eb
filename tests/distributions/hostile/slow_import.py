"""A plugin that does its work when it is imported."""

import time

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl

time.sleep(1.1)


@hookimpl
def method_spec():
    return MethodSpec("slow_import", ToyConfig, "hostile", api_version=1, needs_calibration=False)
