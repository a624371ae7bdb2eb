"""Evaluations of pages that a test has made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyocr_core.contract.page_source import Record
from hyocr_core.evaluation import evaluate as evaluation
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.pages.found import Found
from hyocr_core.progress import Progress
from hyocr_core.settings.eval_config import EvalConfig


def evaluate(
    model: Path,
    records: Sequence[Record],
    *,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    **settings: Any,
) -> EvalResult:
    """Evaluate these records. settings: keys of an EvalConfig."""
    config = EvalConfig(model=str(model), data="pages", **{"device": "cpu", **settings})
    return evaluation.evaluate(config, Found(list(records)), state=state, resume=resume, progress=progress)
