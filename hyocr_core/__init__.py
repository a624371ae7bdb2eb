"""hyocr: make HunyuanOCR small and fast, and prove that it still reads. The public names of the core."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hyocr_core._version import __version__ as __version__
from hyocr_core.contract.backend import (
    Backend,
    BackendConfig,
    ModelToRead,
    PageAnswer,
    PageToRead,
    Serving,
    ServingBackend,
    TimedAnswer,
)
from hyocr_core.contract.config import Fallback, MethodConfig, WeightedConfig
from hyocr_core.contract.decoding import Decoding
from hyocr_core.contract.hookspecs import hookimpl
from hyocr_core.contract.metric import Metric, MetricConfig
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
    BackendError,
    BadInputError,
    CalibrationError,
    CheckpointError,
    ConfigError,
    FormatError,
    HookError,
    HyocrError,
    MethodError,
    MetricError,
    ObserverError,
    OutputError,
    RunError,
)
from hyocr_core.progress import Progress

if TYPE_CHECKING:
    from hyocr_core.api import bench, evaluate, quantize, verify
    from hyocr_core.checkpoint.quant_report import QuantReport
    from hyocr_core.evaluation.scores.rates import normalize
    from hyocr_core.evaluation.scores.result import EvalResult
    from hyocr_core.evaluation.scores.speeds import BenchResult
    from hyocr_core.settings.eval_config import EvalConfig
    from hyocr_core.settings.run_config import RunConfig
    from hyocr_core.verification.verdict import VerifyResult

__all__ = [
    "API_VERSION",
    "Backend",
    "BackendConfig",
    "BackendError",
    "BadInputError",
    "Batch",
    "Batches",
    "BenchResult",
    "Block",
    "CalibrationError",
    "CheckpointError",
    "Collected",
    "ConfigError",
    "Decoding",
    "EvalConfig",
    "EvalResult",
    "Fallback",
    "FormatError",
    "HookCall",
    "HookError",
    "HyocrError",
    "Layer",
    "LayerSpec",
    "MethodConfig",
    "MethodError",
    "MethodSpec",
    "Metric",
    "MetricConfig",
    "MetricError",
    "Model",
    "ModelToRead",
    "Observer",
    "ObserverConfig",
    "ObserverError",
    "OutputError",
    "PageAnswer",
    "PageToRead",
    "Prepared",
    "Progress",
    "QuantReport",
    "QuantizedLayer",
    "QuantizedNames",
    "Record",
    "RunConfig",
    "RunError",
    "Serving",
    "ServingBackend",
    "Smoothing",
    "Source",
    "SourceConfig",
    "Stat",
    "Stats",
    "TimedAnswer",
    "VerifyResult",
    "WeightedConfig",
    "bench",
    "evaluate",
    "hookimpl",
    "normalize",
    "quantize",
    "verify",
]


# Names that need torch, or that plugins do not, load on first use, so that `import hyocr_core` stays instant.
_LAZY = {
    "BenchResult": "hyocr_core.evaluation.scores.speeds",
    "EvalConfig": "hyocr_core.settings.eval_config",
    "EvalResult": "hyocr_core.evaluation.scores.result",
    "QuantReport": "hyocr_core.checkpoint.quant_report",
    "RunConfig": "hyocr_core.settings.run_config",
    "VerifyResult": "hyocr_core.verification.verdict",
    "bench": "hyocr_core.api",
    "evaluate": "hyocr_core.api",
    "normalize": "hyocr_core.evaluation.scores.rates",
    "quantize": "hyocr_core.api",
    "verify": "hyocr_core.api",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
