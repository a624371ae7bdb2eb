"""What config.json says of a whole checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import ConfigError
from hyocr_core.formats.base import Format


def checkpoint_config(layers: Mapping[str, Format], names: QuantizedNames) -> dict[str, Any]:
    """Return the `quantization_config`; layers: in-memory name -> what stores it."""
    [first, *others] = dict.fromkeys(layers.values())
    if others:
        raise ConfigError("layers have different options, for which the format has no room")
    return first.quantization_config(names)
