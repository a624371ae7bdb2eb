"""Hooks that both methods share: what a checkpoint holds does not depend on how its codes were found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hyocr_core import QuantizedLayer, QuantizedNames, hookimpl
from hyocr_plugin_gptq import formats
from hyocr_plugin_gptq.config import RtnConfig

if TYPE_CHECKING:
    from torch import Tensor


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]], config: RtnConfig) -> None:
    formats.check_shapes(shapes, config)


@hookimpl
def pack(layer: QuantizedLayer, config: RtnConfig) -> dict[str, Tensor]:
    from hyocr_plugin_gptq import layers

    return layers.pack(layer, config)


@hookimpl
def unpack(tensors: dict[str, Tensor], config: RtnConfig) -> Tensor:
    from hyocr_plugin_gptq import layers

    return layers.unpack(tensors, config)


@hookimpl
def checkpoint_config(names: QuantizedNames, config: RtnConfig) -> dict[str, Any]:
    if config.format == "gptq":
        return formats.gptq_config(config)
    return formats.compressed_config(names, config)
