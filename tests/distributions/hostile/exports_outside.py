"""An export that writes beside the folder it was given."""

from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

from hyocr_core import MethodSpec, hookimpl


@hookimpl
def method_spec():
    return MethodSpec("exports_outside", ToyConfig, "hostile", api_version=1, needs_calibration=False)


@hookimpl
def export(checkpoint, folder):
    (checkpoint / "model.gguf").write_bytes(b"GGUF")
