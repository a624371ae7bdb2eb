"""hyocr: make HunyuanOCR small and fast, and prove that it still reads. The public names of the core."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hyocr_core.config import MethodConfig
from hyocr_core.errors import (
    BadInputError,
    CalibrationError,
    CheckpointError,
    ConfigError,
    HookError,
    HyocrError,
    MethodError,
    OutputError,
    RunError,
)
from hyocr_core.hookspecs import hookimpl
from hyocr_core.types import (
    API_VERSION,
    Batch,
    Batches,
    Block,
    Layer,
    MethodSpec,
    QuantizedLayer,
    QuantizedNames,
    Smoothing,
    Stats,
)

if TYPE_CHECKING:
    from hyocr_core.numerics import check_weights, is_finite
    from hyocr_core.observe import observe_inputs

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "BadInputError",
    "Batch",
    "Batches",
    "Block",
    "CalibrationError",
    "CheckpointError",
    "ConfigError",
    "HookError",
    "HyocrError",
    "Layer",
    "MethodConfig",
    "MethodError",
    "MethodSpec",
    "OutputError",
    "QuantizedLayer",
    "QuantizedNames",
    "RunError",
    "Smoothing",
    "Stats",
    "check_weights",
    "hookimpl",
    "is_finite",
    "observe_inputs",
]


# Names that need torch load on first use, so that `import hyocr_core` stays instant.
_LAZY = {
    "check_weights": "hyocr_core.numerics",
    "is_finite": "hyocr_core.numerics",
    "observe_inputs": "hyocr_core.observe",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
