"""Hooks that both methods share: what a checkpoint holds does not depend on how its codes were found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hyocr_core import QuantizedLayer, QuantizedNames, hookimpl
from hyocr_core.formats import check_shapes
from hyocr_core.formats import checkpoint_config as written_config
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
    from hyocr_core.kit import pack_integers

    return pack_integers(layer, config.on_disk, config.bits)


@hookimpl
def unpack(tensors: dict[str, Tensor], config: RtnConfig) -> Tensor:
    from hyocr_core.kit import unpack_integers

    return unpack_integers(tensors, config.on_disk)


@hookimpl
def checkpoint_config(names: QuantizedNames, layers: Mapping[str, RtnConfig]) -> dict[str, Any]:
    return written_config({name: config.on_disk for name, config in layers.items()}, names)
