"""An endpoint on loopback, and pages to ask it for."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation.asking import COUNT
from tests.evaluation.endpoint import colour


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyocr_core.runtimes.endpoint.PAUSE", 0.01)
    for name in ("HYOCR_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "pages"
    data.mkdir()
    for index in range(COUNT):
        Image.new("RGB", (256, 32), colour(index)).save(data / f"{index}.png")
        (data / f"{index}.txt").write_text(f"text {index}\n")
    return data
