"""hyocr: make HunyuanOCR small and fast, and prove that it still reads. The public names of the core."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hyocr_core._version import __version__ as __version__
from hyocr_core.contract.config import MethodConfig, WeightedConfig
from hyocr_core.contract.hookspecs import hookimpl
from hyocr_core.contract.observer import Observer, ObserverConfig
from hyocr_core.contract.page_source import Record, Source, SourceConfig
from hyocr_core.contract.types import (
    API_VERSION,
    Batch,
    Batches,
    Block,
    Collected,
    HookCall,
    Layer,
    LayerSpec,
    MethodSpec,
    Model,
    Prepared,
    QuantizedLayer,
    QuantizedNames,
    Smoothing,
    Stat,
    Stats,
)
from hyocr_core.errors import (
    BadInputError,
    CalibrationError,
    CheckpointError,
    ConfigError,
    FormatError,
    HookError,
    HyocrError,
    MethodError,
    ObserverError,
    OutputError,
    RunError,
)
from hyocr_core.progress import Progress
from hyocr_core.settings.run_config import RunConfig

if TYPE_CHECKING:
    from hyocr_core.api import evaluate, quantize, verify
    from hyocr_core.checkpoint.quant_report import QuantReport
    from hyocr_core.evaluation.scores.result import EvalResult
    from hyocr_core.verification.verdict import VerifyResult

__all__ = [
    "API_VERSION",
    "BadInputError",
    "Batch",
    "Batches",
    "Block",
    "CalibrationError",
    "CheckpointError",
    "Collected",
    "ConfigError",
    "EvalResult",
    "FormatError",
    "HookCall",
    "HookError",
    "HyocrError",
    "Layer",
    "LayerSpec",
    "MethodConfig",
    "MethodError",
    "MethodSpec",
    "Model",
    "Observer",
    "ObserverConfig",
    "ObserverError",
    "OutputError",
    "Prepared",
    "Progress",
    "QuantReport",
    "QuantizedLayer",
    "QuantizedNames",
    "Record",
    "RunConfig",
    "RunError",
    "Smoothing",
    "Source",
    "SourceConfig",
    "Stat",
    "Stats",
    "VerifyResult",
    "WeightedConfig",
    "evaluate",
    "hookimpl",
    "quantize",
    "verify",
]


# Names that need torch, or that plugins do not, load on first use, so that `import hyocr_core` stays instant.
_LAZY = {
    "EvalResult": "hyocr_core.evaluation.scores.result",
    "QuantReport": "hyocr_core.checkpoint.quant_report",
    "VerifyResult": "hyocr_core.verification.verdict",
    "evaluate": "hyocr_core.api",
    "quantize": "hyocr_core.api",
    "verify": "hyocr_core.api",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
