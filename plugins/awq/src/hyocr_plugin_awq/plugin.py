"""The method `awq`: hooks only."""

from __future__ import annotations

from collections.abc import Mapping
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
from hyocr_core.formats import check_shapes
from hyocr_core.formats import checkpoint_config as written_config
from hyocr_plugin_awq.config import AwqConfig

if TYPE_CHECKING:
    from torch import Tensor

UNEVEN = "zero points fill no whole int32; use zero_point: false, or leave it out with `ignore`"


@hookimpl
def method_spec() -> MethodSpec:
    summary = "4 or 8 bit weights, channels scaled by how strongly their inputs act (AWQ)"
    return MethodSpec("awq", AwqConfig, summary, api_version=1, rescales_block=True, original_inputs=True)


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]], config: AwqConfig) -> None:
    uneven = UNEVEN if config.zero_point else None
    check_shapes(shapes, bits=config.bits, group_size=config.group_size, packs_outputs=uneven)


@hookimpl
def calibrate(block: Block, batches: Batches) -> dict[str, Collected]:
    from hyocr_plugin_awq.inputs import collect_inputs

    return collect_inputs(block, batches)


@hookimpl
def settle(block: Block, batches: Batches, stats: dict[str, Stats]) -> dict[str, Stats]:
    from hyocr_plugin_awq import smooth

    return smooth.settle(block, batches, stats)


@hookimpl
def quantize_layer(layer: Layer, stats: Stats | None, config: AwqConfig) -> QuantizedLayer:
    from hyocr_plugin_awq import layers

    return layers.quantize(layer, stats, config)


@hookimpl
def pack(layer: QuantizedLayer, config: AwqConfig) -> dict[str, Tensor]:
    from hyocr_core.kit import pack_integers

    return pack_integers(layer, config.on_disk, config.bits)


@hookimpl
def unpack(tensors: dict[str, Tensor], config: AwqConfig) -> Tensor:
    from hyocr_core.kit import unpack_integers

    return unpack_integers(tensors, config.on_disk)


@hookimpl
def checkpoint_config(names: QuantizedNames, layers: Mapping[str, AwqConfig]) -> dict[str, Any]:
    return written_config({name: config.on_disk for name, config in layers.items()}, names)
