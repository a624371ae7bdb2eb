"""Files and processors the calibration tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hyocr_core.calibration.processor import load_processor

DEMO = Path(__file__).parents[2] / "examples" / "demo-ocr" / "checkpoint"


@pytest.fixture(scope="session")
def processor() -> Any:
    return load_processor(DEMO)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the demo checkpoint's small files, free to be damaged."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Save a plain image under tmp_path; folders are made."""

    def save(name: str, size: tuple[int, int] = (64, 32), color: str = "white") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(path)
        return path

    return save
