"""Which format stores a linear of a checkpoint, by what its config.json says."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from hyocr_plugin_gguf.stored import GgufFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hyocr_plugin_gguf.opened import Opened


def format_of(opened: Opened, name: str) -> GgufFormat:
    """The format of the linear whose codes have this published name."""
    settings: Mapping[str, Any] = opened.raw["quantization_config"]
    module = name.rpartition(".")[0]
    for other, own in settings.get("layers", {}).items():
        if _published(other) == module:
            return GgufFormat.read(own)
    return GgufFormat.read(settings)


@cache
def _published(module: str) -> str:
    from hyocr_plugin_gguf.opened import published

    return published(f"{module}.weight").removesuffix(".weight")
