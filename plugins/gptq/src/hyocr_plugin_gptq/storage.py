"""Hooks that both methods share: what a checkpoint holds does not depend on how its codes were found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hyocr_core import QuantizedLayer, QuantizedNames, hookimpl
from hyocr_core.formats import check_shapes
from hyocr_plugin_gptq.config import RtnConfig

if TYPE_CHECKING:
    from torch import Tensor


ZEROS_UNEVEN = (
    "its zero points do not fill whole int32; use format: compressed-tensors with sym: true, "
    "or leave it out with `ignore`"
)


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]], config: RtnConfig) -> None:
    stores_zeros = config.format == "gptq" or not config.sym
    check_shapes(
        shapes, bits=config.bits, group_size=config.group_size, packs_outputs=ZEROS_UNEVEN if stores_zeros else None
    )


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
    return config.on_disk.quantization_config(names)
