"""The method `gptq`: hooks only."""

from __future__ import annotations

from collections.abc import Sequence

from hyocr_core import (
    Batches,
    Block,
    Collected,
    Layer,
    MethodSpec,
    QuantizedLayer,
    Stats,
    hookimpl,
)
from hyocr_plugin_gptq.config import GptqConfig
from hyocr_plugin_gptq.storage import check_layers, checkpoint_config, pack, unpack

__all__ = [
    "calibrate",
    "check_layers",
    "checkpoint_config",
    "method_spec",
    "pack",
    "quantize_group",
    "quantize_layer",
    "settle",
    "unpack",
]


@hookimpl
def method_spec() -> MethodSpec:
    summary = "4 or 8 bit weights, errors corrected by second-order information (GPTQ)"
    return MethodSpec(
        "gptq",
        GptqConfig,
        summary,
        api_version=1,
        inputs="group",
        reference_inputs=True,
        layers_apart=True,
        learns_alike=True,
    )


@hookimpl
def calibrate(block: Block, batches: Batches) -> dict[str, Collected]:
    from hyocr_core.kit import collect_hessians

    return collect_hessians(block, batches)


@hookimpl
def settle(stats: dict[str, Stats]) -> dict[str, Stats]:
    from hyocr_core.kit import settle_hessians

    settle_hessians(stats)
    return stats


@hookimpl
def quantize_layer(layer: Layer, stats: Stats | None, config: GptqConfig) -> QuantizedLayer:
    from hyocr_plugin_gptq.layers import quantize_gptq

    return quantize_gptq([layer], stats, config)[0]


@hookimpl
def quantize_group(layers: Sequence[Layer], stats: Stats | None, config: GptqConfig) -> list[QuantizedLayer]:
    from hyocr_plugin_gptq.layers import quantize_gptq

    return quantize_gptq(layers, stats, config)
