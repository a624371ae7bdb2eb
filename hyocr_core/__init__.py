"""hyocr: make HunyuanOCR small and fast, and prove that it still reads. The public names of the core."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hyocr_core.config import MethodConfig, RunConfig, WeightedConfig
from hyocr_core.errors import (
    BadInputError,
    CalibrationError,
    CheckpointError,
    ConfigError,
    HookError,
    HyocrError,
    MethodError,
    ObserverError,
    OutputError,
    RunError,
)
from hyocr_core.hookspecs import hookimpl
from hyocr_core.observers.contract import Observer, ObserverConfig
from hyocr_core.progress import Progress
from hyocr_core.types import (
    API_VERSION,
    Batch,
    Batches,
    Block,
    HookCall,
    Layer,
    MethodSpec,
    QuantizedLayer,
    QuantizedNames,
    Smoothing,
    Stats,
)

if TYPE_CHECKING:
    from hyocr_core.api import evaluate, quantize, verify
    from hyocr_core.checkpoint.report import QuantReport
    from hyocr_core.evaluation.result import EvalResult
    from hyocr_core.numerics import check_weights, is_finite
    from hyocr_core.observe import observe_inputs, observe_weighted
    from hyocr_core.verification.result import VerifyResult

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
    "EvalResult",
    "HookCall",
    "HookError",
    "HyocrError",
    "Layer",
    "MethodConfig",
    "MethodError",
    "MethodSpec",
    "Observer",
    "ObserverConfig",
    "ObserverError",
    "OutputError",
    "Progress",
    "QuantReport",
    "QuantizedLayer",
    "QuantizedNames",
    "RunConfig",
    "RunError",
    "Smoothing",
    "Stats",
    "VerifyResult",
    "WeightedConfig",
    "check_weights",
    "evaluate",
    "hookimpl",
    "is_finite",
    "observe_inputs",
    "observe_weighted",
    "quantize",
    "verify",
]


# Names that need torch, or that plugins do not, load on first use, so that `import hyocr_core` stays instant.
_LAZY = {
    "EvalResult": "hyocr_core.evaluation.result",
    "QuantReport": "hyocr_core.checkpoint.report",
    "VerifyResult": "hyocr_core.verification.result",
    "check_weights": "hyocr_core.numerics",
    "evaluate": "hyocr_core.api",
    "is_finite": "hyocr_core.numerics",
    "observe_inputs": "hyocr_core.observe",
    "observe_weighted": "hyocr_core.observe",
    "quantize": "hyocr_core.api",
    "verify": "hyocr_core.api",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
