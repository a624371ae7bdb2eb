from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.search.search_config import SearchConfig


@pytest.fixture
def configured(demo: Path, calib: str, tmp_path: Path) -> Callable[..., SearchConfig]:
    """A search on a few lines of the demo with candidates that learn from nothing."""

    def make(**given: Any) -> SearchConfig:
        few = {"num_samples": 2, "scored_samples": 2, "draws": 2, "eval_samples": 2, "trials": 0, "device": "cpu"}
        rtn = {"candidates": ("rtn bits=4", "rtn bits=8", "none")}
        where = {"model": str(demo), "data": calib, "output": tmp_path / "recipe.yaml"}
        return SearchConfig.model_validate({**few, **rtn, **where, **given})

    return make
