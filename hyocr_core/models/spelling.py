"""The two names that everything in HunyuanOCR has: the published one, on disk, and that of Transformers, in memory."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

from hyocr_core.wording import phrase

MODEL_TYPE = "hunyuan_vl"
VISION = "model.vision_tower"
BLOCKS = "model.language_model.layers"
EMBEDDING = "model.language_model.embed_tokens"
NORM = "model.language_model.norm"

Tower = Literal["decoder", "vision tower"]


def memory_name(name: str) -> str:
    """The in-memory name of an on-disk tensor; a name that is an in-memory one already stays."""
    for renaming in _renamings():
        name = renaming.rename_source_key(name)[0]
    return name


def published_name(name: str) -> str:
    """The name that the published checkpoint gives the tensor with this in-memory name."""
    for renaming in _reversed():
        name = renaming.rename_source_key(name)[0]
    return name


def spellings(module: str) -> tuple[str, str]:
    """The published and the in-memory name of a module, from either."""
    memory = memory_name(f"{module}.weight")
    return published_name(memory).removesuffix(".weight"), memory.removesuffix(".weight")


def tower_of(module: str) -> Tower:
    """Where a block or a linear is, by either of its names."""
    return phrase("vision tower") if memory_name(f"{module}.weight").startswith(f"{VISION}.") else phrase("decoder")


@cache
def _renamings() -> tuple[Any, ...]:
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    return tuple(get_checkpoint_conversion_mapping(MODEL_TYPE))  # type: ignore[no-untyped-call]


@cache
def _reversed() -> tuple[Any, ...]:
    return tuple(renaming.reverse_transform() for renaming in reversed(_renamings()))
