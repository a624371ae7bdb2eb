"""The method `awq`: hooks only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hyocr_core import Batches, Block, Layer, MethodSpec, QuantizedLayer, QuantizedNames, Stats, hookimpl
from hyocr_core.formats import check_shapes
from hyocr_plugin_awq.config import AwqConfig

if TYPE_CHECKING:
    from torch import Tensor

UNEVEN = "zero points fill no whole int32; use zero_point: false, or leave it out with `ignore`"


@hookimpl
def method_spec() -> MethodSpec:
    summary = "4 or 8 bit weights, channels scaled by how strongly their inputs act (AWQ)"
    return MethodSpec("awq", AwqConfig, summary, api_version=1, rescales_block=True)


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]], config: AwqConfig) -> None:
    uneven = UNEVEN if config.zero_point else None
    check_shapes(shapes, bits=config.bits, group_size=config.group_size, packs_outputs=uneven)


@hookimpl
def calibrate(block: Block, batches: Batches, config: AwqConfig) -> dict[str, Stats]:
    from hyocr_plugin_awq import smooth

    return smooth.calibrate(block, batches, config)


@hookimpl
def quantize_layer(layer: Layer, stats: Stats | None, config: AwqConfig) -> QuantizedLayer:
    from hyocr_plugin_awq import layers

    return layers.quantize(layer, stats, config)


@hookimpl
def pack(layer: QuantizedLayer, config: AwqConfig) -> dict[str, Tensor]:
    from hyocr_plugin_awq import layers

    return layers.pack(layer, config)


@hookimpl
def unpack(tensors: dict[str, Tensor], config: AwqConfig) -> Tensor:
    from hyocr_plugin_awq import layers

    return layers.unpack(tensors, config)


@hookimpl
def checkpoint_config(names: QuantizedNames, config: AwqConfig) -> dict[str, Any]:
    return config.on_disk.quantization_config(names)
