"""A finished checkpoint as the export reads it: tensors by published name, and the files beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyocr_core import CheckpointError
from hyocr_plugin_gguf.stored import GgufFormat

if TYPE_CHECKING:
    from torch import Tensor


class Opened:
    """The checkpoint in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = self.read_json("config.json") or {}

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object beside the weights; None where there is none."""
        path = self.folder / name
        if not path.is_file():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise CheckpointError(f"{path} holds no JSON object")
        return found

    @cached_property
    def config(self) -> Any:
        """Transformers' view of config.json, the same for either generation."""
        from transformers import HunYuanVLConfig

        return HunYuanVLConfig.from_dict({k: v for k, v in self.raw.items() if k != "quantization_config"})

    @cached_property
    def places(self) -> Mapping[str, tuple[Path, str]]:
        """Published name -> file and stored name of every tensor."""
        from safetensors import safe_open

        found: dict[str, tuple[Path, str]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                found |= {published(name): (path, name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the tensor with this published name."""
        from safetensors import safe_open

        path, stored = self.places[name]
        with safe_open(path, framework="pt") as file:
            return tuple(file.get_slice(stored).get_shape())

    def format_of(self, name: str) -> GgufFormat:
        """The format of the linear whose codes have this published name, by what config.json says."""
        settings = self.raw["quantization_config"]
        module = name.rpartition(".")[0]
        for other, own in settings.get("layers", {}).items():
            if published(f"{other}.weight") == f"{module}.weight":
                return GgufFormat.read(own)
        return GgufFormat.read(settings)

    def read(self, name: str) -> Tensor:
        """The tensor with this published name."""
        from safetensors import safe_open

        path, stored = self.places[name]
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(stored)
        return tensor


@cache
def published(name: str) -> str:
    """The name that the published checkpoint gives a tensor, from that or from Transformers'."""
    for renaming in _renamings():
        name = renaming.rename_source_key(name)[0]
    return name


@cache
def _renamings() -> tuple[Any, ...]:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    forth = tuple(get_checkpoint_conversion_mapping("hunyuan_vl"))  # type: ignore[no-untyped-call]
    return (*forth, *(renaming.reverse_transform() for renaming in reversed(forth)))
