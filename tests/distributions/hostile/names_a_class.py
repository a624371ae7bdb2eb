"""An entry point that names a class: pluggy would register it and call its functions without an instance."""

from hyocr_plugin_toy.plugin import ToyConfig

from hyocr_core import MethodSpec, hookimpl


class Plugin:
    @hookimpl
    def method_spec(self):
        return MethodSpec("names_a_class", ToyConfig, "hostile", api_version=1, needs_calibration=False)
