"""The method `gguf`: hooks only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyocr_core import (
    Batches,
    Block,
    Collected,
    ConfigError,
    Layer,
    LayerSpec,
    MethodSpec,
    Model,
    Prepared,
    QuantizedLayer,
    QuantizedNames,
    Stats,
    hookimpl,
)
from hyocr_plugin_gguf.config import GgufConfig

if TYPE_CHECKING:
    from torch import Tensor


@hookimpl
def method_spec() -> MethodSpec:
    summary = "GGUF files for llama.cpp and Ollama, 4 or 8 bit codes calibrated on pages (GPTQ)"
    return MethodSpec("gguf", GgufConfig, summary, api_version=1, inputs="group", reference_inputs=True)


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]], config: GgufConfig) -> None:
    for name, (_, inputs) in shapes.items():
        if inputs % config.block:
            raise ConfigError(
                f"{name}: its width of {inputs} input channels is not a multiple of {config.block}, the block of "
                f"{config.type}; leave the layer out with `ignore`, or give it type: f16"
            )


@hookimpl
def prepare(model: Model, config: GgufConfig) -> Prepared | None:
    if config.type != "q4_k_m":
        return None
    from hyocr_plugin_gguf.mixture import of_more_bits

    # Those that blocks do not fill have a fallback, which an override would take from them.
    filled = [name for name, layer in model.layers.items() if layer.shape[1] % config.block == 0]
    return Prepared(overrides={name: {"more_bits": True} for name in of_more_bits(filled)})


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
def quantize_layer(layer: Layer, stats: Stats | None, config: GgufConfig) -> QuantizedLayer:
    return _quantize([layer], stats, config)[0]


@hookimpl
def quantize_group(layers: Sequence[Layer], stats: Stats | None, config: GgufConfig) -> list[QuantizedLayer]:
    return _quantize(layers, stats, config)


def _quantize(layers: Sequence[Layer], stats: Stats | None, config: GgufConfig) -> list[QuantizedLayer]:
    from hyocr_plugin_gguf.layers import quantize_nearest, quantize_solved

    if config.solves:
        return quantize_solved(layers, stats, config)
    return [quantize_nearest(layer, config) for layer in layers]


@hookimpl
def pack(layer: QuantizedLayer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in layer.tensors.items()}


@hookimpl
def unpack(tensors: dict[str, Tensor], layer: LayerSpec, config: GgufConfig) -> Tensor:
    from hyocr_plugin_gguf.stored import GgufFormat

    return GgufFormat(config.stored_type(layer.name)).decode(tensors, layer.dtype)


@hookimpl
def checkpoint_config(names: QuantizedNames, layers: Mapping[str, GgufConfig]) -> dict[str, Any]:
    from hyocr_plugin_gguf.stored import GgufFormat
    from hyocr_plugin_gguf.stored import checkpoint_config as written_config

    return written_config({name: GgufFormat(own.stored_type(name), own.solves) for name, own in layers.items()}, names)


@hookimpl
def export(checkpoint: Path, folder: Path, config: GgufConfig) -> None:
    from hyocr_plugin_gguf.export import export_files

    export_files(checkpoint, folder, config)
