"""The method `rtn`, round to nearest (RTN): hooks only. The floor that other methods have to beat, in their formats."""

from __future__ import annotations

from hyocr_core import Layer, MethodSpec, QuantizedLayer, hookimpl
from hyocr_plugin_gptq.config import RtnConfig
from hyocr_plugin_gptq.storage import check_layers, checkpoint_config, pack, unpack

__all__ = ["check_layers", "checkpoint_config", "method_spec", "pack", "quantize_layer", "unpack"]


@hookimpl
def method_spec() -> MethodSpec:
    summary = "4 or 8 bit weights, each rounded to the nearest value; needs no calibration"
    return MethodSpec("rtn", RtnConfig, summary, api_version=1, needs_calibration=False)


@hookimpl
def quantize_layer(layer: Layer, config: RtnConfig) -> QuantizedLayer:
    from hyocr_plugin_gptq.layers import quantize_rtn

    return quantize_rtn(layer, config)
