"""The method `fp8`: hooks only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyocr_core import (
    Batches,
    Block,
    Collected,
    Layer,
    MethodSpec,
    QuantizedLayer,
    QuantizedNames,
    Stats,
    hookimpl,
)
from hyocr_core.formats import checkpoint_config as written_config
from hyocr_plugin_fp8.config import Fp8Config
from hyocr_plugin_fp8.shapes import check_cache, check_multiples

if TYPE_CHECKING:
    from torch import Tensor


@hookimpl
def method_spec() -> MethodSpec:
    summary = "8-bit float weights and activations (FP8 E4M3), static or dynamic"
    return MethodSpec("fp8", Fp8Config, summary, api_version=1, original_inputs=True)


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]]) -> None:
    check_multiples(shapes)


@hookimpl
def calibrate(block: Block, batches: Batches) -> dict[str, Collected]:
    from hyocr_plugin_fp8 import calibration

    return calibration.calibrate(block, batches)


@hookimpl
def settle(block: Block, stats: dict[str, Stats]) -> dict[str, Stats]:
    from hyocr_plugin_fp8 import calibration

    return calibration.settle(block, stats)


@hookimpl
def quantize_layer(layer: Layer, stats: Stats | None, config: Fp8Config) -> QuantizedLayer:
    from hyocr_plugin_fp8.layers import quantize_layers

    return quantize_layers([layer], stats, config)[0]


@hookimpl
def quantize_group(layers: Sequence[Layer], stats: Stats | None, config: Fp8Config) -> list[QuantizedLayer]:
    from hyocr_plugin_fp8.layers import quantize_layers

    return quantize_layers(layers, stats, config)


@hookimpl
def pack(layer: QuantizedLayer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in layer.tensors.items()}


@hookimpl
def unpack(tensors: dict[str, Tensor]) -> Tensor:
    from hyocr_plugin_fp8 import layers

    return layers.unpack(tensors)


@hookimpl
def quantize_inputs(inputs: Tensor, tensors: dict[str, Tensor], config: Fp8Config) -> Tensor:
    return config.on_disk.quantize_inputs(inputs, tensors)


@hookimpl
def checkpoint_config(names: QuantizedNames, layers: Mapping[str, Fp8Config]) -> dict[str, Any]:
    check_cache(names.ignored, layers)
    return written_config({name: config.on_disk for name, config in layers.items()}, names)
