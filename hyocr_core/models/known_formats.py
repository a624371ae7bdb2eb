"""What the quantization_config of a HunyuanOCR checkpoint says, in terms of the formats that are installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyocr_core.errors import CheckpointError
from hyocr_core.formats import Runtime, StoredFormats
from hyocr_core.formats.runtimes import Shapes, unknown
from hyocr_core.models.spelling import spellings
from hyocr_core.plugin.formats import read_formats


def stored_formats(config: object) -> StoredFormats:
    """Read a quantization_config; names of linears may be published or in-memory ones.

    Raises CheckpointError naming the key and value that is not read, FormatError when a format cannot be used.
    """
    if not isinstance(config, Mapping):
        raise CheckpointError("config.json: quantization_config must be an object")
    return read_formats(config, spellings)


def known_formats(config: Mapping[str, Any]) -> StoredFormats | None:
    """The same; None for a format that nobody registered, which a method may well write."""
    try:
        return stored_formats(config)
    except CheckpointError:
        return None


def known_runtimes(config: Mapping[str, Any], shapes: Shapes) -> list[Runtime]:
    """Say of each runtime whether it loads a checkpoint with this quantization_config; shapes: linears by name."""
    formats = known_formats(config)
    return unknown(config) if formats is None else formats.runtimes(shapes)
